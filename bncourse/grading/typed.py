"""What people type into the grader's files: points for explanations, corrected scores, comments. None of it is lost."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bncourse.files import write_whole
from bncourse.grading.assignment import Assignment, Question
from bncourse.grading.names import BadArgument, read_text

SHEET = ("student", "exercise", "text", "points", "comment", "possible", "note", "rubric", "full", "little")
NO_EXPLANATION = "none was found below *Explain it*"
OVERRIDES = ("student", "exercise", "points", "comment")


@dataclass(frozen=True)
class Typed:
    """A row that somebody filled in; ``text`` is what it was given for."""

    points: float | None = None
    comment: str = ""
    text: str = ""
    row: dict[str, str] = field(default_factory=dict)


def read_table(path: Path, wanted: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV as a spreadsheet saves it: any encoding, with commas, semicolons or tabs.

    Raises:
        BadArgument: if a wanted column is missing.
    """
    if not path.exists():
        return []
    text = read_text(path)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise BadArgument(f"{path} must have the columns {', '.join(wanted)}, got {', '.join(columns) or 'none'}")
    return [{(k or "").strip(): v or "" for k, v in row.items() if isinstance(v, str)} for row in reader]


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV whole, so that Excel opens it: UTF-8 with its mark, and no text that it takes for a formula."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: harmless(value) for column, value in row.items()})
    write_whole(path, text.getvalue().encode("utf-8-sig", "backslashreplace"))


def harmless(value: object) -> object:
    """Text that a spreadsheet would take for a formula, quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_written(value: str) -> str:
    """Text as it was before ``harmless``."""
    return value[1:] if value[:1] == "'" and value[1:2] in ("=", "+", "-", "@", "\t", "\r") else value


def number(text: str) -> float | None:
    """A number as people type it: 1.5 or 1,5; None for none."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


def read_sheet(path: Path, assignment: Assignment, warn: list[str]) -> dict[tuple[str, str], Typed]:
    """What was typed into the sheet of explanations, by student and exercise."""
    possible = {q.name: q.explanation.points for q in assignment.questions if q.explanation}
    found = {}
    for row in read_table(path, SHEET[:5]):
        student, exercise, typed = as_written(row["student"]), row["exercise"], row["points"].strip()
        points = number(typed)
        most = possible.get(exercise, 0.0)
        if typed and (points is None or not 0 <= points <= most):
            warn.append(
                f"points of {student} for {exercise} must be between 0 and {most:g}, got {typed!r}: not counted"
            )
            points = None
        found[student, exercise] = Typed(points, row["comment"], as_written(row["text"]), row)
    return found


def write_sheet(
    path: Path,
    texts: Mapping[tuple[str, str], str],
    typed: Mapping[tuple[str, str], Typed],
    assignment: Assignment,
) -> None:
    """The sheet again: every explanation, with what was typed for it; rows of students who are gone stay."""
    explained = {q.name: q.explanation for q in assignment.questions if q.explanation}
    rows, extra = [], {name: None for row in typed.values() for name in row.row if name not in SHEET}
    for key in [*texts, *(key for key in typed if key not in texts)]:
        before, (student, exercise) = typed.get(key), key
        text = texts.get(key, before.text if before else "")
        note = f"{NO_EXPLANATION}: no points, unless you give some" if not text else ""
        if before is not None and before.points is not None:
            same = before.text.split() == text.split()
            note = before.row.get("note", "") if same else "the text has changed since the points were given"
        about = explained.get(exercise)
        row: dict[str, object] = dict(before.row) if before else {}
        row |= {"student": student, "exercise": exercise, "text": text, "note": note}
        if about is not None:
            row |= {"possible": about.points, "rubric": about.rubric, "full": about.good, "little": about.weak}
        rows.append(row)
    write_rows(path, [*SHEET, *extra], rows)


def read_overrides(path: Path, assignment: Assignment, warn: list[str]) -> dict[tuple[str, str], Typed]:
    """Scores that replace those of the cases, by student and exercise."""
    most, found = {question.name: question.points for question in assignment.questions}, {}
    for row in read_table(path, OVERRIDES):
        student, exercise, points = as_written(row["student"]), row["exercise"].strip(), number(row["points"])
        if exercise not in most or points is None:
            got = f"{exercise!r} and {row['points']!r}"
            warn.append(f"{path.name}: exercise must be one of the set and points a number, got {got}")
            continue
        if not 0 <= points <= most[exercise]:
            warn.append(
                f"{path.name}: points of {student} for the code of {exercise} must be between 0 and "
                f"{most[exercise]:g}, got {points:g}: not counted"
            )
            continue
        found[student, exercise] = Typed(points, row["comment"])
    return found


def add_overrides(path: Path, rows: list[dict[str, str]]) -> None:
    """Add rows to the file of overrides; what is there stays, in whatever columns."""
    before = read_table(path, OVERRIDES)
    columns = [*OVERRIDES, *dict.fromkeys(name for row in before for name in row if name not in OVERRIDES)]
    write_rows(path, columns, [*before, *rows])


def explanation(texts: list[tuple[str, str]], question: Question) -> str:
    """The words of the student: the Markdown between the question's check and the next heading, without ours."""
    found: list[str] = []
    inside = False
    ours = {line.strip() for line in question.explanation.prompt.splitlines()} if question.explanation else set()
    for kind, source in texts:
        if kind == "code" and f'check("{question.name}"' in "".join(source.replace("'", '"').split()):
            inside = True
        elif kind == "code" and "check(" in source:
            inside = False
        elif kind != "code" and inside:
            if any(line.startswith("## ") and line[3:4].isdigit() for line in source.splitlines()):
                inside = False
            else:
                found += [line for line in source.splitlines() if line.strip() not in ours and line.strip() != "---"]
    return "\n".join(found).strip()
