"""What grading leaves behind: a table for the instructor, a page for each student, and a log to go on from."""

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bncourse.exercises import EXERCISES
from bncourse.files import write_whole
from bncourse.grading.assignment import Assignment, Question
from bncourse.grading.submissions import OURS
from bncourse.grading.typed import NO_EXPLANATION, write_rows

EXPLANATIONS = {
    "ok": "Your notebook ran and was graded.",
    "timeout": "Something in your notebook took too long and was stopped.",
    "memory": "Something in your notebook asked for more memory than it was allowed.",
    "crashed": "The process that ran your notebook ended before the grading was finished.",
    "unreadable": "What you handed in could not be read as a notebook.",
    "missing": "No notebook from you was found.",
}
UNDEFINED, UNANSWERED = "the notebook does not define", "not answered yet"  # as the worker says it
NO_ANSWER = (UNDEFINED, UNANSWERED)


def number_of(count: int, one: str, many: str) -> str:
    """1 student is, 2 students are."""
    return f"{count} {one if count == 1 else many}"


@dataclass
class Outcome:
    """How one case went; ``message`` and ``hint`` are for the student if the case is public."""

    passed: bool
    message: str = ""
    hint: str = ""
    kind: str = ""  # "timeout" or "memory" if that ran out


@dataclass
class Record:
    """All that grading one submission brought: a status, the reason for it, and how every case went.

    What comes from ``note`` on does not come from the run: each time the table is made it is taken from the files that
    people fill in, from the platform's names and from what was handed in.
    """

    student: str
    file: str
    digest: str
    status: str
    reason: str = ""
    flags: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    concern: str = ""  # the part of the note that is worth a conversation
    late: str = ""
    penalty: float = 0.0  # the share of the score that being late costs
    explained: dict[str, float | None] = field(default_factory=dict)  # None: not graded yet
    overrides: dict[str, float] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)  # questions whose cells are as they were given
    unexplained: list[str] = field(default_factory=list)  # questions below which no explanation was found

    def points(self, question: str) -> float:
        """What the cases of a question brought, or what a person said instead."""
        return self.overrides.get(question, self.scores.get(question, 0.0))

    def answered(self, question: str) -> bool:
        """Whether the notebook has an answer of the student's own to be judged."""
        outcomes = self.outcomes.get(question, [])
        return question not in self.unchanged and any(not o.message.startswith(NO_ANSWER) for o in outcomes)

    @property
    def score(self) -> float:
        given = sum(map(self.points, self.scores)) + sum(points or 0.0 for points in self.explained.values())
        return round(given * (1 - self.penalty), 2)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        data = json.loads(line)
        data["outcomes"] = {name: [Outcome(**o) for o in outcomes] for name, outcomes in data["outcomes"].items()}
        return cls(**data)


