"""Slides for each chapter, from its executed notebook: goals, predictions, formulas, figures, verdicts, summary.

Each is one HTML file in ``slides/`` beside the pages, with the book's pictures and its MathJax.
``{slides}`` lists them, and ``{reading}`` on "1 2 3" says how long these chapters take to read.
"""

import ast
import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from execution import code_cells, executed
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from questions import chapter_of, read
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

FOLDER = "slides"
WORDS, LINES = 180, 20  # that a reader takes in a minute, of text and of code
HIDDEN = {"hide-input", "remove-input", "remove-cell", "setup"}
STYLE = (Path(__file__).parent / "slides.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "slides.js").read_text(encoding="utf-8")
MATHJAX = """<script>window.MathJax = {options: {processHtmlClass: "math"}}</script>
<script defer src="../_static/mathjax/tex-chtml.js"></script>"""
markdown = (
    MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=lambda tex, options: formula(tex, options))
)


def formula(tex: str, options: dict) -> str:
    opened, closed = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
    return f'<span class="math">{opened}{escape(tex)}{closed}</span>'


def cells_of(notebook: dict) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]


def text(source: str, numbers: dict[str, str]) -> str:
    """Markdown of a chapter as HTML, with its numbers put in, without citations and links."""
    source = re.sub(r"\{glue:text\}`([^`]+)`", lambda found: numbers.get(found[1], "…"), source)
    source = re.sub(r" ?\{(cite|verdict|eq|elsewhere)\}`[^`]*`", "", source)
    source = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", source)
    return markdown.render(source)


def numbers_of(cells: list[dict]) -> dict[str, str]:
    """What the chapter measured and its text prints."""
    found = {}
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            value = "".join(output["data"].get("application/papermill.record/text/plain", "''"))
            found[name] = str(ast.literal_eval(value))
    return found


def part(source: str, start: str) -> str:
    """The list that follows a line of the source; nothing if there is none."""
    found = re.search(rf"^{re.escape(start)}.*?\n+((?:- .*\n?(?:  .*\n?)*)+)", source, re.MULTILINE)
    return found[1] if found else ""


def slide(title: str, content: str, kind: str = "") -> str:
    level = "h1" if kind == "title" else "h2"
    return f'<section class="{kind}"><{level}>{title}</{level}>{content}</section>'


def algorithm(source: str) -> str:
    """The formulas of a section that has a few, each with the bold words before it; not a derivation."""
    found = re.findall(r"(?:^(\*\*[^*]+\*\*)[^\n]*\n\n)?^(\$\$.+?\$\$)", source, re.MULTILINE | re.DOTALL)
    return "\n\n".join(f"{step}\n\n{line}" for step, line in found) if 2 <= len(found) <= 4 else ""


def figure(data: dict, details: dict) -> str:
    """A picture with its caption, and what it shows in words."""
    alt, caption = escape(details.get("alt", ""), quote=True), markdown.renderInline(details.get("caption", ""))
    picture = hashlib.sha256(base64.b64decode("".join(data["image/png"]))).hexdigest()  # as MyST-NB names it
    return (
        f'<figure><img src="../_images/{picture}.png" alt="{alt}"><figcaption><p><b>{caption}</b></p>'
        f"<p>{alt}</p></figcaption></figure>"
    )


def slides_of(docname: str, notebook: dict, claims: list[dict]) -> str:
    """The whole file of a chapter."""
    cells = cells_of(notebook)
    numbers = numbers_of(cells)
    prose = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    title = re.search(r"^# (.*)$", prose, re.MULTILINE)[1]
    goals = part(prose, "**You will be able to**") or part(prose, "You will be able to")
    shown = [
        slide(
            f"{int(docname[:2])}. {escape(title)}",
            "<p>You will be able to</p>" * bool(goals) + text(goals, numbers),
            "title",
        )
    ]
    if chapter_of(docname):
        for question in read(docname[:2], "prediction", claims):
            answers = "".join(f"<li>{answer.text}</li>" for answer in question.answers)
            shown.append(slide("Predict", f"<p>{question.ask}</p><ul>{answers}</ul>", "predict"))
    heading, findings = escape(title), []
    for cell in cells:
        if cell["cell_type"] == "markdown":
            for section in re.split(r"^(?=##+ )", cell["source"], flags=re.MULTILINE)[1:]:
                if findings:
                    shown.append(slide(heading, f"<ul>{''.join(findings)}</ul>", "findings"))
                    findings = []
                heading = markdown.renderInline(section.splitlines()[0].lstrip("# "))
                if steps := algorithm(section):
                    shown.append(slide(heading, text(steps, numbers), "algorithm"))
        for output in cell.get("outputs", []):
            data, metadata = output.get("data", {}), output.get("metadata", {})
            if "image/png" in data:
                shown.append(slide(heading, figure(data, metadata.get("image/png", {})), "figure"))
            if claim := metadata.get("bncourse_claim"):
                findings.append(f"<li><b>{escape(claim['verdict'])}</b>: {escape(claim['text'])}</li>")
    summary = part(prose, "## What to remember")
    shown += [slide("What to remember", text(summary, numbers))] * bool(summary)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(title)}: slides</title>"
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style>{MATHJAX}</head>'
        f"<body><main>{''.join(shown)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def write_slides(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    folder = Path(app.outdir, FOLDER)
    folder.mkdir(exist_ok=True)
    for docname, chapter in executed(app).items():
        notebook = json.loads(chapter.result(chapter.newest()).read_text(encoding="utf-8"))
        claims = [claim for claim in app.env.bncourse_claims if claim["page"] == docname]
        page = slides_of(docname, notebook, claims)
        (folder / f"{docname}.html").write_text(page, encoding="utf-8")


class SlidesDirective(SphinxDirective):
    """Links to all slides."""

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["shows_claims"] = True  # read again in every build
        rows = ""
        for docname, chapter in sorted(executed(self.env.app).items()):
            cells = cells_of(json.loads(chapter.path.read_text(encoding="utf-8")))
            title = next(cell["source"] for cell in cells).splitlines()[0].removeprefix("# ")
            rows += f'<li><a href="{FOLDER}/{docname}.html">{int(docname[:2])}. {escape(title)}</a></li>'
        return [nodes.raw("", f"<ul>{rows}</ul>", format="html")]


def minutes(notebook: dict) -> float:
    """How long a chapter takes to read: its text, and the code that it shows."""
    cells = cells_of(notebook)
    words = sum(len(cell["source"].split()) for cell in cells if cell["cell_type"] == "markdown")
    visible = [cell for cell in code_cells({"cells": cells}) if not HIDDEN & set(cell["metadata"].get("tags", []))]
    return words / WORDS + sum(len(cell["source"].splitlines()) for cell in visible) / LINES


class ReadingRole(SphinxRole):
    """How long chapters take to read, rounded to five minutes."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        pages = {int(name[:2]): chapter for name, chapter in executed(self.env.app).items()}
        total = 0.0
        for number in map(int, self.text.split()):
            self.env.note_dependency(str(pages[number].path))
            total += minutes(json.loads(pages[number].path.read_text(encoding="utf-8")))
        return [nodes.Text(f"{5 * round(total / 5)} minutes")], []


def setup(app: Sphinx) -> dict:
    app.add_directive("slides", SlidesDirective)
    app.add_role("reading", ReadingRole())
    app.connect("build-finished", write_slides)
    return {"parallel_read_safe": True}
