"""The page on other data: what the claims of the executed notebooks measured there.

``tools/other_data.py`` leaves its numbers in ``other-data.csv``. Each row belongs to a claim by chapter, statement and
place among the claims on that statement. A claim whose condition has changed since has no row, and the page says so.
"""

import csv
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from ledger import all_claims, badge, chapter_heading, link, made_later, paragraph, table, table_row, with_interval
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)
NAMES = {
    "digits": "digits",
    "photo_digits": "digits on photographs",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}


class Finding(NamedTuple):
    """A claim of a chapter with its rows of the table, by data set."""

    page: str
    claim: dict
    rows: dict[str, dict]

    @property
    def over_seeds(self) -> bool:
        return self.claim["count"] > 1

    @property
    def holds_everywhere(self) -> bool:
        return all(outcome(row) == "holds" for row in self.rows.values())


OUTCOMES = ("holds", "open", "not so", "not measurable")
UNDECIDED = {"holds": "undecided", "not so": "decided"}  # for a claim that says that nothing can be said


def outcome(row: dict) -> str:
    """Whether the whole interval lies beyond the asserted threshold, on both sides of it, or on the other side.

    Not measurable: a run diverged, or never came to where it was to be compared.
    """
    if not math.isfinite(float(row["mean"])):
        return "not measurable"
    side, _, threshold = row["condition"].partition(" ")
    if int(row["count"]) == 1 or side == "within":
        return "holds" if row["supported"] == "True" else "not so"
    sign = 1 if side == "above" else -1
    low, high = sorted(sign * (float(row[end]) - float(threshold)) for end in ("low", "high"))
    return "holds" if low > 0 else "not so" if high < 0 else "open"


class OtherDataDirective(SphinxDirective):
    """``{other-data} FILE``: how many claims hold on other data, and what was measured where they do not."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        return [made_later(self.env, make_tables, Path(path))]


class Elsewhere(SphinxRole):
    """The role ``elsewhere`` on "mnist 09-dropout D1 2": the second claim on D1 there, mean and interval."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        _, path = self.env.relfn2path("other-data.csv")
        self.env.note_dependency(path)
        for row in read(Path(path)):
            if self.text.split() == [row["dataset"], row["chapter"], row["id"], row["number"]]:
                return [nodes.Text(numbers(row))], []
        logger.warning(f"elsewhere role: other-data.csv has no row {self.text!r}", location=self.get_location())
        return [], []


def numbers(row: dict) -> str:
    """The mean, and its interval if there is one."""
    return f"{float(row['mean']):.3g}" if int(row["count"]) == 1 else with_interval(row)


@cache
def read(path: Path) -> list[dict]:
    """The rows, read once in a build."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def findings(claims: dict[str, list[dict]], path: Path) -> list[Finding]:
    """Each chapter's claims with what was measured elsewhere."""
    measured: dict[tuple, dict[str, dict]] = {}
    for row in read(path):
        key = row["chapter"], row["id"], int(row["number"]), row["condition"]
        measured.setdefault(key, {})[row["dataset"]] = row
    return [
        Finding(page, claim, measured.get((page, claim["id"], claim["number"], claim["condition"]), {}))
        for page, found in sorted(claims.items())
        for claim in found
    ]


def make_tables(app: Sphinx, docname: str, path: Path) -> list[nodes.Node]:
    """How many claims hold on other data, and what was measured where they do not."""
    found = findings(all_claims(app.env), path)
    return [summary(found), *details(app, docname, found)]


def summary(found: list[Finding]) -> nodes.table:
    """For each data set how many of the claims over several seeds have which outcome."""
    rows = []
    for dataset, name in NAMES.items():
        outcomes = [outcome(f.rows[dataset]) for f in found if dataset in f.rows and f.over_seeds]
        if outcomes:
            counts = [str(outcomes.count(one)) for one in OUTCOMES]
            rows.append(table_row(*[[paragraph(cell)] for cell in (name, *counts)]))
    heads = ["Data", *map(str.capitalize, OUTCOMES)]
    return table(heads, rows, [1] * len(heads), ["other-data-summary"])


def details(app: Sphinx, docname: str, found: list[Finding]) -> list[nodes.Node]:
    """A table for each chapter with the claims that do not hold everywhere, and a line about the others."""
    result: list[nodes.Node] = []
    for page in dict.fromkeys(f.page for f in found):
        here = [f for f in found if f.page == page]
        result.append(chapter_heading(app, docname, page))
        told = [f for f in here if not f.holds_everywhere]
        if told:
            rows = [table_row(describe_claim(app, docname, f), [describe_rows(f)]) for f in told]
            heads = ["The claim, and what was asserted", "Measured"]
            result.append(table(heads, rows, [1, 1], ["ledger", "other-data"]))
        lines = []
        changed = sum(not f.rows for f in here)
        if rest := len(here) - len(told) - changed:
            lines.append(f"{'Other claims' if told else 'Claims'} that hold on every data set: {rest}.")
        if changed:
            lines.append(f"Claims that have changed since, and were not measured again: {changed}.")
        result.append(paragraph(" ".join(lines)))
    return result


def describe_claim(app: Sphinx, docname: str, finding: Finding) -> list[nodes.Node]:
    claim = finding.claim
    name = badge(claim["verdict"], link(app, docname, finding.page, claim["anchor"], claim["id"]))
    unit = f", {claim['unit']}" if claim["unit"] else ""
    asserted = paragraph(f"asserted: {claim['condition']}{unit}", classes=["measured"])
    return [paragraph(name, " " + claim["text"]), asserted]


def describe_rows(finding: Finding) -> nodes.line_block:
    """One line for each data set, the book's own first."""
    lines = nodes.line_block()
    for dataset, row in ({"digits": finding.claim} | finding.rows).items():
        found = "holds" if dataset == "digits" else outcome(row)
        words = UNDECIDED.get(found, found) if row["condition"].startswith("within") else found
        shown = nodes.strong("", words, classes=["not-so"]) if found == "not so" else nodes.Text(words)
        measured = f": {numbers(row)}" if math.isfinite(float(row["mean"])) else ""
        lines += nodes.line("", "", nodes.Text(f"{NAMES[dataset]}, "), shown, nodes.Text(measured))
    return lines


def setup(app: Sphinx) -> dict:
    app.add_directive("other-data", OtherDataDirective)
    app.add_role("elsewhere", Elsewhere())
    return {"parallel_read_safe": True}
