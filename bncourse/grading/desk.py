"""The instructor's desk: the files around a table of grades, made again at each run from what was graded and typed."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

from bncourse.exercises import EXERCISES, set_of
from bncourse.files import write_whole
from bncourse.grading.assignment import Assignment
from bncourse.grading.class_report import unchanged, write_report
from bncourse.grading.names import BadArgument, did_you_mean
from bncourse.grading.report import (
    UNANSWERED,
    UNDEFINED,
    Record,
    number_of,
    table_columns,
    write_feedback,
    write_table,
)
from bncourse.grading.submissions import OURS, Submission
from bncourse.grading.typed import (
    OVERRIDES,
    add_overrides,
    as_written,
    explanation,
    number,
    read_overrides,
    read_sheet,
    read_table,
    write_rows,
    write_sheet,
)

CHECK = re.compile(r"""^check\(\s*["']([\w-]+)["']\s*,\s*(.+?)\s*\)\s*$""", re.MULTILINE)


@dataclass(frozen=True)
class Deadline:
    """When a set is due, how many late days are free, and the share of the score that each further one costs."""

    due: datetime | None = None
    free_days: int = 0
    penalty: float = 0.0

    @classmethod
    def read(cls, due: str | None, free_days: int, percent: float) -> "Deadline":
        """From the command line.

        Raises:
            BadArgument: no such time, or a number out of its range.
        """
        try:
            moment = _moment(due) if due else None
        except ValueError:
            raise BadArgument(f"due must be a time such as 2026-03-01T23:59, got {due!r}") from None
        if free_days < 0:
            raise BadArgument(f"late-days must be at least 0, got {free_days}")
        if not 0 <= percent <= 100:
            raise BadArgument(f"late-penalty must be between 0 and 100, got {percent:g}")
        return cls(moment, free_days, percent / 100)

    def warnings(self, submissions: Iterable[Submission]) -> list[str]:
        """What the instructor may expect to be penalized, and is not."""
        if not self.penalty:
            return []
        unknown = sum(submission.late and (self.due is None or submission.time is None) for submission in submissions)
        marked = number_of(unknown, "submission is", "submissions are")
        said = [f"{marked} marked late but without a time, so there is no penalty; use the overrides"]
        return ["late-penalty needs due, so nothing is penalized"] * (self.due is None) + said * bool(unknown)

    def judge(self, submission: Submission) -> tuple[str, float]:
        """How late a submission is, in words, and what that costs."""
        if self.due is None or submission.time is None:
            return ("marked by the platform" if submission.late else ""), 0.0
        days = math.ceil((submission.time - self.due).total_seconds() / 86_400)
        if days <= 0:
            return "", 0.0
        cost = min(1.0, max(0, days - self.free_days) * self.penalty)
        return number_of(days, "day", "days"), cost


def _moment(due: str) -> datetime:
    """A time, or the end of a day."""
    try:
        return datetime.combine(date.fromisoformat(due), time(23, 59, 59))
    except ValueError:
        moment = datetime.fromisoformat(due)
    if moment.tzinfo is not None:  # the platforms' times have none
        raise ValueError
    return moment


class Desk:
    """A table and the files beside it: people may edit each of them, and a new run keeps what they typed."""

    def __init__(self, out: Path, assignment: Assignment, deadline: Deadline):
        self.out, self.assignment, self.deadline, self.warnings = out, assignment, deadline, list[str]()
        self.sheet, self.overrides = (out.with_name(f"{out.stem}-{name}.csv") for name in ("explanations", "overrides"))
        self.copy = feedback_folder(out) / ".table.csv"
        self.extra: dict[str, dict[str, str]] = {}
        self._keep_edits()
        if not self.overrides.exists():
            write_rows(self.overrides, OVERRIDES, [])
        self.given = read_overrides(self.overrides, assignment, self.warnings)
        self.typed = read_sheet(self.sheet, assignment, self.warnings)

    def _keep_edits(self) -> None:
        """Take what somebody typed into the table since it was written: numbers, and columns of their own."""
        if not self.out.exists():
            return
        now = read_table(self.out, ["student"])
        ours = [*table_columns(self.assignment), None]
        for row in now:
            own = {name: value for name, value in row.items() if name not in ours and value}
            if own:
                self.extra[as_written(row["student"])] = own
        if self.copy.exists() and self.copy.read_bytes() == self.out.read_bytes():
            return
        numbers = [1 + int(p.stem.rpartition("-")[2]) for p in self._edited() if p.stem.rpartition("-")[2].isdigit()]
        kept = self.out.with_name(f"{self.out.stem}-edited-{max(numbers, default=1)}.csv")
        write_whole(kept, self.out.read_bytes())
        self.warnings.append(f"{self.out.name} was edited, and the edited table is kept as {kept.name}")
        before = {row["student"]: row for row in read_table(self.copy, ["student"])}
        rows = []
        for row in now:
            for question in self.assignment.questions:
                new, old = row.get(question.name, ""), before.get(row["student"], {}).get(question.name)
                if old is None or _same(new, old):
                    continue
                if number(new) is None:
                    who = f"{question.name} typed for {as_written(row['student'])}"
                    self.warnings.append(f"{who} must be a number, got {new!r}: not carried over")
                else:
                    comment = f"typed into {self.out.name}, where it was {old}"
                    rows.append(
                        {"student": row["student"], "exercise": question.name, "points": new, "comment": comment}
                    )
        self.warnings += self._not_taken(now, before)
        if rows:
            add_overrides(self.overrides, rows)
            self.warnings.append(
                f"{number_of(len(rows), 'score', 'scores')} typed into it went to {self.overrides.name}"
            )

    def _not_taken(self, now: list[dict[str, str]], before: dict[str, dict[str, str]]) -> list[str]:
        """What was typed into columns that the grader writes, and into rows that it does not know."""
        theirs = {"score": "an exercise's column", "explanations": f"the column points of {self.sheet.name}"}
        theirs |= dict.fromkeys(("status", "late", "note", "reason"), "a column of your own")
        found = []
        for row in now:
            student = as_written(row["student"])
            if row["student"] not in before:
                known = map(as_written, before)
                found.append(f"the row of {student!r} was not carried over{did_you_mean(student, known)}")
                continue
            for column, instead in theirs.items():
                new, old = row.get(column), before[row["student"]].get(column)
                if new is not None and old is not None and not _same(new, old):
                    found.append(f"what was typed into {column} for {student} was not carried over: use {instead}")
        return found

    def _edited(self) -> list[Path]:
        return list(self.out.parent.glob("*-edited-*.csv"))

    def complete(self, record: Record) -> Record:
        """Add to a record what people typed for it."""
        explained = [question for question in self.assignment.questions if question.explanation]
        record.explained = {}
        for question in explained:
            typed = self.typed.get((record.student, question.name))
            record.explained[question.name] = typed.points if typed else None
        rows = {exercise: typed for (student, exercise), typed in self.given.items() if student == record.student}
        record.overrides = {exercise: typed.points or 0.0 for exercise, typed in rows.items()}
        sheet = {exercise: t.comment for (student, exercise), t in self.typed.items() if student == record.student}
        record.comments = {
            **{e: t.comment for e, t in rows.items() if t.comment},
            **{e: c for e, c in sheet.items() if c},
        }
        return record

    def write_table(self, records: Iterable[Record]) -> None:
        """The table so far, and the copy by which an edit is seen."""
        if not (feedback_folder(self.out) / OURS).exists():
            write_whole(feedback_folder(self.out) / OURS, b"")
        write_table(self.out, map(self.complete, records), self.assignment, self.extra)
        write_whole(self.copy, self.out.read_bytes())

    def finish(self, records: list[Record], submissions: list[Submission], anonymous: bool = False) -> list[str]:
        """Write everything; returns what the instructor should hear."""
        texts: dict[tuple[str, str], str] = {}
        for submission in submissions:
            for question in self.assignment.questions:
                if question.explanation and submission.texts:
                    texts[submission.student, question.name] = explanation(submission.texts, question)
        if texts or self.typed:
            write_sheet(self.sheet, texts, self.typed, self.assignment)
        by_student = {submission.student: submission for submission in submissions}
        self.warnings += self._unknown(by_student) + self.deadline.warnings(submissions)
        for record in records:
            submission = by_student[record.student]
            self.complete(record)
            for question, points in record.explained.items():
                if not texts.get((record.student, question)) and submission.texts:
                    record.unexplained.append(question)
                if points is None and not texts.get((record.student, question)):
                    record.explained[question] = 0.0  # nothing was written
            record.late, record.penalty = self.deadline.judge(submission)
            record.unchanged = unchanged(submission.cells, self.assignment)
            said = advice(record, submission, self.assignment)
            record.note = "; ".join(filter(None, [submission.note, *said]))
            record.concern = "; ".join(filter(None, [submission.stranger, *said]))
            try:
                write_feedback(feedback_folder(self.out), record, self.assignment)
            except OSError as error:  # a name that no file can have
                self.warnings.append(f"no feedback for {record.student}: {error}")
        write_table(self.out, records, self.assignment, self.extra)
        write_whole(self.copy, self.out.read_bytes())
        report = self.out.with_name(f"{self.out.stem}-report.html")
        write_report(report, records, submissions, self.assignment, anonymous)
        return self.warnings

    def _unknown(self, students: Iterable[str]) -> list[str]:
        """Who is in the files that people fill in, and not in the class."""
        typed = [(self.overrides, student) for student, _ in self.given]
        typed += [(self.sheet, student) for (student, _), one in self.typed.items() if one.points is not None]
        return [
            f"{path.name}: no student is called {student!r}{did_you_mean(student, students)}"
            for path, student in dict.fromkeys(typed)
            if student not in students
        ]


def _same(new: str, old: str) -> bool:
    """Whether a spreadsheet's cell is as it was, however it writes numbers."""
    if number(new) is not None:
        return number(new) == number(old)
    return " ".join(as_written(new).split()) == " ".join(as_written(old).split())


def advice(record: Record, submission: Submission, assignment: Assignment) -> list[str]:
    """Why a submission has fewer points than its student may expect: another set, another name, no answers."""
    if record.status in ("missing", "unreadable"):
        return []
    checked = CHECK.findall("\n".join(submission.cells))
    ours = {question.name for question in assignment.questions}
    theirs = sorted({set_of(name) for name, _ in checked if name in EXERCISES and name not in ours})
    found = []
    if theirs and not ours & {name for name, _ in checked}:
        found.append(f"this looks like a different set: {', '.join(theirs)}")
    undefined = [name for name, outcomes in record.outcomes.items() if outcomes and _all_say(outcomes, UNDEFINED)]
    answers = record.outcomes.items()
    empty = [n for n, outcomes in answers if outcomes and (n in record.unchanged or _all_say(outcomes, UNANSWERED))]
    for name in undefined:
        wanted = record.outcomes[name][0].message.removeprefix(UNDEFINED).strip()
        used = next((answer for checked_name, answer in checked if checked_name == name), "")
        if used and used.strip() != wanted:
            found.append(f"{name}: the notebook checks {used.strip()}, but defines no {wanted}")
        elif not theirs:
            found.append(f"{name}: the notebook defines no {wanted}")
    if len(empty) == len(record.outcomes) and not undefined and empty:
        found.append("no exercise is answered")
    elif len(undefined) == len(record.outcomes) and not theirs and not checked:
        found = ["the notebook has none of this set's answers and none of its checks"]
    return found


def _all_say(outcomes: list, words: str) -> bool:
    return all(outcome.message.startswith(words) for outcome in outcomes)


def feedback_folder(out: Path) -> Path:
    """The folder of the pages for students, beside the table."""
    return out.with_name(f"{out.stem}-feedback")
