"""Code as it is taught: no visible cell has a line that a page would have to wrap. The build names those that have."""

import json

from execution import code_cells
from slides import HIDDEN
from sphinx.application import Sphinx
from sphinx.util import logging

WIDTH = 72  # columns; at 1280 px a page has room for a few more
STOPS = False  # True once all chapters are within it: then a line that is too long stops the build
logger = logging.getLogger(__name__)


def too_wide(notebook: dict) -> list[tuple[int, str]]:
    """The lines of visible cells that are too long, each with the number of its cell, counted from 1."""
    visible = [cell for cell in code_cells(notebook) if not HIDDEN & set(cell["metadata"].get("tags", []))]
    return [
        (notebook["cells"].index(cell) + 1, line)
        for cell in visible
        for line in "".join(cell["source"]).splitlines()
        if len(line) > WIDTH
    ]


def name_wide_cells(app: Sphinx, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    for number, line in too_wide(json.loads(source[0])):
        (logger.warning if STOPS else logger.info)(
            f"{docname}.ipynb, cell {number}: a line must have at most {WIDTH} columns, got {len(line)}: {line}"
        )


def setup(app: Sphinx) -> dict:
    app.connect("source-read", name_wide_cells, priority=400)  # as the notebook is, before anything is put into it
    return {"parallel_read_safe": True}
