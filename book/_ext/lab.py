"""The lab in the book: ``{lab}`` opens it on a page, ``{lab-presets}`` lists its presets, which any page can link to.

``[Try it](#lab-first)`` leads to a preset; the lab's own page keeps its state in the address.
"""

from functools import partial
from html import escape
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from links import chapter_link, link, read_again_with
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bncourse import lab
from bncourse.claims import statements

PAGE = "lab"  # the lab's own


def refute(env, statement: str) -> str:
    """The ledger's button: the preset that may refute a statement, or why there is none; nothing without a lab."""
    if PAGE not in env.found_docs:
        return ""
    preset, text = lab.link(statement)
    return f'<p class="measured">{link(env, PAGE, text, f"lab-{preset}") if preset else escape(text)}</p>'


class LabDirective(SphinxDirective):
    """The lab with a preset, ``first`` by default; with ``:small:`` only the curves and the button that starts them."""

    optional_arguments = 1
    option_spec: ClassVar = {"small": directives.flag}

    def run(self) -> list[nodes.Node]:
        read_again_with(self.env, "bncourse.lab")
        own = self.env.docname == PAGE
        uri = partial(self.env.app.builder.get_relative_uri, self.env.docname)
        ledger = uri("ledger") if "ledger" in self.env.found_docs else ""
        preset = (self.arguments or ["first"])[0]
        small = "small" in self.options
        text = lab.html(preset, small=small, address=own, page="" if own else uri(PAGE), ledger=ledger)
        return [nodes.raw("", text, format="html")]


class PresetsDirective(SphinxDirective):
    """All presets by chapter, each with its question; their anchors are what links to presets lead to."""

    def run(self) -> list[nodes.Node]:
        read_again_with(self.env, "bncourse.lab")
        for preset in lab.presets():  # their anchors, for Sphinx
            row = nodes.target("", "", ids=[f"lab-{preset}"], names=[f"lab-{preset}"])
            self.state.document.note_explicit_target(row, row)
        return [
            nodes.raw(
                "", "".join(map(self.group, sorted({one["chapter"] for one in lab.presets().values()}))), format="html"
            )
        ]

    def group(self, chapter: int) -> str:
        heading = f"{chapter_link(self.env, chapter, f'Chapter {chapter}')}: {escape(lab.themes()[str(chapter)])}"
        rows = [
            f'<li id="lab-{name}"><a href="#lab-{name}"><strong>{escape(one["title"])}</strong></a>: '
            f"{escape(one['question'])}</li>"
            for name, one in lab.presets().items()
            if one["chapter"] == chapter
        ]
        return f'<p class="rubric">{heading}</p><ul>{"".join(rows)}</ul>'


class NotShownDirective(SphinxDirective):
    """The statements that the lab does not show, each with the reason."""

    def run(self) -> list[nodes.Node]:
        read_again_with(self.env, "bncourse.lab")
        rows = [self.row(name) for name in statements() if lab.link(name).preset is None]
        return [nodes.raw("", f"<ul>{''.join(rows)}</ul>", format="html")]

    def row(self, name: str) -> str:
        statement = link(self.env, "ledger", name, f"ledger-{name}")
        return f"<li>{statement}: {escape(lab.link(name).text.removeprefix('Not in the lab: '))}</li>"


def setup(app: Sphinx) -> dict:
    app.add_directive("lab", LabDirective)
    app.add_directive("lab-presets", PresetsDirective)
    app.add_directive("lab-not-shown", NotShownDirective)
    return {"parallel_read_safe": True}
