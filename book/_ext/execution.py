"""Hand the executed notebooks to MyST-NB: ``tools.notebooks`` has run them, Sphinx only reads them."""

import json
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from tools.runs import Notebook
from tools.toc import chapters


def executed(app: Sphinx) -> dict[str, Notebook]:
    """The chapters' notebooks by document."""
    root = Path(app.srcdir).parent
    return {app.env.path2doc(str(path)): Notebook(path, root) for path in chapters(root)}


def run_since_read(app: Sphinx, env, *_) -> list[str]:
    """The pages whose notebooks have run since they were read."""
    runs = {name: notebook.newest() for name, notebook in executed(app).items()}
    return [name for name, run in runs.items() if run and env.metadata[name].get("result") != run.result]


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def hand_over(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the outputs into the notebook that is about to be read."""
    chapter = executed(app).get(docname)
    if chapter is None:
        return
    run = chapter.newest()
    if run is None:
        raise ExtensionError(f"{docname}.ipynb has not been run since it was changed; build with python -m tools.build")
    notebook, result = (json.loads(text) for text in (source[0], chapter.result(run).read_text(encoding="utf-8")))
    for cell, done in zip(code_cells(notebook), code_cells(result), strict=True):
        cell.update(outputs=done["outputs"], execution_count=done["execution_count"])
    source[0] = json.dumps(notebook)
    app.env.metadata[docname].update(result=run.result, seconds=run.seconds)


def setup(app: Sphinx) -> dict:
    app.connect("env-get-outdated", run_since_read)
    app.connect("source-read", hand_over)
    return {"parallel_read_safe": True}
