"""Grade a folder: several submissions at once, to the end, and from where a stopped run was."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from bncourse.grading.assignment import Assignment
from bncourse.grading.isolation import why_not_isolated
from bncourse.grading.record import Record
from bncourse.grading.report import Log, write_feedback, write_table
from bncourse.grading.submissions import Submission, find_submissions, ignored_files
from bncourse.grading.supervise import Limits, Stopped, digest_of, grade
from bncourse.grading.workspace import workspace

NOT_ISOLATED = (
    "Warning: submissions are not isolated here, because {}. They can use the network and read your files, "
    "the hidden cases too. Grade in a virtual machine or a container if you do not trust them."
)


def grade_folder(
    folder: Path,
    assignment: Assignment,
    out: Path,
    *,
    limits: Limits | None = None,
    jobs: int | None = None,
    roster: list[str] | None = None,
    retry: bool = False,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Grade every submission in a folder.

    Args:
        folder: the submissions, as `find_submissions` understands them.
        assignment: what is graded.
        out: the table, OUT.csv. Beside it: OUT-feedback/, a page per student, and OUT.log, from which a second run goes
            on: what it has graded and what has not changed since is not graded again.
        limits: of each submission.
        jobs: how many at once; as many as there are CPU cores by default.
        roster: names of students who should have handed in.
        retry: grade those again that timed out, ran out of memory or crashed.
        say: receives lines of progress.

    Returns:
        The records, sorted by student.

    Raises:
        NotADirectoryError: if there is no such folder.
        KeyboardInterrupt: if you stop it; what is graded is in the log.
    """
    limits, jobs = limits or Limits(), jobs or os.cpu_count() or 1
    submissions = find_submissions(folder, assignment.name, roster)
    out.parent.mkdir(parents=True, exist_ok=True)
    log, feedback = Log(out.with_suffix(".log")), out.with_name(f"{out.stem}-feedback")
    unfinished = ("timeout", "memory", "crashed") if retry else ()
    known = {name: record for name, record in log.read().items() if record.status not in unfinished}
    done = {s.student: known[s.student] for s in submissions if _is_graded(s, known, assignment)}
    to_do = [submission for submission in submissions if submission.student not in done]

    if ignored := ignored_files(folder):
        say(_printable(f"Warning: {len(ignored)} files are no notebooks and are ignored: {', '.join(ignored[:5])}"))
    if reason := why_not_isolated():
        say(NOT_ISOLATED.format(reason))
    say(f"{assignment.name}: {len(submissions)} students, {len(done)} graded before, {jobs} at a time")

    stop = threading.Event()
    with workspace() as temporary, ThreadPoolExecutor(jobs) as pool:
        pending = {
            pool.submit(_grade_any, submission, assignment, folder, limits, temporary, stop) for submission in to_do
        }
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for record in map(Future.result, finished):
                    done[record.student] = record
                    log.add(record)
                    write_table(out, done.values(), assignment)
                    say(_printable(_line(record, len(done), len(submissions), assignment)))
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for record in done.values():
        try:
            write_feedback(feedback, record, assignment)
        except OSError as error:  # a name that no file can have
            say(_printable(f"Warning: no feedback for {record.student}: {error}"))
    write_table(out, done.values(), assignment)
    return sorted(done.values(), key=lambda record: record.student)


def _is_graded(submission: Submission, known: dict[str, Record], assignment: Assignment) -> bool:
    record = known.get(submission.student)
    return record is not None and record.digest == digest_of(submission, assignment)


def _grade_any(
    submission: Submission, assignment: Assignment, folder: Path, limits: Limits, temporary: Path, stop: threading.Event
) -> Record:
    """Grade, and turn a failure of the grader itself into a record: one submission never ends the run."""
    try:
        return grade(submission, assignment, folder, limits, temporary, stop)
    except Stopped:
        raise
    except Exception as error:
        reason = f"the grader failed, which is not the student's fault: {type(error).__name__}: {error}"
        digest = digest_of(submission, assignment)
        return Record(submission.student, str(submission.path or ""), digest, "crashed", reason)


def _line(record: Record, count: int, total: int, assignment: Assignment) -> str:
    position = f"[{count:>{len(str(total))}}/{total}]"
    score = f"{sum(record.scores.values()):g} of {assignment.points:g}"
    replaced = f"  replaced: {' '.join(record.flags)}" if record.flags else ""
    return f"{position} {record.student[:30]:30} {record.status:10} {score:>12} {record.seconds:6.1f} s{replaced}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
