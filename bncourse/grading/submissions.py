"""What was handed in: the notebooks of each student, read once, or the reason why there are none."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from bncourse.grading.assignment import Assignment
from bncourse.grading.layouts import (
    GRADESCOPE,
    METADATA,
    NOBODY,
    NOTEBOOK,
    Label,
    attempt,
    gradescope_people,
    read_label,
)
from bncourse.grading.names import Roster, Student, same_everywhere

LARGEST = 50 << 20  # bytes of a file
UNPACKED, MEMBERS = 1 << 30, 20_000  # of an archive: bytes, and files
NAMESAKES = "two students have this name: "
PERHAPS = "one of the rows with this name and a number may be theirs"
BY_ID = "write {} into the right student's row of the roster, in a column called Identifier"
BY_FILE = "name the file or folder after the right student's id"
OURS = ".bncourse-grade"  # marks a folder that the grader wrote


@dataclass(frozen=True)
class Submission:
    """A student and what they handed in.

    Attributes:
        student: the name, as the roster has it.
        path: the notebook, or the folder of several; None if nothing was handed in.
        cells: the sources of the notebook's code cells.
        problem: why there are no cells, for the instructor and the student; empty if there are.
        digest: changes whenever the code or the assignment does, so that a second run knows what is done.
        note: what the instructor should know of how it was chosen.
        texts: the notebook's cells in order, as ("code" or "markdown", source).
        time: when it was handed in, if the platform says so; ``late`` if the platform marked it.
        stranger: why the student is not known, or not found; part of the note.
    """

    student: str
    path: Path | None
    cells: list[str]
    problem: str
    digest: str
    note: str = ""
    texts: list[tuple[str, str]] = field(default_factory=list)
    time: datetime | None = None
    late: bool = False
    stranger: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What its record is found by."""
        return self.student, self.digest


class Unreadable(ValueError):
    """A file that is not a notebook we can read; the message is for the instructor and the student."""


@dataclass(frozen=True)
class _File:
    """A file of a student: where it is, how it is shown, and what the name of its entry says."""

    path: Path
    shown: Path
    label: Label

    @property
    def own_name(self) -> str:
        """The name that the student gave it, where the name of the entry is not that of the student."""
        return self.label.file if self.label.platform and self.label.file else self.path.name

    @property
    def order(self) -> tuple:
        """Later attempts compare as greater."""
        time = self.label.time.timestamp() if self.label.time else 0.0
        return time, attempt(self.own_name)[1], self.label.serial, self.path.stat().st_mtime


def find_submissions(
    folder: Path,
    assignment: Assignment,
    roster: Roster | Iterable[str] = (),
    *,
    ours: Iterable[Path] = (),
    every: bool = False,
) -> list[Submission]:
    """One submission per student, sorted by name; all attempts of each, the last one at the end, if ``every``.

    A notebook in the folder itself belongs to the student it is named after; a subfolder holds what one student handed
    in; names that a learning platform made are understood (``bncourse.grading.layouts``), and so are archives, of one
    student or of all. Of several notebooks of a student, those with the assignment's name count, and of these the last
    attempt. Students of the roster who handed in nothing are listed too.

    Args:
        folder: the folder, or an archive of it.
        assignment: what was handed in.
        roster: who should have handed in.
        ours: files and folders that the grader writes; they belong to no student.
        every: all attempts, not only the last.

    Raises:
        NotADirectoryError: if there is no such folder.
    """
    if not isinstance(roster, Roster):
        roster = Roster(Student(same_everywhere(name)) for name in roster)
    with tempfile.TemporaryDirectory(prefix="bncourse-grade-") as space:
        root = folder
        if folder.is_file() and zipfile.is_zipfile(folder):
            root = _inner(_unpack(folder, Path(space) / "all"), roster)
        elif not folder.is_dir():
            raise NotADirectoryError(f"submissions must be a folder or a zip archive, got {folder}")
        found, strangers = _by_student(root, folder, roster, {path.resolve() for path in ours}, Path(space))
        return [
            submission
            for student in sorted(found)
            for submission in _attempts(student, found[student], assignment, strangers.get(student, ""), every)
        ]


