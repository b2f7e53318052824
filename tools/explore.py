"""Run a chapter on the seeds of the exploration, 0 to 4, and keep what it chooses there; no part of the build.

usage: python -m tools.explore CHAPTER [--data DATASET]

CHAPTER is how a notebook's name begins. It prints what every claim measures on these seeds, which settles nothing. What
``bncourse.exploration.choose`` chose goes to bncourse/chosen.toml, for the seeds that confirm it; review the diff.
"""

import argparse
import json
import os
import tempfile
import tomllib
from pathlib import Path

import nbformat

from bncourse.claims import BOOK_DATA, details
from bncourse.data import DATA_SETS
from bncourse.experiments import EXPLORATION
from bncourse.files import write_whole
from tools.claims import claims_in
from tools.notebooks import Executor, Progress
from tools.toc import ROOT, chapters

TABLE = ROOT / "bncourse" / "chosen.toml"
HEAD = "# What was chosen on the seeds 0 to 4, among what. Written by python -m tools.explore; review the diff.\n"


def on_data(path: Path, dataset: str):
    """The notebook, with its cell that has the tag "parameters" changed to this data set; None if it has none."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = f"dataset = {dataset!r}"
            return notebook
    return notebook if dataset == BOOK_DATA else None


def explore(path: Path, table: Path = TABLE, dataset: str = BOOK_DATA) -> list[str]:
    """Run the notebook and bring the table up to date; return a line for each claim and choice."""
    notebook = on_data(path, dataset)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "chosen")
        os.environ.update(BNCOURSE_SEEDS=f"{EXPLORATION[0]}-{EXPLORATION[-1]}", BNCOURSE_CHOSEN=str(found))
        try:
            Executor(ROOT, Progress(1)).run(path.stem, path.parent, notebook)
        finally:
            del os.environ["BNCOURSE_SEEDS"], os.environ["BNCOURSE_CHOSEN"]
        new = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()] if found.exists() else []
    before = tomllib.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    after = dict(sorted((before | {choice.pop("name"): choice for choice in new}).items()))
    rows = [
        f'\n["{name}"]\nvalue = {json.dumps(row["value"])}\namong = {json.dumps(row["among"])}\n'
        f"means = {json.dumps([float(f'{mean:.4g}') for mean in row['means']])}\n"
        for name, row in after.items()
    ]
    if new:
        write_whole(table, (HEAD + "".join(rows)).encode())
    said = [f"{claim['name']}: {details(claim)}" for claim in claims_in(notebook)]
    return said + [f"chosen: {name} = {row['value']}" for name, row in after.items() if before.get(name) != row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter", metavar="CHAPTER")
    parser.add_argument("--data", default=BOOK_DATA, choices=list(DATA_SETS), metavar="DATASET")
    options = parser.parse_args()
    wanted = options.chapter
    paths = [path for path in chapters() if path.stem.startswith(wanted)]
    if len(paths) != 1:
        parser.error(f"expected the beginning of one chapter's name, got {wanted!r}")
    print(*explore(paths[0], dataset=options.data), sep="\n")


if __name__ == "__main__":
    main()
