"""The doctor's page: its rules as a table for each group, and its answers, made while the page is read."""

import contextlib
import io
import json
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes
from ledger import table
from links import chapter_link, marked, read_again_with
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "doctor.json"
GROUPS = {
    "statistics": "Running statistics",
    "modes": "Training and evaluation mode",
    "shapes": "What a mean is taken over",
    "architecture": "Where the norms are, and what they compute",
    "optimizer": "The optimizer",
    "averaging": "Models made of other models",
    "precision": "Precision and devices",
    "watching": "While you train",
}


class RulesDirective(SphinxDirective):
    """``{doctor-rules}``: all rules. ``[BN-F01](#BN-F01)`` links to one from any page."""

    def run(self) -> list[nodes.Node]:
        from bncourse.doctor import RULES

        read_again_with(self.env, "bncourse.doctor")
        result: list[nodes.Node] = []
        by_group = sorted(RULES, key=lambda rule: (list(GROUPS).index(rule.group), rule.id))
        for group, rules in groupby(by_group, key=lambda rule: rule.group):
            rows = []
            for rule in rules:
                target = nodes.target("", "", ids=[rule.id], names=[rule.id.lower()])
                self.state.document.note_explicit_target(target, target)
                rows.append(self.row(rule))
            result.append(nodes.rubric("", GROUPS[group]))
            heads = ["Rule", "What it finds, and how it knows", "Severity", "Needs", "Read"]
            result.append(nodes.raw("", table("doctor", heads, rows), format="html"))
        return result

    def row(self, rule) -> str:
        needs = {"static": "the model", "forward": "a batch", "watch": "<code>watch</code>"}[rule.level]
        cells = [
            f"<strong>{rule.id}</strong>",
            f"<strong>{escape(rule.title)}.</strong> {marked(rule.explanation)}",
            rule.severity,
            needs,
            chapter_link(self.env, rule.chapter, f"chapter {rule.chapter}"),
        ]
        return f'<tr id="{rule.id}">{"".join(f"<td><p>{cell}</p></td>" for cell in cells)}</tr>'


class RunDirective(SphinxDirective):
    """``{doctor-run}``: Python code, shown and run, and what it prints. A page's runs share their names."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        read_again_with(self.env, "bncourse.doctor")
        code, printed = "\n".join(self.content), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.env.temp_data.setdefault("doctor", {"__name__": "page"}))
        shown = [nodes.literal_block(code, code, language="python")]
        if text := printed.getvalue().rstrip():
            shown.append(nodes.literal_block(text, text, language="text"))
        return shown


class MeasuredDirective(SphinxDirective):
    """``{doctor-measured} WHAT``: what ``benchmarks/doctor.py`` has measured of public models.

    ``healthy`` and ``sick`` are the doctor's answers, ``folded`` a table, ``speed`` a sentence.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RESULTS))
        results, what = json.loads(RESULTS.read_text(encoding="utf-8")), self.arguments[0]
        if what == "folded":
            return [nodes.raw("", folded(results["folded"], len(results["public"])), format="html")]
        if what == "speed":
            return [nodes.paragraph("", speed(next(row for row in results["shown"] if "forward" in row)))]
        answer = next(row[what] for row in results["shown"] if what in row)
        return [nodes.literal_block(answer, answer, language="text")]


def folded(rows: list[dict], looked_at: int) -> str:
    """For each public architecture, how many of its batch norms were folded; "refused", where that raised an error.

    ``rows`` are those that have batch norms, of all that were ``looked_at``.
    """
    lines, largest = [], 0.0
    for row in sorted(rows, key=lambda row: row["name"]):
        torch = "refused" if "torch_said" in row else row["torch"]
        off = max((row[f"{who}_off"] for who in ("ours", "torch") if row[who]), default=0.0)
        cells = [escape(row["name"]), row["norms"], row["ours"], torch, power(off) if off else ""]
        lines.append(f"<tr>{''.join(f'<td><p>{cell}</p></td>' for cell in cells)}</tr>")
        largest = max(largest, off)
    total = [sum(row[key] for row in rows) for key in ("norms", "ours", "torch")]
    cells = "".join(f"<td><p><strong>{cell}</strong></p></td>" for cell in ["Total", *total, power(largest)])
    heads = ["Architecture", "Batch norms", "surgery.fold", "torch.fx's fuse", "Outputs differ by"]
    return (
        f"<p>{looked_at - len(rows)} of the {looked_at} architectures have no batch norms. The table has the "
        "others, with the largest difference that either tool makes to the outputs, as a share of their size:</p>"
        + table("folded", heads, [*lines, f"<tr>{cells}</tr>"])
    )


def power(value: float) -> str:
    """A number with one digit: 3 · 10⁻⁶."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit} · 10<sup>{int(exponent)}</sup>".replace("-", "−")


def speed(times: dict[str, float]) -> str:
    ratio = times["examination"] / times["forward"]
    return (
        f"For a ResNet-50 and 8 images of 224×224 pixels, one forward pass takes {times['forward']:.1f} s on one core, "
        f"the static rules alone take {times['static']:.1f} s, "
        f"and an examination with that batch takes {times['examination']:.1f} s, as long as {ratio:.0f} forward passes."
    )


def setup(app: Sphinx) -> dict:
    app.add_directive("doctor-rules", RulesDirective)
    app.add_directive("doctor-run", RunDirective)
    app.add_directive("doctor-measured", MeasuredDirective)
    return {"parallel_read_safe": True}
