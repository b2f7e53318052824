"""How learning platforms name what they hand out: who, which file, when, which attempt.

Canvas ``doejane_LATE_123_456_work-1.ipynb``; Moodle ``Jane Doe_123_assignsubmission_file_/work.ipynb``, or flat;
Blackboard ``Ex1_jsmith_attempt_2026-03-01-12-30-00_work.ipynb``; Gradescope ``submission_123/work.ipynb`` beside a
``submission_metadata.yml``. The forms are those that the platforms' users report; no platform has been tried.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

CANVAS = re.compile(r"(?P<student>[^_]+)(?P<late>_LATE)?_(?P<id>\d+)_(?P<serial>\d+)_(?P<file>.+)")
MOODLE = re.compile(r"(?P<student>.+)_(?P<id>\d+)_assignsubmission_(?P<kind>file|onlinetext)_?(?P<file>.*)")
BLACKBOARD = re.compile(r".+?_(?P<student>[^_]+)_attempt_(?P<time>\d{4}(?:-\d\d){5})(?P<file>(?:_.*)?(?:\.txt)?)")
GRADESCOPE = re.compile(r"submission_(?P<serial>\d+)")
METADATA = "submission_metadata.yml"
COPY = re.compile(r"\s*\((\d+)\)$|-Copy(\d+)$|-(\d+)$")
NOTEBOOK = re.compile(r"\.ipynb(\.json|\.txt)?$", re.IGNORECASE)
NOBODY = ("__MACOSX",)  # beside what begins with a dot: an archive made on a Mac


@dataclass(frozen=True)
class Label:
    """What the name of a file or folder in the class's folder says.

    Attributes:
        names: for whom to look on the roster, the most certain first.
        file: the student's own name of the file; empty for a folder.
        platform: whether it is a platform's name, so that several of one student are attempts.
        serial: what grows from attempt to attempt.
        time: when it was handed in, if the name says so.
        late: whether the platform marked it as late.
        id: what the platform, or the roster, calls the student; a name alone may be that of two.
        counts: False for what platforms add: text typed online, a receipt.
    """

    names: tuple[str, ...]
    file: str = ""
    platform: bool = False
    serial: int = 0
    time: datetime | None = None
    late: bool = False
    counts: bool = True
    id: str = ""


def read_label(name: str, is_folder: bool) -> Label:
    """What the name of an entry of the class's folder says."""
    if found := MOODLE.fullmatch(name):
        person = f"Participant {found['id']}"  # as Moodle's grading worksheet has it, in the column Identifier
        names = (person.replace(" ", ""), found["student"])
        return Label(names, found["file"], True, counts=found["kind"] == "file", id=person)
    if found := BLACKBOARD.fullmatch(name):
        time = datetime.strptime(found["time"], "%Y-%m-%d-%H-%M-%S")
        file = found["file"].lstrip("_")
        return Label((found["student"],), file, True, int(time.timestamp()), time, counts=file != ".txt")
    if not is_folder and (found := CANVAS.fullmatch(name)):
        names = (found["id"], found["student"])
        return Label(names, found["file"], True, int(found["serial"]), late=found["late"] is not None, id=found["id"])
    stem = name if is_folder else NOTEBOOK.sub("", name) if NOTEBOOK.search(name) else Path(name).stem
    return Label((stem,), "" if is_folder else name)


def attempt(file: str) -> tuple[str, int]:
    """A file's name without its ending and the mark of a copy, and the number in that mark: work (2).ipynb is 2."""
    stem = NOTEBOOK.sub("", file)
    if found := COPY.search(stem):
        return stem[: found.start()], int(found[1] or found[2] or found[3])
    return stem, 0


def gradescope_people(folder: Path) -> dict[str, tuple[list[Label], str]]:
    """Who stands behind each ``submission_123`` of a Gradescope export: one label for each submitter."""
    try:
        text = (folder / METADATA).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    people: dict[str, list[Label]] = {}
    for block in re.split(r"^(?=submission_\d+:)", text, flags=re.MULTILINE):
        head = GRADESCOPE.match(block)
        if head is None:
            continue
        created = re.search(r":created_at:\s*['\"]?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)", block)
        time = datetime.fromisoformat(f"{created[1]} {created[2]}") if created else None
        for person in re.split(r"^\s*-\s*(?=:)", block.partition(":history:")[0], flags=re.MULTILINE)[1:]:
            ids = [re.search(rf":{key}:\s*['\"]?([^\n'\"]*)", person) for key in ("email", "sid", "name")]
            names = tuple(found[1].strip() for found in ids if found and found[1].strip())
            if names:
                people.setdefault(head[0], []).append(Label(names, "", True, int(head["serial"]), time, id=names[0]))
    return people
