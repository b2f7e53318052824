"""The doctor's page: its rules as a table for each group, and its answers, made while the page is read."""

import contextlib
import io
from html import escape
from itertools import groupby

from docutils import nodes
from ledger import table
from links import chapter_link, marked, read_again_with
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

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


def setup(app: Sphinx) -> dict:
    app.add_directive("doctor-rules", RulesDirective)
    app.add_directive("doctor-run", RunDirective)
    return {"parallel_read_safe": True}
