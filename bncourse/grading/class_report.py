"""What a class understood: one page of HTML that says which mistakes were made how often, and what to talk about."""

import ast
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from pathlib import Path
from statistics import median

from bncourse.exercises import EXERCISES
from bncourse.files import write_whole
from bncourse.grading.assignment import Assignment
from bncourse.grading.report import NO_ANSWER, Record, number_of
from bncourse.grading.submissions import Submission

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: start; padding: 0.35rem 0.6rem; border-bottom: 1px solid #ccc; vertical-align: top; }
td.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { background: #e6e6e6; height: 0.8rem; min-width: 8rem; }
.bar span { display: block; height: 100%; background: #0072b2; }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #e6e6e6; } .bar { background: #444; } }
@media print { body { max-width: none; } table, li { break-inside: avoid; } }
"""
NO_FAULT = ("missing", "unreadable")
MONDAY = 3  # misconceptions worth a word to everybody


def write_report(
    path: Path,
    records: list[Record],
    submissions: list[Submission],
    assignment: Assignment,
    anonymous: bool = False,
) -> None:
    """Write the page; with ``anonymous`` students are numbers, in another order than the table's."""
    shown = {record.student: record.student for record in records}
    if anonymous:
        shuffled = sorted(shown, key=lambda name: hashlib.sha256((assignment.digest + name).encode()).digest())
        shown = {name: f"student {number}" for number, name in enumerate(shuffled, 1)}
    graded = [record for record in records if record.status not in NO_FAULT]
    parts = [f"<h1>{escape(assignment.name)}: the class</h1>", _summary(records, graded, assignment)]
    parts += [_monday(graded, assignment), _exercises(graded, assignment), _cases(graded, assignment)]
    parts += [
        _misconceptions(graded, assignment),
        _alike(submissions, graded, shown),
        _talk(records, assignment, shown),
    ]
    title = f"<title>{escape(assignment.name)}: the class</title>"
    head = f'<meta charset="utf-8">{title}<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    write_whole(path, page.encode("utf-8", "backslashreplace"))


def _summary(records: list[Record], graded: list[Record], assignment: Assignment) -> str:
    scores = [record.score for record in graded]
    counts = Counter(record.status for record in records)
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    middle = f"median {median(scores):g} of {assignment.points:g} points" if scores else "no scores"
    waiting = sum(points is None for record in graded for points in record.explained.values())
    ungraded = number_of(waiting, "explanation is", "explanations are")
    more = f" {ungraded} not graded yet (0 points here)." if waiting else ""
    return f"<p>{number_of(len(records), 'student', 'students')} ({said}); {middle}.{more}</p>"


def misconceptions(graded: Iterable[Record], assignment: Assignment) -> list[tuple[str, set[str], set[str]]]:
    """Each hint that was given: its text, the exercises and the students; the most frequent first.

    A question whose cells are as they were given shows no misconception: it was not answered.
    """
    exercises, students = defaultdict(set), defaultdict(set)
    for record in graded:
        for question, outcomes in record.outcomes.items():
            for outcome in outcomes if record.answered(question) else ():
                if outcome.hint:
                    exercises[outcome.hint].add(question)
                    students[outcome.hint].add(record.student)
    order = sorted(students, key=lambda hint: (-len(students[hint]), hint))
    return [(hint, exercises[hint], students[hint]) for hint in order]


def _monday(graded: list[Record], assignment: Assignment) -> str:
    most = [row for row in misconceptions(graded, assignment) if len(row[2]) > 1][:MONDAY]
    if not most:
        none = "No misconception was recognized in the answers of more than one student; see which cases failed."
        return f"<h2>What to say on Monday</h2><p>{none}</p>"
    items = "".join(
        f"<li>{len(students)} of {len(graded)} were told in {_titles(exercises)}: <q>{escape(hint)}</q></li>"
        for hint, exercises, students in most
    )
    return f"<h2>What to say on Monday</h2><ol>{items}</ol>"


def _titles(names: Iterable[str]) -> str:
    return escape(", ".join(f"{EXERCISES[n].title} ({n})" if n in EXERCISES else n for n in sorted(names)))


def _exercises(graded: list[Record], assignment: Assignment) -> str:
    rows = []
    for question in assignment.questions:
        points = [record.points(question.name) for record in graded]
        share = sum(points) / len(points) / question.points if points and question.points else 0.0
        full = sum(point >= question.points for point in points)
        empty = sum(not record.answered(question.name) for record in graded if record.outcomes.get(question.name))
        rows.append((share, _titles([question.name]), full, empty))
    body = "".join(
        f'<tr><td>{title}</td><td class="number">{share:.0%}</td><td><div class="bar"><span style="width: {share:.0%}">'
        f'</span></div></td><td class="number">{full}</td><td class="number">{empty}</td></tr>'
        for share, title, full, empty in sorted(rows)
    )
    head = "<tr><th>exercise</th><th>points</th><th></th><th>all points</th><th>no answer</th></tr>"
    return f"<h2>The hardest exercises first</h2><table>{head}{body}</table>"


def _cases(graded: list[Record], assignment: Assignment) -> str:
    rows = []
    for question in assignment.questions:
        for number, case in enumerate(question.cases):
            failed = sum(
                not record.outcomes[question.name][number].passed
                for record in graded
                if record.answered(question.name) and number < len(record.outcomes[question.name])
            )
            if failed:
                rows.append((-failed, question.name, case.name, "hidden" if case.hidden else ""))
    body = "".join(
        f'<tr><td>{escape(name)}</td><td>{escape(case)}</td><td>{kind}</td><td class="number">{-failed}</td></tr>'
        for failed, name, case, kind in sorted(rows)
    )
    head = "<tr><th>exercise</th><th>case</th><th></th><th>failed by</th></tr>"
    return f"<h2>Which cases failed</h2><table>{head}{body}</table>"


def _misconceptions(graded: list[Record], assignment: Assignment) -> str:
    body = "".join(
        f"<tr><td>{escape(hint)}</td><td>{escape(', '.join(sorted(exercises)))}</td>"
        f'<td class="number">{len(students)}</td></tr>'
        for hint, exercises, students in misconceptions(graded, assignment)
    )
    head = "<tr><th>what the hint says</th><th>in</th><th>students</th></tr>"
    return f"<h2>Misconceptions that the checks recognized</h2><table>{head}{body}</table>"


def fingerprint(cells: Iterable[str]) -> str:
    """A digest of what cells define and compute, whatever the names, the comments and the layout."""
    return hashlib.sha256("\n".join(map(nameless, cells)).encode(errors="surrogatepass")).hexdigest()


@lru_cache(maxsize=10_000)  # most cells of a class are the same
def nameless(cell: str) -> str:
    """A cell's syntax with numbers for names; as it stands, if it has none."""
    tree = parsed(cell)
    if tree is None:
        return cell
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        for attribute in ("id", "arg", "name"):
            if isinstance(getattr(node, attribute, None), str):
                setattr(node, attribute, names.setdefault(getattr(node, attribute), f"n{len(names)}"))
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and body:
            node.body = body[1:] or body
    return ast.dump(tree)


def parsed(cell: str) -> ast.Module | None:
    try:
        return ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def definitions(cells: Iterable[str]) -> dict[str, str]:
    """The functions and classes that cells define in the end, by name, whatever the comments and the layout."""
    return {name: content for cell in cells for name, content in defined(cell)}


@lru_cache(maxsize=10_000)
def defined(cell: str) -> tuple[tuple[str, str], ...]:
    """Those of one cell."""
    nodes = getattr(parsed(cell), "body", [])
    return tuple((node.name, ast.dump(node)) for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))


def unchanged(cells: Iterable[str], assignment: Assignment) -> list[str]:
    """The questions whose functions and classes are in the end as students got them."""
    there = definitions(cells).items()
    return [q.name for q in assignment.questions if q.given and definitions(q.given).items() <= there]


def alike(submissions: Iterable[Submission], graded: Iterable[Record]) -> list[list[str]]:
    """Students whose notebooks compute the same, word by word but for names and comments; not members of a group."""
    said = {record.student: [o.message for case in record.outcomes.values() for o in case] for record in graded}
    scored = {name for name, messages in said.items() if any(not text.startswith(NO_ANSWER) for text in messages)}
    found: dict[str, list[Submission]] = defaultdict(list)
    for submission in submissions:
        if submission.student in scored:
            found[fingerprint(submission.cells)].append(submission)
    groups = [group for group in found.values() if len({submission.path for submission in group}) > 1]
    return [sorted(submission.student for submission in group) for group in groups]


def _alike(submissions: list[Submission], graded: list[Record], shown: dict[str, str]) -> str:
    groups = alike(submissions, graded)
    if not groups:
        return "<h2>Answers alike</h2><p>No two notebooks have the same code.</p>"
    items = "".join(f"<li>{escape(', '.join(shown[name] for name in group))}</li>" for group in groups)
    why = "Their code is the same except for names and comments. There can be innocent reasons, so ask."
    return f"<h2>Answers alike</h2><p>{why}</p><ul>{items}</ul>"


def _talk(records: list[Record], assignment: Assignment, shown: dict[str, str]) -> str:
    """Students to talk to: nothing handed in, not graded to the end, functions replaced, or half of the points lost."""
    items = []
    for record in sorted(records, key=lambda record: record.score):
        reasons = [record.reason] if record.status not in ("ok",) else []
        reasons += [f"replaced {' '.join(record.flags)}"] * bool(record.flags) + [record.concern] * bool(record.concern)
        ungraded = any(points is None for points in record.explained.values())
        if record.status == "ok" and record.score < assignment.points / 2 and not ungraded:
            reasons.append(f"{record.score:g} of {assignment.points:g} points")
        if reasons:
            items.append(f"<li>{escape(shown[record.student])}: {escape('; '.join(filter(None, reasons)))}</li>")
    return f"<h2>Whom to talk to</h2><ul>{''.join(items) or '<li>nobody</li>'}</ul>"
