"""Code as it is taught: a line that a page would have to wrap stops the build; what only Colab reads is left out.

The package's lines are longer than a page has room for. So what ``show_source`` displays is reformatted.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

from execution import code_cells
from slides import HIDDEN
from sphinx.application import Sphinx
from sphinx.util import logging

WIDTH = 72  # columns; at 1280 px a page has room for a few more
LISTING = 88  # columns of the package's source, in smaller letters: course.css
FORM = re.compile(r"  # @param .*")  # the choices that Colab offers beside a cell
SOURCE = re.compile(r"```python\n(.*)```", re.DOTALL)
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


def warn_of(docname: str, number: int, width: int, line: str) -> None:
    where = f"{docname}.ipynb, cell {number}"
    logger.warning(f"{where}: a line must have at most {width} columns, got {len(line)}: {line}")


def teach(app: Sphinx, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = as_taught(json.loads(source[0]))
    for number, line in too_wide(notebook):
        warn_of(docname, number, WIDTH, line)
    source[0] = json.dumps(notebook)


def laid_out(code: str) -> str:
    """Code with other line breaks; those of its comments and strings stay."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={LISTING}", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout


def listings(notebook: dict) -> Iterator[tuple[int, dict, str]]:
    """The number of the cell, the data and the code of each output that is source code."""
    for number, cell in enumerate(notebook["cells"], 1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if found := SOURCE.fullmatch("".join(data.get("text/markdown", ""))):
                yield number, data, found[1]


def fit(app: Sphinx, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    for number, data, code in listings(notebook):
        code = laid_out(code)
        data["text/markdown"] = f"```python\n{code}```"
        for line in code.splitlines():
            if len(line) > LISTING:
                warn_of(docname, number, LISTING, line)
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", teach, priority=400)  # as the notebook is, before anything is put into it
    app.connect("source-read", fit, priority=600)  # its outputs are in it
    return {"parallel_read_safe": True}
