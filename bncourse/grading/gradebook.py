"""One gradebook over all sets, and the file that a learning platform takes.

No platform has been tried. In November 2026 these pages were read, in copies:

- Moodle: any CSV with a column that identifies a student (Email address, ID number), mapped when it is imported;
  https://docs.moodle.org/311/en/Grade_import
- Blackboard: a student is known by the user name, and the columns are those of the file that its Grade Center exports;
  http://library.blackboard.com/ref/3ea64795-6ecc-4abd-b595-0a9a8dfdec94/Content/_instructor_grade_center/grade_center_upload_download.htm
- Canvas: the exported gradebook with its columns Student, ID, SIS User ID, SIS Login ID, Section, and one for each
  assignment. Its page was not at hand: compare with your own export.
- Gradescope takes scores from its autograder (``bncourse autograder``), not from a file.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from bncourse.grading.names import BadArgument, Roster
from bncourse.grading.report import number_of
from bncourse.grading.typed import as_written, number, read_table, write_rows

PLATFORMS = {
    "canvas": ("Student", "ID", "SIS User ID", "SIS Login ID", "Section"),
    "moodle": ("First name", "Last name", "ID number", "Email address"),
    "blackboard": ("Last Name", "First Name", "Username", "Student ID"),
}


WAITING = re.compile(r"(\d+) explanations? (?:is|are) not graded yet")


def read_grades(tables: Iterable[Path]) -> tuple[dict[str, dict[str, float]], dict[str, float], list[str]]:
    """Each student's scores by set, what each set has at most, and warnings of zeros that are not earned.

    Raises:
        BadArgument: a table that ``bncourse grade`` did not make, or two of one name.
    """
    scores: dict[str, dict[str, float]] = {}
    possible: dict[str, float] = {}
    warnings = []
    for table in tables:
        if not table.exists():
            raise BadArgument(f"tables must be files that `bncourse grade` made, got {table}, which is not there")
        if table.stem in possible:
            raise BadArgument(f"tables must have different names, got two called {table.stem}")
        possible[table.stem] = 0.0
        waiting, missing = 0, []
        for row in read_table(table, ["student", "status", "score", "possible"]):
            scores.setdefault(as_written(row["student"]), {})[table.stem] = number(row["score"]) or 0.0
            possible[table.stem] = number(row["possible"]) or 0.0
            waiting += sum(map(int, WAITING.findall(row.get("note", ""))))
            missing += [as_written(row["student"])] * (row["status"] == "missing")
        if waiting:
            warnings.append(
                f"{table.stem}: {number_of(waiting, 'explanation is', 'explanations are')} not graded yet: 0 points"
            )
        if missing:
            warnings.append(f"{table.stem}: 0 points where nothing was handed in: {'; '.join(missing)}")
    return scores, possible, warnings


def write_gradebook(tables: list[Path], out: Path, roster: Roster, platform: str | None) -> list[str]:
    """Write one row for each student, with a column for each table and their sum; returns warnings.

    Raises:
        BadArgument: a bad table, or a platform without the class list that it exported.
    """
    scores, possible, warnings = read_grades(tables)
    if platform is None:
        rows = []
        for student in sorted({*scores, *roster.students}):
            given = scores.get(student, {})
            total = round(sum(given.values()), 2)
            rows.append({"student": student, **given, "total": total, "possible": sum(possible.values())})
        write_rows(out, ["student", *possible, "total", "possible"], rows)
        return warnings
    columns = PLATFORMS[platform]
    known = {column for student in roster.students.values() for column in student.columns}
    if not known & set(columns):
        wanted = ", ".join(columns)
        raise BadArgument(
            f"roster must be the class list that {platform} exports, with some of {wanted}, got none of them"
        )
    kept = [column for column in columns if column in known]
    rows = [
        {**{column: student.columns.get(column, "") for column in kept}, **scores.get(name, {})}
        for name, student in roster.students.items()
    ]
    if platform == "canvas":  # its second line
        rows.insert(0, {"Student": "    Points Possible", **possible})
    write_rows(out, [*kept, *possible], rows)
    return warnings + [
        f"{student} has a score and is not on the roster" for student in sorted(set(scores) - set(roster.students))
    ]
