"""Run the chapters on other data than the book's, and keep what their claims measured there.

usage: python -m tools.other_data DATASET [DATASET ...] [--chapters 01 05]

Only the line ``dataset = ...`` of a chapter changes, and what it chooses: a chapter with choices is explored on the
data set first (see ``tools.explore``). The numbers go to book/other-data.csv, which the book shows. Rows of data sets
and chapters that are not run again stay. Some forty minutes for each data set. The classical sets are downloaded, or
found in BNCOURSE_DATA.
"""

import argparse
import csv
import io
import time
from pathlib import Path

from bncourse.claims import BOOK_DATA
from bncourse.data import DATA_SETS
from bncourse.files import write_whole
from tools.claims import claims_in
from tools.explore import explore, on_data
from tools.notebooks import Executor, Progress
from tools.toc import ROOT, notebooks

TABLE = ROOT / "book" / "other-data.csv"
COLUMNS = ("dataset", "chapter", "name", "unit", "predicts", "than", "count", "mean", "low", "high")


def chapters_with_data() -> list[Path]:
    """The notebooks that have a cell with the tag "parameters"."""
    return [path for path in notebooks() if on_data(path, "another")]


def run(path: Path, dataset: str) -> list[dict]:
    """Execute a chapter on a data set; return what its claims over seeds measured there.

    Raises:
        NotebookFailed: a cell failed; a claim that does not hold there does not fail.
    """
    notebook = on_data(path, dataset)
    Executor(ROOT, Progress(1)).run(path.stem, path.parent, notebook)
    rows = []
    for claim in claims_in(notebook):
        if claim["kind"] != "exact" and claim["dataset"] == dataset:  # others have not seen the data
            numbers = {name: "nan" if claim[name] is None else f"{claim[name]:.4g}" for name in ("mean", "low", "high")}
            row = claim | numbers | {"chapter": path.stem}
            rows.append({name: row[name] for name in COLUMNS})
    return rows


def merge(old: list[dict], new: list[dict]) -> list[dict]:
    """The old rows with those of each newly run chapter and data set in place of theirs, in order."""
    done = {(row["dataset"], row["chapter"]) for row in new}
    kept = [row for row in old if (row["dataset"], row["chapter"]) not in done]
    order = list(DATA_SETS)
    return sorted([*kept, *new], key=lambda row: (order.index(row["dataset"]), row["chapter"]))


def read() -> list[dict]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(TABLE, text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", choices=[name for name in DATA_SETS if name != BOOK_DATA])
    parser.add_argument("--chapters", nargs="+", default=[""], help="the chapters whose names start so; default: all")
    options = parser.parse_args()
    available = chapters_with_data()
    for start in options.chapters:
        if not any(path.stem.startswith(start) for path in available):
            parser.error(f"no chapter starts with {start}; expected {', '.join(path.stem for path in available)}")
    paths = [path for path in available if path.stem.startswith(tuple(options.chapters))]
    for dataset in options.datasets:
        for path in paths:
            started = time.monotonic()
            if "bncourse.exploration" in path.read_text(encoding="utf-8"):
                explore(path, dataset=dataset)
            rows = run(path, dataset)
            write(merge(read(), rows))
            print(f"{dataset}, {path.stem}: {len(rows)} claims, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
