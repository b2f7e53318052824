"""Run every claim again on other seeds, and say which share of the verdicts stayed.

usage: python -m tools.replicate [--seeds 100-109] [CHAPTER ...]

The verdicts go to bncourse/claims/replicated.toml. A finding whose verdict is another one there is printed as
undecided; it is not tuned until it agrees.
"""

import argparse
import os
import re
import tomllib

from bncourse.claims import statements
from bncourse.files import write_whole
from tools.claims import claims_of
from tools.notebooks import execute
from tools.runs import Notebook
from tools.toc import ROOT, chapters

TABLE = ROOT / "bncourse/claims/replicated.toml"
HEAD = "# What the findings' verdicts are on other seeds. Written by python -m tools.replicate; review the diff.\n"


def range_of_seeds(text: str) -> str:
    """Seeds that nothing has used yet."""
    if not re.fullmatch(r"\d+-\d+", text) or int(text.split("-")[0]) < 20:
        raise argparse.ArgumentTypeError(f"expected seeds above 19, such as 100-109, got {text!r}")
    return text


def found_in(paths) -> dict[str, str]:
    """The verdict of each finding on the seeds of the newest runs, exact ones left out."""
    claims = [claim for path in paths for claim in claims_of(Notebook(path, ROOT))]
    return {one["name"]: one["found"] for one in claims if one["kind"] != "exact"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", default=[""], metavar="CHAPTER")
    parser.add_argument("--seeds", type=range_of_seeds, default="100-109")
    options = parser.parse_args()
    paths = [path for path in chapters() if path.stem.startswith(tuple(options.chapters))]
    execute(paths, check=False)
    book = found_in(paths)
    os.environ["BNCOURSE_SEEDS"] = options.seeds
    execute(paths, check=False)
    there = found_in(paths)
    before = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    verdicts = (before["verdicts"] if before["seeds"] == options.seeds else {}) | there
    names = [one.name for statement in statements().values() for one in statement.findings if one.name in verdicts]
    lines = [f'seeds = "{options.seeds}"\n', "\n[verdicts]\n", *(f'"{name}" = "{verdicts[name]}"\n' for name in names)]
    write_whole(TABLE, (HEAD + "".join(lines)).encode())
    stayed = [name for name in book if there.get(name) == book[name]]
    for name in [name for name in book if name not in stayed]:
        print(f"{name}: {book[name]} in the book, {there.get(name)} on seeds {options.seeds}")
    print(f"{len(stayed)} of {len(book)} verdicts stayed on seeds {options.seeds} ({len(stayed) / len(book):.0%})")


if __name__ == "__main__":
    main()
