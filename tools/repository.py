"""Say where the course is published, everywhere at once.

usage: python -m tools.repository https://github.com/OWNER/NAME
       python -m tools.repository ""        (nowhere: no Colab buttons, and the set-up cell explains what to do)

The place is written in _config.yml (`repository`); from it follow the Colab buttons and the set-up cell of every
notebook, which installs the tag that `branch` names, never a moving branch. Colab opens notebooks from GitHub only.
"""

import json
import re
import sys
from pathlib import Path

import yaml

from tools.toc import ROOT

FORM = re.compile(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]*/(?!\.+$)[A-Za-z0-9._-]+")

OPENING = 'import importlib.util\nif importlib.util.find_spec("bncourse") is None:\n    '
LOCAL = OPENING + (
    'raise ModuleNotFoundError("bncourse is not installed here: '
    "run `pip install -e .` in the course's folder, then restart the kernel\")"
)
PUBLISHED = OPENING + '%pip install -q "bncourse @ {url}/archive/refs/tags/{tag}.zip"'


def place(root: Path = ROOT) -> dict:
    """The `repository` part of _config.yml."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook."""
    repository = place(root)
    if not repository["url"]:
        return LOCAL
    return PUBLISHED.format(url=repository["url"], tag=repository["branch"])


def student_notebooks(root: Path = ROOT) -> list[Path]:
    """Everything with a set-up cell: the book's chapters and exercises, and the instructor's sources of them."""
    found = [path for folder in ("book", "instructor") for path in (root / folder).rglob("*.ipynb")]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def read(path: Path) -> dict:
    """A notebook; the error names a file that is not one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a notebook, got {error}") from error


def with_setup_cell(notebook: dict, code: str) -> dict:
    """The notebook with this code in its set-up cell."""
    lines = {"source": code.splitlines(keepends=True)}
    cells = [cell | lines if "setup" in cell["metadata"].get("tags", []) else cell for cell in notebook["cells"]]
    return notebook | {"cells": cells}


def write(path: Path, notebook: dict) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def changes(notebooks: dict[Path, dict], root: Path) -> dict[Path, dict]:
    """Those whose set-up cell is not what _config.yml asks for, with that cell."""
    code = setup_cell(root)
    right = {path: with_setup_cell(notebook, code) for path, notebook in notebooks.items()}
    return {path: notebook for path, notebook in right.items() if notebook != notebooks[path]}


def disagreements(root: Path = ROOT) -> list[str]:
    """Where a notebook's set-up cell is not what _config.yml asks for."""
    return [
        f"{path.relative_to(root).as_posix()}: its set-up cell is not that of _config.yml (make repository URL=...)"
        for path in changes({path: read(path) for path in student_notebooks(root)}, root)
    ]


def set_repository(url: str, root: Path = ROOT) -> int:
    """Write ``url`` into _config.yml and all set-up cells; return how many notebooks changed.

    Raises:
        ValueError: ``url`` is not the address of a GitHub repository, or a notebook cannot be read; nothing is changed.
    """
    url = url.rstrip("/").removesuffix(".git")
    if url and not FORM.fullmatch(url):
        raise ValueError(f"URL must be https://github.com/OWNER/NAME, or nothing to unset it, got {url!r}")
    notebooks = {path: read(path) for path in student_notebooks(root)}
    config = root / "_config.yml"
    text = re.sub(r"(?m)^(  url: ).*$", rf'\g<1>"{url}"', config.read_text(encoding="utf-8"))
    config.write_text(text, encoding="utf-8")
    changed = changes(notebooks, root)
    for path, notebook in changed.items():
        write(path, notebook)
    return len(changed)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    try:
        print(f"_config.yml {'set' if sys.argv[1] else 'unset'}; {set_repository(sys.argv[1])} notebooks changed")
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if place()["url"]:
        print(f"Now commit, tag the commit {place()['branch']} and push both: the notebooks install that tag.")