class Log:
    """The finished submissions, one line of JSON each, so that a stopped run goes on where it was."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Record]:
        """The records in the order in which they were made; a line that a kill cut off is left out."""
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                records.append(Record.from_json(line))
            except (ValueError, TypeError, KeyError):
                continue
        return records

    def add(self, record: Record) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(record)))  # the newline first: it also ends a line that was cut off


def table_columns(assignment: Assignment) -> list[str]:
    """The columns of the table."""
    questions = [question.name for question in assignment.questions]
    words = ["explanations"] * any(question.explanation for question in assignment.questions)
    return [
        *("student", "status", "score", "possible", *questions, *words),
        *("late", "note", "reason", "replaced", "seconds", "file"),
    ]


def write_table(
    path: Path, records: Iterable[Record], assignment: Assignment, extra: dict[str, dict[str, str]] | None = None
) -> None:
    """Write the CSV whole: whoever reads it meanwhile sees the old one or the new one.

    ``extra`` has columns that people added, for each student.
    """
    rows, added = [], dict.fromkeys(column for columns in (extra or {}).values() for column in columns)
    for record in sorted(records, key=lambda record: record.student):
        ungraded = sum(points is None for points in record.explained.values())
        words = sum(points or 0.0 for points in record.explained.values())
        row = {"student": record.student, "status": record.status, "score": record.score, "possible": assignment.points}
        row |= {question.name: round(record.points(question.name), 2) for question in assignment.questions}
        row |= {"explanations": round(words, 2), "late": record.late, "reason": record.reason}
        waiting = number_of(ungraded, "explanation is", "explanations are") + " not graded yet" if ungraded else ""
        row |= {"note": "; ".join(filter(None, [record.note, waiting])), "replaced": " ".join(record.flags)}
        row |= {"seconds": record.seconds, "file": record.file, **(extra or {}).get(record.student, {})}
        rows.append(row)
    write_rows(path, [*table_columns(assignment), *added], rows)


def write_feedback(folder: Path, record: Record, assignment: Assignment) -> None:
    """Write a student's page: every public case, and of the hidden ones only how many passed.

    A page that somebody has changed is kept beside it, as NAME.edited.md.
    """
    lines = [f"# {assignment.name}: {record.score:g} of {assignment.points:g} points", "", EXPLANATIONS[record.status]]
    if record.reason and record.status != "ok":
        lines += ["", f"What happened: {_plain(_public_reason(record, assignment))}"]
    elif record.reason:
        lines[-1] = "Your notebook was graded, but some of its cells raised an error."
        lines += ["", f"Start with these cells: {_plain(record.reason)}"]
    if None in record.explained.values():
        lines += ["", "Your explanations are not graded yet, so the score is for the code alone."]
    if record.note:
        lines += ["", f"Note: {_plain(record.note)}"]
    if record.late:
        lines += [
            "",
            f"Late: {record.late}" + (f", which costs {record.penalty:.0%} of the score" * (record.penalty > 0)),
        ]
    typed = record.overrides.keys() | record.comments.keys() | {q for q, p in record.explained.items() if p != 0}
    shown = [q for q in assignment.questions if q.name in typed or _is_defined(record, q)]
    if not shown and record.outcomes:
        lines += ["", "It defines none of the answers that this set asks for, so no case could be tested."]
    for question in assignment.questions if shown and record.outcomes else shown:
        title = EXERCISES[question.name].title if question.name in EXERCISES else question.name
        lines += ["", f"## {title} ({question.name}): {record.points(question.name):g} of {question.points:g}", ""]
        if question.name in record.overrides:
            lines.append("- a person gave these points")
        lines += _cases(question, record.outcomes.get(question.name))
        if question.explanation:
            points = record.explained.get(question.name)
            given = "not graded yet" if points is None else f"{points:g} of {question.explanation.points:g} points"
            if question.name in record.unexplained:
                given = f"{NO_EXPLANATION}, {given}"
            lines.append(f"- your explanation: {given}")
        if comment := record.comments.get(question.name):
            lines.append(f"- comment: {_plain(comment)}")
    encoding = sys.getfilesystemencoding()
    name = record.student.replace("/", "_").encode(encoding, "backslashreplace").decode(encoding)
    page, marks = folder / f"{name}.md", folder / OURS
    content = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
    written = json.loads(marks.read_text(encoding="utf-8") or "{}") if marks.exists() else {}
    if page.exists() and page.name in written and _digest(page.read_bytes()) != written[page.name]:
        page.replace(page.with_suffix(".edited.md"))
    write_whole(page, content)
    write_whole(marks, json.dumps(written | {page.name: _digest(content)}).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_defined(record: Record, question: Question) -> bool:
    outcomes = record.outcomes.get(question.name, [])
    return any(not outcome.message.startswith(UNDEFINED) for outcome in outcomes)


def _cases(question: Question, outcomes: list[Outcome] | None) -> list[str]:
    if outcomes is None:
        return ["Not graded."]
    if outcomes and all(outcome.message.startswith(UNDEFINED) for outcome in outcomes):
        return [f"- {_plain(outcomes[0].message)}, so no case could be tested"]
    lines, hidden, hints = [], [], set()
    for case, outcome in zip(question.cases, outcomes, strict=True):
        if case.hidden:
            hidden.append(outcome.passed)
            continue
        lines.append(f"- {'passed' if outcome.passed else '**failed**'}: {case.name}")
        if not outcome.passed:
            lines.append(f"  - {_plain(outcome.message)}")
        if outcome.hint:
            same = outcome.hint in hints
            lines.append("  - Hint: the same as above." if same else f"  - Hint: {_plain(outcome.hint)}")
            hints.add(outcome.hint)
    if hidden:
        lines.append(f"- further cases passed: {sum(hidden)} of {len(hidden)}")
    if question.all_or_nothing:
        lines.append("- this question earns points only if every case passes")
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
