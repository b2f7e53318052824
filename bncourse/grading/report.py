"""What grading leaves behind: a table for the instructor, a page for each student, and a log to go on from."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bncourse.files import write_whole
from bncourse.grading.assignment import Assignment, Question
from bncourse.grading.submissions import OURS

EXPLANATIONS = {
    "ok": "Your notebook ran and was graded.",
    "timeout": "Something in your notebook took too long and was stopped.",
    "memory": "Something in your notebook asked for more memory than there is.",
    "crashed": "The process that ran your notebook ended before it was graded to the end.",
    "unreadable": "What you handed in could not be read as a notebook.",
    "missing": "No notebook of yours was found.",
}


@dataclass
class Outcome:
    """How one case went; ``message`` and ``hint`` are for the student if the case is public."""

    passed: bool
    message: str = ""
    hint: str = ""
    kind: str = ""  # "timeout" or "memory" if that ran out


@dataclass
class Record:
    """All that grading one submission brought: a status, the reason for it, and how every case went."""

    student: str
    file: str
    digest: str
    status: str
    reason: str = ""
    flags: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""  # how the notebook was chosen

    @property
    def score(self) -> float:
        return round(sum(self.scores.values()), 4)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        data = json.loads(line)
        data["outcomes"] = {name: [Outcome(**o) for o in outcomes] for name, outcomes in data["outcomes"].items()}
        return cls(**data)


class Log:
    """The finished submissions, one line of JSON each, so that a stopped run goes on where it was."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, Record]:
        """The last record of each student; a line that a kill cut off is left out."""
        records = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                record = Record.from_json(line)
            except (ValueError, TypeError, KeyError):
                continue
            records[record.student] = record
        return records

    def add(self, record: Record) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(record)))  # the newline first: it also ends a line that was cut off


def write_table(path: Path, records: Iterable[Record], assignment: Assignment) -> None:
    """Write the CSV whole: whoever reads it meanwhile sees the old one or the new one."""
    questions = [question.name for question in assignment.questions]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["student", "status", "score", "possible", *questions, "reason", "replaced", "seconds", "file"])
    for record in sorted(records, key=lambda record: record.student):
        row = [record.student, record.status, record.score, assignment.points]
        row += [record.scores.get(name, 0.0) for name in questions]
        row += [
            "; ".join(filter(None, [record.note, record.reason])),
            " ".join(record.flags),
            record.seconds,
            record.file,
        ]
        writer.writerow([_harmless(value) for value in row])
    write_whole(path, text.getvalue().encode("utf-8-sig", "backslashreplace"))  # the mark: for Excel


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def write_feedback(folder: Path, record: Record, assignment: Assignment) -> None:
    """Write a student's page: every public case, and of the hidden ones only how many passed."""
    lines = [f"# {assignment.name}: {record.score:g} of {assignment.points:g} points", "", EXPLANATIONS[record.status]]
    if record.reason and record.status != "ok":
        lines += ["", f"What happened: {_plain(_public_reason(record, assignment))}"]
    elif record.reason:
        lines += ["", f"Cells that raised an error: {_plain(record.reason)}"]
    for question in assignment.questions:
        score = record.scores.get(question.name, 0.0)
        lines += ["", f"## {question.name}: {score:g} of {question.points:g}", ""]
        lines += _cases(question, record.outcomes.get(question.name))
    write_whole(folder / OURS, b"")
    name = record.student.replace("/", "_").encode(sys.getfilesystemencoding(), "backslashreplace")
    write_whole(folder / f"{name.decode(sys.getfilesystemencoding())}.md", ("\n".join(lines) + "\n").encode())


def _cases(question: Question, outcomes: list[Outcome] | None) -> list[str]:
    if outcomes is None:
        return ["Not graded."]
    lines, hidden = [], []
    for case, outcome in zip(question.cases, outcomes, strict=True):
        if case.hidden:
            hidden.append(outcome.passed)
            continue
        lines.append(f"- {'passed' if outcome.passed else '**failed**'}: {case.name}")
        if not outcome.passed:
            lines.append(f"  - {_plain(outcome.message)}")
        if outcome.hint:
            lines.append(f"  - Hint: {_plain(outcome.hint)}")
    if hidden:
        lines.append(f"- further cases passed: {sum(hidden)} of {len(hidden)}")
    if question.all_or_nothing:
        lines.append("- this question counts only if every case passes")
    return lines


def _public_reason(record: Record, assignment: Assignment) -> str:
    """The reason, unless it quotes a hidden case."""
    for question in assignment.questions:
        for case, outcome in zip(question.cases, record.outcomes.get(question.name, []), strict=False):
            if case.hidden and outcome.message and outcome.message in record.reason:
                return f"one of the further cases of {question.name} ended with: {outcome.kind}"
    return record.reason


def _plain(text: str) -> str:
    """One line without markup of its own."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")
