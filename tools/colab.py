"""Write notebooks that carry the package inside them, for places that cannot reach a repository.

usage: python -m tools.colab        (writes to _build/colab)

Each copy's set-up cell unpacks bncourse into a folder beside the notebook if it is not installed; nothing else differs.
"""

import base64
import io
import tomllib
import zipfile
from pathlib import Path

from tools.repository import read, with_setup_cell, write
from tools.toc import ROOT, notebooks

CARRIER = """\
import base64, importlib.util, io, os, sys, zipfile
if importlib.util.find_spec("bncourse") is None:
    zipfile.ZipFile(io.BytesIO(base64.b64decode("{package}"))).extractall("bncourse-{version}"); \
sys.path.insert(0, os.path.abspath("bncourse-{version}")); \
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))"""


def packed_package(root: Path = ROOT) -> str:
    """The package's files as a zip in base64; the same files always give the same text."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted((root / "bncourse").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), date_time=(2026, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return base64.b64encode(stream.getvalue()).decode()


def carrying(path: Path, package: str, root: Path = ROOT) -> dict:
    """The notebook, whose set-up cell has the packed package inside it."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return with_setup_cell(read(path), CARRIER.format(package=package, version=version))


def write_all(folder: Path, root: Path = ROOT) -> list[Path]:
    """A carrying copy of every notebook in the table of contents; return their paths."""
    package, written = packed_package(root), []
    for path in notebooks(root):
        target = folder / path.relative_to(root / "book")
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, carrying(path, package, root))
        written.append(target)
    return written


if __name__ == "__main__":
    folder = ROOT / "_build" / "colab"
    print(f"{len(write_all(folder))} notebooks in {folder}")
