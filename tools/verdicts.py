"""Write the verdicts that the book expects from what its chapters find, into bncourse/claims/verdicts.toml.

usage: python -m tools.verdicts [CHAPTER ...]

CHAPTER is how a notebook's name begins (default: all of them). Chapters of which no kept run holds are run. Review
the diff: on the book's data and a CPU the build fails where a verdict is not the one in this file.
"""

import argparse
import os
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from bncourse.claims import BOOK_DATA, statements
from bncourse.files import write_whole
from tools.claims import VERDICTS, claims_of
from tools.notebooks import execute
from tools.runs import Notebook
from tools.toc import ROOT, chapters

HEAD = "# The verdicts that the book expects, by finding. Written by python -m tools.verdicts; review the diff.\n"


def write(chapters: Iterable[Notebook], root: Path = ROOT) -> list[str]:
    """Put what the chapters' newest runs found into the file; return what has changed, a line for each finding.

    A chapter with a change runs again in the next build, since its cards name the verdict that was expected before.
    """
    path = root / VERDICTS
    before = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    after, changed = dict(before), []
    for chapter in chapters:
        found = {one["name"]: one["verdict"] for one in claims_of(chapter) if one["dataset"] == BOOK_DATA}
        new = {name: verdict for name, verdict in found.items() if before.get(name) != verdict}
        changed += [f"{name}: {before.get(name, 'new')} -> {verdict}" for name, verdict in new.items()]
        after |= new
        if new.keys() & before.keys():
            (chapter.folder / "runs.json").unlink()
    names = [one.name for statement in statements().values() for one in statement.findings]
    changed += [f"{name}: gone" for name in after if name not in names]
    lines = [f'"{name}" = "{after[name]}"\n' for name in names if name in after]
    write_whole(path, (HEAD + "".join(lines)).encode())
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", default=[""], metavar="CHAPTER")
    options = parser.parse_args()
    for name in ("BNCOURSE_QUICK", "BNCOURSE_SEEDS"):
        if name in os.environ:
            sys.exit(f"{name} must not be set: it changes what is found")
    paths = [path for path in chapters() if path.stem.startswith(tuple(options.chapters))]
    execute(paths, check=False)
    for line in write(Notebook(path, ROOT) for path in paths) or ["no verdict has changed"]:
        print(line)


if __name__ == "__main__":
    main()
