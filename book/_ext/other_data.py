"""The page on other data: what the claims of the executed notebooks measured there.

``tools/other_data.py`` leaves its numbers in ``other-data.csv``, a row for each finding and data set, and the rule of
``bncourse.claims`` judges them as it judges the book's own, whose rows come from the build. A claim whose prediction or
unit has changed since has no row, and the page says so.
"""

import csv
import math
from html import escape

from docutils import nodes
from ledger import badge, chapter_heading, shown, table, with_interval
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bncourse.claims import VERDICTS, units, verdict

logger = logging.getLogger(__name__)
NAMES = {
    "digits": "digits",
    "photo_digits": "digits on photographs",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}
OUTCOMES = (*VERDICTS[:3], "not measurable")


def outcome(row: dict) -> str:
    """The rule's verdict on a row's interval."""
    ends = [float(row[end]) - float(row["than"]) for end in ("low", "high")]
    return verdict(row["predicts"], *ends, units()[row["unit"]].d)[0]


class OtherDataDirective(SphinxDirective):
    """``{other-data} FILE``: how many claims hold on other data, and what was measured where the verdicts differ."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [shown(self.env, tables(self.env, read(self.env, self.arguments[0])))]


class Elsewhere(SphinxRole):
    """The role ``elsewhere`` on "mnist D1.order": what that finding's claim measured there, mean and interval."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        for row in read(self.env, "other-data.csv"):
            if self.text.split() == [row["dataset"], row["name"]]:
                return [nodes.Text(with_interval(row))], []
        logger.warning(f"elsewhere role: other-data.csv has no row {self.text!r}", location=self.get_location())
        return [], []


def read(env, name: str) -> list[dict]:
    """The rows of a file beside the page, which is read again when the file changes."""
    _, path = env.relfn2path(name)
    env.note_dependency(path)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tables(env, rows: list[dict]) -> str:
    """How many claims have which verdict; for each chapter what was measured where verdicts differ."""
    claims = [claim for claim in env.bncourse_claims if claim["kind"] != "exact" and claim["mean"] is not None]
    found = [(claim, {"digits": claim} | rows_of(claim, rows)) for claim in claims]
    result = summary([rows for _, rows in found])
    for page in dict.fromkeys(claim["page"] for claim, _ in found):
        here = [(claim, rows) for claim, rows in found if claim["page"] == page]
        told = [(claim, rows) for claim, rows in here if len({outcome(row) for row in rows.values()}) > 1]
        result += chapter_heading(env, page)
        if told:
            heads = ["The finding, and what was predicted", "Measured"]
            result += table("ledger other-data", heads, [describe(env, claim, rows) for claim, rows in told])
        lines = []
        changed = sum(len(rows) == 1 for _, rows in here)
        if rest := len(here) - len(told) - changed:
            lines.append(f"{'Other claims' if told else 'Claims'} with the same verdict on every data set: {rest}.")
        if changed:
            lines.append(f"Claims that have changed since, and were not measured again: {changed}.")
        result += f"<p>{' '.join(lines)}</p>"
    return result


def rows_of(claim: dict, rows: list[dict]) -> dict[str, dict]:
    """What was measured for a claim, by data set."""
    key = [claim["name"], claim["unit"], claim["predicts"], float(claim["than"])]
    return {
        row["dataset"]: row for row in rows if [row["name"], row["unit"], row["predicts"], float(row["than"])] == key
    }


def summary(found: list[dict[str, dict]]) -> str:
    """For each data set how many claims have which verdict."""
    lines = []
    for dataset, name in NAMES.items():
        outcomes = [outcome(rows[dataset]) for rows in found if dataset in rows]
        cells = [name, *(outcomes.count(one) for one in OUTCOMES)]
        lines.append(f"<tr>{''.join(f'<td><p>{cell}</p></td>' for cell in cells)}</tr>")
    return table("other-data-summary", ["Data", *map(str.capitalize, OUTCOMES)], lines)


def describe(env, claim: dict, rows: dict[str, dict]) -> str:
    """A claim, and one line for each data set, the book's own first."""
    name = badge(env, claim["verdict"], claim["page"], claim["anchor"], claim["name"])
    than = f" than {claim['than']:g}" if claim["than"] else ""
    predicted = f"predicted: {claim['predicts']}{than}, in {claim['unit']}"
    lines = ""
    for dataset, row in rows.items():
        found = outcome(row)
        words = f'<strong class="not-so">{found}</strong>' if found == "does not hold" else found
        measured = f": {with_interval(row)}" if math.isfinite(float(row["mean"])) else ""
        lines += f'<div class="line">{NAMES[dataset]}, {words}{measured}</div>'
    return (
        f'<tr><td><p>{name} {escape(claim["text"])}</p><p class="measured">{escape(predicted)}</p></td>'
        f'<td><div class="line-block">{lines}</div></td></tr>'
    )


def setup(app: Sphinx) -> dict:
    app.add_directive("other-data", OtherDataDirective)
    app.add_role("elsewhere", Elsewhere())
    return {"parallel_read_safe": True}
