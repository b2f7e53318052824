"""The bug zoo's "find the line": a page knows on which lines of a creature the bug is, and not how it is fixed.

The lines are those that the instructor's source replaces. ``zoo.js`` asks for them.
"""

import ast
import inspect
import json
import re
from pathlib import Path

from sphinx.application import Sphinx

from bncourse.exercises import creatures

PAGE = "exercises/ex-04-bug-zoo"
SOURCE = Path(__file__).parents[2] / "instructor" / "ex-04-bug-zoo.py"


def bug_lines() -> dict[str, list[int]]:
    """For each creature its lines, counted from 0, that the solution changes; none without the instructor."""
    text = SOURCE.read_text(encoding="utf-8") if SOURCE.exists() else ""
    found = {}
    for name, fixes in re.findall(r"^(\w+) = ({\n.*?\n})$", text, re.DOTALL | re.MULTILINE):
        source = inspect.getsource(getattr(creatures, name))
        lines = set()
        for old in ast.literal_eval(fixes):
            first = source[: source.index(old)].count("\n")
            lines |= set(range(first, first + old.strip("\n").count("\n") + 1))
        found[name] = sorted(lines)
    return found


def add_lines(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    if pagename == PAGE and app.builder.name == "html":
        context["body"] += f'<script type="application/json" id="bn-bugs">{json.dumps(bug_lines())}</script>'


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_lines)
    return {"parallel_read_safe": True}
