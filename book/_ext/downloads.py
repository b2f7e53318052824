"""Each notebook's download carries the package, so that it runs as it is; the wheel lies beside the pages.

``notebooks/NAME.js`` has a page's notebook, ``notebooks/package.js`` the package, once for all pages; ``downloads.js``
puts the two together. Scripts can be read from a folder, too, where a link to a notebook would show its JSON.
"""

import json
from pathlib import Path

from sphinx.application import Sphinx

from tools import wheel
from tools.colab import carrying, packed_package
from tools.toc import notebooks

FOLDER, MARK = "notebooks", "PACKAGE"


def course(app: Sphinx) -> Path | None:
    """The course's root; None for a book that has no package."""
    root = Path(app.srcdir).parent
    return root if (root / "pyproject.toml").exists() else None


def name_the_wheel(app: Sphinx, docname: str, source: list[str]) -> None:
    """In the page ``run-it``, ``{wheel}`` is the file's name and ``{wheel-link}`` a link to it."""
    if docname == "run-it" and (root := course(app)):
        name = wheel.name(root)
        link = f'<a href="{name}" download>{name}</a>'
        source[0] = source[0].replace("{wheel}", name).replace("{wheel-link}", link)


def write(app: Sphinx, exception: Exception | None) -> None:
    root = course(app)
    if exception is not None or app.builder.name != "html" or root is None:
        return
    folder = Path(app.outdir, FOLDER)
    write_script(folder / "package.js", "bncoursePackage", packed_package(root))
    for path in notebooks(root):
        target = folder / path.relative_to(root / "book").with_suffix(".js")
        write_script(target, "bncourseNotebook", carrying(path, MARK, root))
    wheel.write(Path(app.outdir), root)


def write_script(path: Path, variable: str, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(f"window.{variable} = {text}\n", encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("source-read", name_the_wheel)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
