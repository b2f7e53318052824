"""Builds of small books, each in a process of its own, forked from one that has imported what every build imports."""

import multiprocessing
import os
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
set_forkserver_preload(["tools.build", "jupyter_book.sphinx", "myst_nb", "sphinx_book_theme", "bncourse.exercises"])


def build(root: Path) -> tuple[bool, str]:
    """What ``python -m tools.build ROOT`` does: whether it succeeded, and what it said."""
    said = root / "said.txt"
    process = FORKS.Process(target=_build, args=(root, said))
    process.start()
    process.join()
    return process.exitcode == 0, said.read_text()


def _build(root: Path, said: Path) -> None:
    from tools.build import build

    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    raise SystemExit(build(root))
