"""Code as it is taught: a line that a page would have to wrap stops the build; what only Colab reads is left out."""

import json
import re

from execution import code_cells
from slides import HIDDEN
from sphinx.application import Sphinx
from sphinx.util import logging

WIDTH = 72  # columns; at 1280 px a page has room for a few more
FORM = re.compile(r"  # @param .*")  # the choices that Colab offers beside a cell
logger = logging.getLogger(__name__)


def as_taught(notebook: dict) -> dict:
    for cell in code_cells(notebook):
        cell["source"] = FORM.sub("", "".join(cell["source"]))
    return notebook


def too_wide(notebook: dict) -> list[tuple[int, str]]:
    """The lines of visible cells that are too long, each with the number of its cell, counted from 1."""
    visible = [cell for cell in code_cells(notebook) if not HIDDEN & set(cell["metadata"].get("tags", []))]
    return [
        (notebook["cells"].index(cell) + 1, line)
        for cell in visible
        for line in "".join(cell["source"]).splitlines()
        if len(line) > WIDTH
    ]


def teach(app: Sphinx, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = as_taught(json.loads(source[0]))
    for number, line in too_wide(notebook):
        where = f"{docname}.ipynb, cell {number}"
        logger.warning(f"{where}: a line must have at most {WIDTH} columns, got {len(line)}: {line}")
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", teach, priority=400)  # as the notebook is, before anything is put into it
    return {"parallel_read_safe": True}
