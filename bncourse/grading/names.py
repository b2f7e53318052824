"""Who is who: class lists in any encoding, and the many forms in which a student's name comes back."""

import codecs
import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
WHOLE, FIRST, LAST = {"student", "name", "full name", "student name"}, {"first name"}, {"last name", "surname"}
IDS = {
    *("id", "sid", "student id", "id number", "username", "user name", "login", "login id", "netid"),
    *("sis user id", "sis login id", "sis id", "email", "email address", "e-mail", "identifier"),
}
GROUPS = {"group", "groups", "team"}


@dataclass(frozen=True)
class Student:
    """Somebody on a class list: the name for the table, the row's other columns, and the group they work in."""

    name: str
    columns: dict[str, str] = field(default_factory=dict, compare=False)
    group: str = ""


class BadArgument(ValueError):
    """The command line asks for something impossible; the message is one line."""


def read_text(path: Path) -> str:
    """A text in UTF-8 or UTF-16, with or without a byte order mark, or in Windows' code page of Western Europe."""
    content = path.read_bytes()
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if b"\0" in content:
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def read_roster(path: Path) -> list[Student]:
    """Read a class list: one name on each line, or a table with a header, as learning platforms export it.

    Raises:
        BadArgument: if the file cannot be read, or holds no name.
    """
    try:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
    except OSError as error:
        raise BadArgument(f"roster must be a text file or a CSV, got {path}: {error.strerror}") from None
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = list(csv.reader(lines, delimiter=delimiter))
    header = [_plain_header(cell) for cell in rows[0]] if rows else []
    if set(header) & (WHOLE | FIRST | LAST | IDS) and (len(header) > 1 or header[0] in WHOLE | IDS):
        found = [_student(dict(zip(rows[0], row, strict=False))) for row in rows[1:]]
        students = [student for student in found if student.name and student.name != "Points Possible"]
    else:
        students = [Student(same_everywhere(line)) for line in lines]
    if not students:
        raise BadArgument(f"roster must name at least one student, got {path} with none")
    return students


def _plain_header(cell: str) -> str:
    return re.sub(r"\s*\(.*\)", "", cell.strip().lower().replace("_", " "))


def _student(row: dict[str, str]) -> Student:
    by_header: dict[str, str] = {}
    for cell, value in row.items():
        by_header.setdefault(_plain_header(cell), same_everywhere(value))

    def first_of(headers: set[str]) -> str:
        return next((by_header[header] for header in by_header if header in headers and by_header[header]), "")

    whole = first_of(WHOLE) or f"{first_of(FIRST)} {first_of(LAST)}".strip() or first_of(IDS)
    return Student(whole, row, first_of(GROUPS))


def same_everywhere(name: str) -> str:
    """A name in Unicode's NFC, since macOS stores accents as separate characters."""
    return unicodedata.normalize("NFC", " ".join(name.split()) if "\n" not in name else name.strip())


def squeezed(name: str) -> str:
    """The letters and digits of a name, without case and accents: what every platform keeps of it."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


class Roster:
    """The students of a class, found by any form of their names, by an id, or by their group."""

    def __init__(self, students: Iterable[Student] = ()):
        self.students: dict[str, Student] = {}
        self.known: dict[str, set[str]] = {}  # students, by every squeezed form of a name and by every id
        self.named: dict[str, list[str]] = {}  # those who have a name, as the lists write it
        self.warnings: list[str] = []
        for student in students:
            self._add(student)
        for group in {student.group for student in self.students.values()} - {""}:
            members = {name for name, student in self.students.items() if student.group == group}
            self.known.setdefault(squeezed(group), members)

    def _add(self, student: Student) -> None:
        ids = _ids(student)
        namesakes = self.named.setdefault(student.name, [])
        there = {name: _ids(self.students[name]) for name in namesakes}
        agree = [name for name in there if all(there[name].get(c, v) == v for c, v in ids.items())]
        name = student.name
        if agree:  # the same person, on a second list
            name = max(agree, key=lambda one: len(there[one].items() & ids.items()))
        elif namesakes:
            name = f"{name} ({next(v for c, v in ids.items() if there[namesakes[0]].get(c) != v)})"
            self.warnings.append(f"two students are called {student.name}: one of them is {name} in the table")
        self.named[student.name] = list(dict.fromkeys([*namesakes, name]))
        before = self.students.get(name, student).columns
        self.students[name] = Student(name, {**before, **student.columns}, student.group)
        written = {*forms(name), *forms(student.name), *ids.values(), *(v.split("@")[0] for v in ids.values())}
        for form in filter(None, map(squeezed, written)):
            self.known.setdefault(form, set()).add(name)

    def find(self, *labels: str) -> list[str]:
        """The students whom one of the labels names, the first that names any: one, or the members of a group."""
        for label in labels:
            if found := self._find(label):
                return found
        return []

    def namesakes(self, label: str) -> set[str]:
        """The students who are called so, if there are several."""
        called = self.known.get(squeezed(label), set())
        return called if len(called) > 1 else set()

    def _find(self, label: str) -> list[str]:
        label = same_everywhere(label)
        if len(self.named.get(label, ())) == 1:
            return self.named[label]
        whole = squeezed(label)
        found = self.known.get(whole, set())
        if not found:  # the beginning, or any run of whole words, of a longer label
            words = [word for word in re.split(r"[^\w@.]+|_", label) if word]
            runs = [squeezed("".join(words[i:j])) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
            for run in sorted(runs, key=len, reverse=True):
                if len(run) > 2 and run in self.known:
                    found = self.known[run]
                    break
        groups = {self.students[name].group for name in found}
        return sorted(found) if len(found) == 1 or (len(groups) == 1 and groups != {""}) else []


def _ids(student: Student) -> dict[str, str]:
    """A student's ids, by column."""
    ids = {_plain_header(column): same_everywhere(value) for column, value in student.columns.items()}
    return {column: value for column, value in ids.items() if column in IDS and value}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Whose name it may be, as the end of a message: one with a word in common, or else the most similar."""
    known, words = sorted(set(names)), set(map(squeezed, re.findall(r"\w+", name)))
    near = [one for one in known if words & set(map(squeezed, re.findall(r"\w+", one)))]
    order = sorted(near or known, key=lambda one: -_likeness(name, one))
    near = order[:3] if near else [one for one in order[:1] if _likeness(name, one) > 0.6]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _likeness(name: str, other: str) -> float:
    """Of two names in any order of their words, from 0 to 1."""
    return max(difflib.SequenceMatcher(None, squeezed(name), squeezed(form)).ratio() for form in forms(other))


def forms(name: str) -> set[str]:
    """A name in the orders in which it is written: Jane Doe; Doe, Jane; doejane."""
    last, comma, first = name.partition(",")
    if comma:
        return {name, f"{first} {last}"}
    words = name.split()
    return {name, *(" ".join(words[i:] + words[:i]) for i in range(1, len(words)))}
