"""The bug zoo's "find the line": a page knows on which lines of a creature the bug is, and not how it is fixed.

The lines are those that the instructor's source replaces. ``zoo.js`` asks for them.
"""

import ast
import inspect
import json
import re
from pathlib import Path

from execution import code_cells
from sphinx.application import Sphinx

from bncourse.exercises import creatures

PAGE = "exercises/ex-04-bug-zoo"
SOURCE = Path(__file__).parents[2] / "instructor" / "ex-04-bug-zoo.py"


def bug_lines(cells: list[str]) -> dict[str, list[int]]:
    """For each creature that stands in a cell its lines, counted from 0, that the solution changes.

    There are none without the instructor, nor in the edition whose creatures are fixed.
    """
    text = SOURCE.read_text(encoding="utf-8") if SOURCE.exists() else ""
    found = {}
    for name, fixes in re.findall(r"^(\w+) = ({\n.*?\n})$", text, re.DOTALL | re.MULTILINE):
        source = inspect.getsource(getattr(creatures, name))
        if not any(source.strip() in cell for cell in cells):
            continue
        lines = set()
        for old in ast.literal_eval(fixes):
            first = source[: source.index(old)].count("\n")
            lines |= set(range(first, first + old.strip("\n").count("\n") + 1))
        found[name] = sorted(lines)
    return found


def add_lines(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    if pagename == PAGE and app.builder.name == "html":
        notebook = json.loads(Path(app.env.doc2path(pagename)).read_text(encoding="utf-8"))
        bugs = bug_lines(["".join(cell["source"]) for cell in code_cells(notebook)])
        context["body"] += f'<script type="application/json" id="bn-bugs">{json.dumps(bugs)}</script>'


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_lines)
    return {"parallel_read_safe": True}
