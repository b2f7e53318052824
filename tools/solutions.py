"""An edition for those who learn alone: the book with the exercises' solutions, in a folder of its own.

usage: python -m tools.solutions        (make book SOLUTIONS=1; writes _build/with-solutions/_build/html)

The default pages, their sources and their zip have none: this works in a copy, whose exercises are the instructor's.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tools.build import build
from tools.toc import ROOT

FILES = ("_config.yml", "_toc.yml", "requirements.txt", "pyproject.toml", "README.md", "LICENSE", "LICENSE-MIT",
         "LICENSE-CC-BY-4.0")  # fmt: skip
WIDTH = 72  # columns of a cell, as everywhere in the book
FOLDERS = ("book", "bncourse", "benchmarks", "instructor", "tests/helpers")


def lay_out(notebooks: Path) -> None:
    """No line of a cell is longer than the book allows."""
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", f"--line-length={WIDTH}"]
    subprocess.run([*command, notebooks], check=True)


def copy(root: Path, target: Path) -> None:
    """The course with solved exercises; what the chapters' notebooks gave is shared with the course."""
    for folder in FOLDERS:
        shutil.rmtree(target / folder, ignore_errors=True)
        shutil.copytree(root / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for file in FILES:
        shutil.copy(root / file, target)
    command = [sys.executable, target / "instructor" / "make.py", "--students", target / "_students"]
    subprocess.run([*command, "--private", target / "_private"], check=True, cwd=root)
    for solved in (target / "_private").glob("*/solution.ipynb"):
        shutil.copy(solved, target / "book" / "exercises" / f"{solved.parent.name}.ipynb")
    lay_out(target / "book" / "exercises")
    shared = target / "_build" / ".executed"
    shared.parent.mkdir(exist_ok=True)
    if not shared.exists():
        shared.symlink_to(root / "_build" / ".executed")


if __name__ == "__main__":
    target = ROOT / "_build" / "with-solutions"
    target.mkdir(parents=True, exist_ok=True)
    copy(ROOT, target)
    sys.exit(build(target))
