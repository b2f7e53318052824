"""Erase a student from the files beside tables of grades: rows, texts, pages, the log. What was handed in is yours."""

import json
from collections.abc import Iterable
from pathlib import Path

from bncourse.files import write_whole
from bncourse.grading.desk import feedback_folder
from bncourse.grading.names import BadArgument, did_you_mean
from bncourse.grading.submissions import OURS
from bncourse.grading.typed import as_written, read_table, write_rows


def forget(student: str, tables: Iterable[Path]) -> list[str]:
    """Erase a student; returns what was changed.

    A report about the class is removed if it has the name: the next run of ``bncourse grade`` makes it again.

    Raises:
        BadArgument: a table that is not there, or a student who is in none of them.
    """
    changed, known = [], set[str]()
    for table in tables:
        if not table.exists():
            raise BadArgument(f"tables must be files that `bncourse grade` made, got {table}, which is not there")
        known |= {as_written(row["student"]) for row in read_table(table, ["student"])}
        feedback = feedback_folder(table)
        names = [table, *sorted(table.parent.glob(f"{table.stem}-*.csv")), feedback / ".table.csv"]
        changed += [path for path in names if path.exists() and _forget_rows(path, student)]
        changed += [path for path in [table.with_suffix(".log")] if path.exists() and _forget_lines(path, student)]
        pages = [feedback / f"{student.replace('/', '_')}{end}" for end in (".md", ".edited.md")]
        for path in filter(Path.exists, pages):
            path.unlink()
            changed.append(path)
        marks = feedback / OURS
        if marks.exists() and (written := json.loads(marks.read_text(encoding="utf-8") or "{}")).pop(
            pages[0].name, None
        ):
            write_whole(marks, json.dumps(written).encode())
        report = table.with_name(f"{table.stem}-report.html")
        if report.exists() and student in report.read_text(encoding="utf-8"):
            report.unlink()
            changed.append(report)
    if not changed:
        near = did_you_mean(student, known)
        raise BadArgument(f"student must be in one of the tables, got {student!r}, who is in none{near}")
    return [str(path) for path in changed]


def _forget_rows(path: Path, student: str) -> bool:
    rows = read_table(path, ["student"])
    kept = [row for row in rows if as_written(row["student"]) != student]
    if len(kept) < len(rows):
        write_rows(path, rows[0], [{column: as_written(value) for column, value in row.items()} for row in kept])
    return len(kept) < len(rows)


def _forget_lines(path: Path, student: str) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not _is_of(line, student)]
    write_whole(path, "".join(f"\n{line}" for line in kept).encode())
    return len(kept) < len(list(filter(None, lines)))


def _is_of(line: str, student: str) -> bool:
    """Whether a line of a log is about a student; one that a kill cut off is, if it has the name."""
    try:
        return json.loads(line)["student"] == student
    except (ValueError, TypeError, KeyError):
        return student in line
