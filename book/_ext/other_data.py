"""The page on other data: what the claims of the executed notebooks measured there.

``tools/other_data.py`` leaves its numbers in ``other-data.csv``. Each row belongs to a claim by chapter, statement and
place among the claims on that statement. A claim whose condition has changed since has no row, and the page says so.
"""

import csv
import math
from html import escape

from docutils import nodes
from ledger import badge, chapter_heading, shown, table, with_interval
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
        return [shown(self.env, tables(self.env, read(self.env, self.arguments[0])))]


class Elsewhere(SphinxRole):
    """The role ``elsewhere`` on "mnist 09-dropout D1 2": the second claim on D1 there, mean and interval."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        for row in read(self.env, "other-data.csv"):
            if self.text.split() == [row["dataset"], row["chapter"], row["id"], row["number"]]:
                return [nodes.Text(numbers(row))], []
        logger.warning(f"elsewhere role: other-data.csv has no row {self.text!r}", location=self.get_location())
        return [], []


def numbers(row: dict) -> str:
    """The mean, and its interval if there is one."""
    return f"{float(row['mean']):.3g}" if int(row["count"]) == 1 else with_interval(row)


def read(env, name: str) -> list[dict]:
    """The rows of a file beside the page, which is read again when the file changes."""
    _, path = env.relfn2path(name)
    env.note_dependency(path)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tables(env, rows: list[dict]) -> str:
    """How many claims hold on other data; for each chapter what was measured where they do not, and how many others."""
    found = [(claim, rows_of(claim, rows)) for claim in env.bncourse_claims]
    result = summary([rows for claim, rows in found if claim["count"] > 1])
    for page in dict.fromkeys(claim["page"] for claim, _ in found):
        here = [(claim, rows) for claim, rows in found if claim["page"] == page]
        told = [(claim, rows) for claim, rows in here if any(outcome(row) != "holds" for row in rows.values())]
        result += chapter_heading(env, page)
        if told:
            heads = ["The claim, and what was asserted", "Measured"]
            result += table("ledger other-data", heads, [describe(env, claim, rows) for claim, rows in told])
        lines = []
        changed = sum(not rows for _, rows in here)
        if rest := len(here) - len(told) - changed:
            lines.append(f"{'Other claims' if told else 'Claims'} that hold on every data set: {rest}.")
        if changed:
            lines.append(f"Claims that have changed since, and were not measured again: {changed}.")
        result += f"<p>{' '.join(lines)}</p>"
    return result


def rows_of(claim: dict, rows: list[dict]) -> dict[str, dict]:
    """What was measured for a claim, by data set."""
    key = [claim["page"], claim["id"], str(claim["number"]), claim["condition"]]
    return {row["dataset"]: row for row in rows if [row[c] for c in ("chapter", "id", "number", "condition")] == key}


def summary(found: list[dict[str, dict]]) -> str:
    """For each data set how many claims have which outcome."""
    lines = []
    for dataset, name in NAMES.items():
        outcomes = [outcome(rows[dataset]) for rows in found if dataset in rows]
        if outcomes:
            cells = [name, *(outcomes.count(one) for one in OUTCOMES)]
            lines.append(f"<tr>{''.join(f'<td><p>{cell}</p></td>' for cell in cells)}</tr>")
    return table("other-data-summary", ["Data", *map(str.capitalize, OUTCOMES)], lines)


def describe(env, claim: dict, rows: dict[str, dict]) -> str:
    """A claim, and one line for each data set, the book's own first."""
    name = badge(env, claim["verdict"], claim["page"], claim["anchor"], claim["id"])
    asserted = f"asserted: {claim['condition']}" + (f", {claim['unit']}" if claim["unit"] else "")
    lines = ""
    for dataset, row in ({"digits": claim} | rows).items():
        found = "holds" if dataset == "digits" else outcome(row)
        words = UNDECIDED.get(found, found) if row["condition"].startswith("within") else found
        if found == "not so":
            words = f'<strong class="not-so">{words}</strong>'
        measured = f": {numbers(row)}" if math.isfinite(float(row["mean"])) else ""
        lines += f'<div class="line">{NAMES[dataset]}, {words}{measured}</div>'
    return (
        f'<tr><td><p>{name} {escape(claim["text"])}</p><p class="measured">{escape(asserted)}</p></td>'
        f'<td><div class="line-block">{lines}</div></td></tr>'
    )


def setup(app: Sphinx) -> dict:
    app.add_directive("other-data", OtherDataDirective)
    app.add_role("elsewhere", Elsewhere())
    return {"parallel_read_safe": True}
