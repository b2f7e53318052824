"""The claims of executed notebooks, and whether their verdicts are those of the committed book."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

from bncourse.claims import BOOK_DATA, check
from tools.runs import Notebook, versions

VERDICTS = "bncourse/claims/verdicts.toml"  # compared with what notebooks found, run or not: no notebook runs for it


def claims_in(notebook: dict) -> Iterator[dict]:
    """What an executed notebook's claims found, in its order."""
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if claim := output.get("metadata", {}).get("bncourse_claim"):
            yield claim


def claims_of(chapter: Notebook) -> list[dict]:
    """Those of a chapter's newest run."""
    run = chapter.newest()
    return list(claims_in(json.loads(chapter.result(run).read_text(encoding="utf-8")))) if run else []


def unexpected(chapter: Notebook) -> list[str]:
    """How the chapter's verdicts on the book's data differ from those that the course has committed."""
    path = chapter.root / VERDICTS
    if not path.exists():
        return []
    claims = [claim for claim in claims_of(chapter) if claim["dataset"] == BOOK_DATA]
    return check(claims, tomllib.loads(path.read_text(encoding="utf-8")))


def as_pinned(root: Path) -> bool:
    """Whether numbers are computed as in the committed book: with its versions of torch and numpy."""
    pins = (root / "requirements.txt").read_text(encoding="utf-8")
    found = {name: version.partition("+")[0] for name, version in versions(pins).items()}  # without "+cpu"
    return all(f"{name}=={found[name]}" in pins.split() for name in ("torch", "numpy"))
