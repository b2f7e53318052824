"""What grading leaves behind: a table for the instructor, a page for each student, and a log to go on from."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from bncourse.grading.assignment import Assignment, Question
from bncourse.grading.record import Outcome, Record

EXPLANATIONS = {
    "ok": "Your notebook ran and was graded.",
    "timeout": "Something in your notebook took too long and was stopped.",
    "memory": "Something in your notebook asked for more memory than there is.",
    "crashed": "The process that ran your notebook ended before it was graded to the end.",
    "unreadable": "What you handed in could not be read as a notebook.",
    "missing": "No notebook of yours was found.",
}


def write_table(path: Path, records: Iterable[Record], assignment: Assignment) -> None:
    """Write the CSV at once: whoever reads it meanwhile sees the old one or the new one, never half of one."""
    questions = [question.name for question in assignment.questions]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["student", "status", "score", "possible", *questions, "reason", "replaced", "seconds", "file"])
    for record in sorted(records, key=lambda record: record.student):
        scores = [record.scores.get(name, 0.0) for name in questions]
        row = [record.student, record.status, round(sum(scores), 4), assignment.points, *scores]
        row += [record.reason, " ".join(record.flags), record.seconds, record.file]
        writer.writerow([_harmless(value) for value in row])
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)


def _harmless(value: object) -> object:
    """Text that a spreadsheet would take for a formula, quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def write_feedback(folder: Path, record: Record, assignment: Assignment) -> None:
    """Write a student's page: every public case, and of the hidden ones only how many passed."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(record.scores.values())
    lines = [f"# {assignment.name}: {total:g} of {assignment.points:g} points", "", EXPLANATIONS[record.status]]
    if record.reason and record.status != "ok":
        lines += ["", f"What happened: {_plain(_public_reason(record, assignment))}"]
    elif record.reason:
        lines += ["", f"Cells that raised an error: {_plain(record.reason)}"]
    for question in assignment.questions:
        score = record.scores.get(question.name, 0.0)
        lines += ["", f"## {question.name}: {score:g} of {question.points:g}", ""]
        lines += _cases(question, record.outcomes.get(question.name))
    (folder / f"{record.student.replace('/', '_')}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cases(question: Question, outcomes: list[Outcome] | None) -> list[str]:
    if outcomes is None:
        return ["Not graded."]
    lines = []
    pairs = list(zip(question.cases, outcomes, strict=True))
    for case, outcome in pairs:
        if not case.hidden:
            lines.append(f"- {'passed' if outcome.passed else '**failed**'}: {case.name}")
            if not outcome.passed:
                lines.append(f"  - {_plain(outcome.message)}")
            if outcome.hint:
                lines.append(f"  - Hint: {_plain(outcome.hint)}")
    hidden = [outcome.passed for case, outcome in pairs if case.hidden]
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
            file.write("\n" + record.to_json())  # the newline first: it also ends a line that was cut off
