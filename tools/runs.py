"""Finished runs of a notebook, kept under _build, and whether one of them still holds.

A run holds while the notebook's code, the versions, the variables that change what is computed, and all files under
bncourse/ and book/ that it used are what they were. It is not trusted if nobody knows what it used or its file is torn.
"""

import hashlib
import json
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from bncourse.training import quick

KEPT = 3  # of a notebook, so that going back to an earlier version of the package is quick
VARIABLES = ("BNCOURSE_DEVICE", "BNCOURSE_QUICK", "BNCOURSE_SEEDS")


class Run(NamedTuple):
    """A finished run: what it depended on, and the hash of the executed notebook, which is its file's name."""

    conditions: str
    used: dict[str, str] | None  # files of the course and their hashes; None if they are not known
    seconds: float
    result: str


class Notebook(NamedTuple):
    """A notebook of a course, and its runs."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        """As in the table of contents."""
        return self.path.relative_to(self.root / "book").with_suffix("").as_posix()

    @property
    def folder(self) -> Path:
        return self.root / "_build" / (".executed-quickly" if quick() else ".executed") / self.name

    def result(self, run: Run) -> Path:
        """The executed notebook."""
        return self.folder / f"{run.result}.ipynb"

    def runs(self) -> list[Run]:
        """Those that are kept, the newest first."""
        try:
            return [Run(**run) for run in json.loads((self.folder / "runs.json").read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def conditions(self) -> str:
        """A hash of all that the outputs depend on, except for the files that are used."""
        cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        pins = (self.root / "requirements.txt").read_text(encoding="utf-8")
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        return hash_of(json.dumps([code, pins, versions(pins), variables]).encode())

    def is_whole(self, run: Run) -> bool:
        return run.conditions == self.conditions() and hash_of_file(self.result(run)) == run.result

    def newest(self) -> Run | None:
        """The last run; None if the notebook has changed since."""
        return next(filter(self.is_whole, self.runs()[:1]), None)

    def holding(self) -> Run | None:
        """A run that would give the same again; None if the notebook has to run."""
        for run in filter(self.is_whole, self.runs()):
            if run.used is not None and all(hash_of_file(self.root / name) == was for name, was in run.used.items()):
                return run
        return None

    def keep(self, run: Run, executed: bytes | None = None) -> None:
        """Put a run before the older ones, the last of which goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if executed is not None:
            write_whole(self.result(run), executed)
        runs = [run, *(old for old in self.runs() if old.result != run.result)][:KEPT]
        write_whole(self.folder / "runs.json", json.dumps([one._asdict() for one in runs]).encode())
        for old in set(self.folder.glob("*.ipynb")) - {self.result(one) for one in runs}:
            old.unlink()


def write_whole(path: Path, data: bytes) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def hash_of_file(path: Path) -> str:
    return hash_of(path.read_bytes()) if path.is_file() else "missing"


@cache
def versions(pins: str) -> dict[str, str]:
    """What is installed of the pinned packages, which need not be what is pinned."""
    found = {"python": sys.version.split()[0]}
    for name in (line.partition("==")[0] for line in pins.splitlines() if "==" in line):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
