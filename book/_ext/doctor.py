"""The doctor's page: its rules as a table for each group, and its answers, made while the page is read."""

import contextlib
import io
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes
from ledger import table
from links import link
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

        depend_on_doctor(self.env)
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
        text = escape(rule.explanation).split("``")  # code stands between pairs of these
        text = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(text))
        pages = [name for name in self.env.found_docs if name.startswith(f"{rule.chapter:02}-")]
        read = link(self.env, pages[0], f"chapter {rule.chapter}") if pages else f"chapter {rule.chapter}"
        needs = {"static": "the model", "forward": "a batch", "watch": "<code>watch</code>"}[rule.level]
        cells = [
            f"<strong>{rule.id}</strong>",
            f"<strong>{escape(rule.title)}.</strong> {text}",
            rule.severity,
            needs,
            read,
        ]
        return f'<tr id="{rule.id}">{"".join(f"<td><p>{cell}</p></td>" for cell in cells)}</tr>'


class RunDirective(SphinxDirective):
    """``{doctor-run}``: Python code, shown and run, and what it prints. A page's runs share their names."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        depend_on_doctor(self.env)
        code, printed = "\n".join(self.content), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.env.temp_data.setdefault("doctor", {"__name__": "page"}))
        shown = [nodes.literal_block(code, code, language="python")]
        if text := printed.getvalue().rstrip():
            shown.append(nodes.literal_block(text, text, language="text"))
        return shown


def depend_on_doctor(env) -> None:
    """Read the page anew when a file of the doctor changes."""
    import bncourse.doctor

    for path in Path(bncourse.doctor.__file__).parent.glob("*.py"):
        env.note_dependency(str(path))


def setup(app: Sphinx) -> dict:
    app.add_directive("doctor-rules", RulesDirective)
    app.add_directive("doctor-run", RunDirective)
    return {"parallel_read_safe": True}
