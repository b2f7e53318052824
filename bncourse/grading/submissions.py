"""What was handed in: one notebook per student, read once, or the reason why there is none."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bncourse.grading.assignment import Assignment

LARGEST = 50 << 20  # bytes


@dataclass(frozen=True)
class Submission:
    """A student and what they handed in.

    Attributes:
        student: the name, as the roster has it.
        path: the notebook, or the folder of several; None if nothing was handed in.
        cells: the sources of the notebook's code cells.
        problem: why there are no cells, for the instructor and the student; empty if there are.
        digest: changes whenever the code or the assignment does, so that a second run knows what is done.
    """

    student: str
    path: Path | None
    cells: list[str]
    problem: str
    digest: str


class Unreadable(ValueError):
    """A file that is not a notebook we can read; the message is for the instructor and the student."""


def find_submissions(folder: Path, assignment: Assignment, roster: Iterable[str] = ()) -> list[Submission]:
    """One submission per student, sorted by name.

    A notebook in the folder itself belongs to the student it is named after; a subfolder holds what one student handed
    in. Of several notebooks of a student, the one with the assignment's name counts. Students of the roster who handed
    in nothing are listed too.

    Raises:
        NotADirectoryError: if there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"submissions must be a folder, got {folder}")
    found: dict[str, list[Path]] = {_same_everywhere(student): [] for student in roster}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            files = [path for path in sorted(entry.rglob("*.ipynb")) if path.is_file()]
            visible = [path for path in files if not any(p.startswith(".") for p in path.relative_to(entry).parts)]
            found.setdefault(_same_everywhere(entry.name), []).extend(visible)
        elif entry.suffix == ".ipynb":
            found.setdefault(_same_everywhere(entry.stem), []).append(entry)
    return [_read(student, found[student], assignment) for student in sorted(found)]


def ignored_files(folder: Path) -> list[str]:
    """Files in the folder that are not notebooks: most likely a submission in another form."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix != ".ipynb" and p.name[0] != ".")


def _same_everywhere(name: str) -> str:
    """A name as the roster has it, also where a Mac wrote its accents as characters of their own."""
    return unicodedata.normalize("NFC", name.strip())


def _read(student: str, notebooks: list[Path], assignment: Assignment) -> Submission:
    """Choose the student's notebook and read it; nothing reads it again."""
    named = [path for path in notebooks if path.stem == assignment.name]
    path, cells, problem = None, [], ""
    if not notebooks:
        problem = "no notebook was handed in"
    elif len(notebooks) > 1 and len(named) != 1:
        path = notebooks[0].parent
        problem = f"{len(notebooks)} notebooks; keep one, or name one {assignment.name}.ipynb"
    else:
        path = (named or notebooks)[0]
        try:
            cells = read_notebook(path)
        except (Unreadable, OSError) as error:
            problem = str(error)
    content = assignment.digest + (problem or "\n".join(cells))
    digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()
    return Submission(student, path, cells, problem, digest)


def read_notebook(path: Path) -> list[str]:
    """The sources of a notebook's code cells, in order. Metadata and duplicates do not matter.

    Raises:
        Unreadable: if the file is not a notebook, or larger than one should be.
    """
    if not path.is_file():
        raise Unreadable("not a notebook: not a regular file")
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"larger than {LARGEST >> 20} MB; clear its outputs and hand it in again")
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a notebook: {str(error)[:200]}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("not a notebook: it has no list of cells (a notebook of version 3? open it and save it again)")
    sources = [c.get("source", "") for c in cells if isinstance(c, dict) and c.get("cell_type") == "code"]
    return ["".join(map(str, source)) if isinstance(source, list) else str(source) for source in sources]