def ignored_files(folder: Path, ours: Iterable[Path] = ()) -> list[str]:
    """Files in the folder that are not notebooks: most likely a submission in another form."""
    ours = {path.resolve() for path in ours}
    return sorted(
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_file()
        and not NOTEBOOK.search(path.name)
        and path.suffix.lower() != ".zip"
        and path.name[0] != "."
        and path.name != METADATA
        and read_label(path.name, False).counts
        and path.resolve() not in ours
    )


def _inner(folder: Path, roster: Roster) -> Path:
    """The folder that an archive wraps everything in, if it does."""
    while True:
        entries = [entry for entry in folder.iterdir() if _somebodys(entry)]
        if len(entries) != 1 or not entries[0].is_dir() or read_label(entries[0].name, True).platform:
            return folder
        below = [entry for entry in entries[0].iterdir() if _somebodys(entry)]
        notebooks = [entry for entry in below if NOTEBOOK.search(entry.name)]
        many = len(notebooks) > 1 or any(entry.is_dir() for entry in below) or any(e.name == METADATA for e in below)
        if not many or roster.find(entries[0].name):
            return folder
        folder = entries[0]


def _somebodys(path: Path) -> bool:
    if path.name.startswith(".") or path.name in NOBODY:
        return False
    return not (path.is_dir() and (path / OURS).exists())


def _by_student(
    root: Path, shown: Path, roster: Roster, ours: set[Path], space: Path
) -> tuple[dict[str, list[_File]], dict[str, str]]:
    """All files of each student, those of the roster first, with none; and why some are not known."""
    found: dict[str, list[_File]] = {name: [] for name in roster.students}
    on_roster = bool(found)
    unknown: dict[str, list[tuple[str, str, list[_File]]]] = defaultdict(list)
    people = gradescope_people(root)
    for entry in sorted(root.iterdir()):
        if not _somebodys(entry) or entry.resolve() in ours or entry.name == METADATA:
            continue
        label = read_label(entry.name, entry.is_dir())
        if not label.counts:
            continue
        files = list(_files(entry, shown / entry.name, space))
        if not entry.is_dir() and not any(NOTEBOOK.search(file.name) for file, _ in files):
            owners = roster.find(*label.names) if on_roster else []
            if not owners and entry.suffix.lower() != ".zip":
                continue  # a file that is nobody's
        if entry.suffix.lower() == ".zip" and not label.platform:
            label = replace(label, names=(entry.stem,), file="")
        for one in people.get(entry.name) or [label] if GRADESCOPE.fullmatch(entry.name) else [label]:
            inside = one if entry.is_file() else replace(one, file="")
            own = [_File(path, name, inside) for path, name in files]
            if not (owners := roster.find(*one.names)):
                unknown[same_everywhere(one.names[-1])].append((one.id, entry.name, own))
            for owner in owners:
                found[owner] += own
    strangers: dict[str, str] = {}
    for name, entries in unknown.items():
        several = roster.namesakes(name)
        strangers |= dict.fromkeys((student for student in several if not found[student]), PERHAPS)
        apart = several or len({person for person, _, _ in entries} - {""}) > 1
        for person, entry_name, own in entries:
            which = person or entry_name
            row = f"{name} ({which.removeprefix('Participant ')})" if apart else name
            if apart and row in roster.students:  # another's id, not this platform's number
                row = f"{name} ({which})"
            found.setdefault(row, []).extend(own)
            how = NAMESAKES + (BY_ID.format(person) if person else BY_FILE)
            strangers[row] = how if several else "not on the roster" * on_roster
    return found, strangers


