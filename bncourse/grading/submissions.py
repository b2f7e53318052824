"""What was handed in: one notebook per student, or the reason why there is none."""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 50 << 20  # bytes


@dataclass(frozen=True)
class Submission:
    """A student and their notebook; without one, `problem` says why."""

    student: str
    path: Path | None
    problem: str = ""


class Unreadable(ValueError):
    """A file that is no notebook we can read; the message is for the instructor and the student."""


def find_submissions(folder: Path, assignment: str, roster: list[str] | None = None) -> list[Submission]:
    """One submission per student, sorted by name.

    A notebook in the folder itself belongs to the student it is named after; a subfolder holds what one student handed
    in. Of several notebooks of a student, the one with the assignment's name counts. Students of the roster who handed
    in nothing are listed too.

    Raises:
        NotADirectoryError: if there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"submissions: {folder} is not a folder")
    found: dict[str, list[Path]] = {_same_everywhere(student): [] for student in roster or []}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            visible = [path for path in sorted(entry.rglob("*.ipynb")) if not _is_hidden(path.relative_to(entry))]
            found.setdefault(_same_everywhere(entry.name), []).extend(path for path in visible if path.is_file())
        elif entry.suffix == ".ipynb":
            found.setdefault(_same_everywhere(entry.stem), []).append(entry)
    return [_choose(student, found[student], assignment) for student in sorted(found)]


def ignored_files(folder: Path) -> list[str]:
    """Files in the folder that are not notebooks: most likely a submission in another form."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix != ".ipynb" and p.name[0] != ".")


def _same_everywhere(name: str) -> str:
    """A name as the roster has it, also where a Mac wrote its accents as characters of their own."""
    return unicodedata.normalize("NFC", name.strip())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _choose(student: str, notebooks: list[Path], assignment: str) -> Submission:
    named = [path for path in notebooks if path.stem == assignment]
    if len(notebooks) == 1 or len(named) == 1:
        return Submission(student, (named or notebooks)[0])
    if not notebooks:
        return Submission(student, None, "no notebook was handed in")
    return Submission(student, None, f"{len(notebooks)} notebooks; keep one, or name one {assignment}.ipynb")


def read_notebook(path: Path) -> list[str]:
    """The sources of a notebook's code cells, in order. Metadata and duplicates do not matter.

    Raises:
        Unreadable: if the file is no notebook, or larger than one should be.
    """
    if not path.is_file():
        raise Unreadable("not a notebook: not a regular file")
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"larger than {LARGEST >> 20} MB; clear its outputs and hand it in again")
    return read_code_cells(path.read_bytes())


def read_code_cells(content: bytes) -> list[str]:
    """The same for a notebook's content."""
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Unreadable(f"not a notebook: {str(error)[:200]}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("not a notebook: it has no list of cells (a notebook of version 3? open it and save it again)")
    return [_source(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)
