"""The package as a wheel, which lies beside the book's pages.

usage: python -m tools.wheel        (writes to _build)
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tools.toc import ROOT

CODE = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def name(root: Path = ROOT) -> str:
    """The wheel's file name: the package is pure Python."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']}-{project['version']}-py3-none-any.whl"


def write(folder: Path, root: Path = ROOT) -> Path:
    """Build it from a copy, since setuptools leaves files where it works; needs no network."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "course")
        shutil.copytree(root / "bncourse", copy / "bncourse", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-MIT", "LICENSE-CC-BY-4.0"):
            shutil.copy(root / file, copy)
        subprocess.run([sys.executable, "-c", CODE, place], cwd=copy, check=True, capture_output=True)
        return Path(shutil.move(Path(place, name(root)), folder / name(root)))


if __name__ == "__main__":
    print(write(ROOT / "_build"))