def _files(entry: Path, shown: Path, space: Path) -> Iterator[tuple[Path, Path]]:
    """The files of an entry, those in archives too, with the paths to show."""
    if entry.is_dir():
        for path in sorted(entry.iterdir()):
            if _somebodys(path) and not (path.is_dir() and path.is_symlink()):
                yield from _files(path, shown / path.name, space)
    elif entry.suffix.lower() == ".zip" and zipfile.is_zipfile(entry):
        inside = _unpack(entry, Path(tempfile.mkdtemp(dir=space)))
        for path in sorted(inside.rglob("*")):  # an archive in it is not opened, but named
            if path.is_file() and all(_somebodys(part) for part in (path, *path.parents) if inside in part.parents):
                yield path, shown / path.relative_to(inside)
    elif entry.exists():
        yield entry, shown


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack what may be notebooks, within bounds; other members become empty files, so that their names are known."""
    total = 0
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist()[:MEMBERS]:
            name = member.filename
            if not member.flag_bits & 0x800:  # not said to be UTF-8: what Macs and older tools write
                try:
                    name = name.encode("cp437").decode("utf-8")
                except UnicodeError:
                    pass
            parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/")]
            if not parts or member.is_dir():
                continue
            target = folder.joinpath(*parts)
            content = b""
            wanted = NOTEBOOK.search(name) or name.lower().endswith((".zip", METADATA))
            try:
                if wanted and total < UNPACKED:
                    with packed.open(member) as file:
                        content = file.read(LARGEST + 1)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                moment = datetime(*member.date_time).timestamp()
                os.utime(target, (moment, moment))
            except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
                continue  # damaged or encrypted: it stays an empty file
            total += len(content)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _attempts(student: str, files: list[_File], assignment: Assignment, stranger: str, every: bool) -> list[Submission]:
    """Choose the student's notebook, or all attempts at it, and read it; nothing reads it again."""
    notebooks = [file for file in files if NOTEBOOK.search(file.path.name)]
    named = [file for file in notebooks if attempt(file.own_name)[0].casefold() == assignment.name.casefold()]
    entries = defaultdict(list)
    for file in notebooks:
        entries[file.label].append(file)
    separate = all(file.label.platform for file in notebooks) and all(len(group) == 1 for group in entries.values())
    candidates = named or (notebooks if separate or len(notebooks) == 1 else [])
    path, problem = None, ""
    if not files:
        problem = "no notebook was handed in"
    elif not notebooks:
        problem = f"no notebook was handed in, only {_list([file.shown.name for file in files])}"
        path = files[0].shown
    elif not candidates:
        path = notebooks[0].shown.parent
        problem = f"{len(notebooks)} notebooks; keep only one, or name one of them {assignment.name}.ipynb"
    if not candidates:
        return [Submission(student, path, [], problem, _digest(assignment, problem), stranger, stranger=stranger)]
    in_order = sorted(candidates, key=lambda file: file.order)
    count, found = len(in_order), []
    for number, chosen in enumerate(in_order, 1):
        if not every and number < count:
            continue
        texts, problem = [], ""
        try:
            texts = read_cells(chosen.path)
        except (Unreadable, OSError) as error:
            problem = str(error)
        cells = [source for kind, source in texts if kind == "code"]
        which = f"the best of {count} attempts" if every else f"the last of {count} attempts"
        note = "; ".join(filter(None, [f"{which}: {chosen.shown.name}" * (count > 1), stranger]))
        digest = _digest(assignment, problem or "\n".join(cells))
        time, late = chosen.label.time, chosen.label.late
        found.append(Submission(student, chosen.shown, cells, problem, digest, note, texts, time, late, stranger))
    return found


def _digest(assignment: Assignment, content: str) -> str:
    return hashlib.sha256((assignment.digest + content).encode(errors="surrogatepass")).hexdigest()


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read_notebook(path: Path) -> list[str]:
    """The sources of a notebook's code cells, in order.

    Raises:
        Unreadable: if the file is not a notebook, or larger than one should be.
    """
    return [source for kind, source in read_cells(path) if kind == "code"]


def read_cells(path: Path) -> list[tuple[str, str]]:
    """The kind and the source of a notebook's cells, in order. Metadata and duplicates do not matter.

    Raises:
        Unreadable: if the file is not a notebook, or larger than one should be.
    """
    if not path.is_file():
        raise Unreadable("not a notebook: not a regular file")
    size = path.stat().st_size
    if size > LARGEST:
        raise Unreadable(f"larger than {LARGEST >> 20} MB; clear its outputs and hand it in again")
    if size == 0:
        raise Unreadable("not a notebook: the file is empty")
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a notebook: {str(error)[:200]}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("not a notebook: it has no list of cells (a notebook of version 3? open it and save it again)")
    found = [(str(c.get("cell_type")), c.get("source", "")) for c in cells if isinstance(c, dict)]
    return [(kind, "".join(map(str, text)) if isinstance(text, list) else str(text)) for kind, text in found]
