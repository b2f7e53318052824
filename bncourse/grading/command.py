"""The command ``bncourse grade``: several submissions at once, to the end, and from where a stopped run was."""

import argparse
import contextlib
import glob
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bncourse.exercises import EXERCISES
from bncourse.exercises.quiz import write_quiz
from bncourse.grading import supervise
from bncourse.grading.assignment import Assignment, find_assignment
from bncourse.grading.desk import Deadline, Desk, feedback_folder
from bncourse.grading.edition import grade_with, write_edition
from bncourse.grading.forget import forget
from bncourse.grading.gradebook import write_gradebook
from bncourse.grading.gradescope import write_autograder
from bncourse.grading.names import BadArgument, Roster, read_roster
from bncourse.grading.report import Log, Record, number_of
from bncourse.grading.submissions import find_submissions, ignored_files
from bncourse.grading.supervise import Limits

PREFIX = "bncourse-grade-"  # of temporary folders
DAY = 24 * 3600
NOT_ISOLATED = (
    "Warning: submissions are not isolated here, because {}. They can use the network and read your files, "
    "including the hidden cases. Grade in a virtual machine or a container if you do not trust them."
)


def run(arguments: argparse.Namespace) -> int:
    """Grade as the command line says; returns the exit code."""
    if sys.platform == "win32":
        print("bncourse grade needs Linux or macOS; on Windows, use WSL.", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that this terminal cannot show
    try:
        if arguments.edition:
            return grade_with(arguments.edition, options(arguments), arguments.assignment)
        for name, least in (("jobs", 1), ("seconds", 1), ("megabytes", 500)):
            value = getattr(arguments, name)
            if value is not None and not least <= value < float("inf"):
                raise BadArgument(f"{name} must be at least {least}, got {value:g}")
        roster = Roster(student for path in arguments.roster for student in read_roster(path))
        assignment = find_assignment(arguments.assignment)
        records = grade_folder(
            arguments.submissions,
            assignment.only(arguments.exercises.split(",")) if arguments.exercises else assignment,
            arguments.out,
            limits=Limits(arguments.seconds, arguments.megabytes),
            jobs=arguments.jobs,
            roster=roster,
            retry=arguments.retry,
            attempts=arguments.attempts,
            anonymous=arguments.anonymous,
            deadline=Deadline.read(arguments.due, arguments.late_days, arguments.late_penalty),
            say=lambda line: print(line, flush=True),
        )
    except (OSError, BadArgument) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command picks up where it stopped.", file=sys.stderr)
        return 130
    counts = Counter(record.status for record in records)
    print(", ".join(f"{count} {status}" for status, count in counts.most_common()))
    for warning in roster.warnings:
        print(f"Warning: {warning}")
    report = arguments.out.with_name(f"{arguments.out.stem}-report.html")
    print(f"Table: {arguments.out}\nReport: {report}\nFeedback: {feedback_folder(arguments.out)}/")
    if any(record.flags for record in records):
        print("Some submissions replaced functions in torch or in the checker (column `replaced`): look at them.")
    return 0


def options(arguments: argparse.Namespace) -> list[str]:
    """The command line again, without the edition and the assignment."""
    given = [str(arguments.submissions)]
    for name, value in vars(arguments).items():
        option = f"--{name.replace('_', '-')}"
        if name in ("submissions", "assignment", "edition", "run") or value is None or value is False:
            continue
        values = value if isinstance(value, list) else [value]
        given += [option] if value is True else [text for one in values for text in (option, str(one))]
    return given


def gradebook(arguments: argparse.Namespace) -> int:
    """Write one table from several, as the command line says; returns the exit code."""
    try:
        roster = Roster(student for path in arguments.roster for student in read_roster(path))
        warnings = write_gradebook(arguments.tables, arguments.out, roster, arguments.platform)
    except (OSError, BadArgument) as error:
        print(error, file=sys.stderr)
        return 2
    print(*(f"Warning: {warning}" for warning in warnings), f"Gradebook: {arguments.out}", sep="\n")
    return 0


def autograder(arguments: argparse.Namespace) -> int:
    """Write Gradescope's zip, as the command line says; returns the exit code."""
    try:
        write_autograder(find_assignment(arguments.assignment), arguments.out)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Autograder: {arguments.out}")
    return 0


def edition(arguments: argparse.Namespace) -> int:
    """Write an edition, as the command line says; returns the exit code."""
    try:
        write_edition(arguments.out)
    except (OSError, BadArgument) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Edition: {arguments.out}")
    return 0


def quiz(arguments: argparse.Namespace) -> int:
    """Write a sheet of questions and its key, as the command line says; returns the exit code."""
    try:
        key = write_quiz(arguments.of_class, arguments.chapters, arguments.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Questions: {arguments.out}\nKey: {key}")
    return 0


def forget_student(arguments: argparse.Namespace) -> int:
    """Erase a student, as the command line says; returns the exit code."""
    try:
        changed = forget(arguments.student, arguments.tables)
    except (OSError, BadArgument) as error:
        print(error, file=sys.stderr)
        return 2
    print("Erased from:", *changed, "What was handed in has not been touched.", sep="\n")
    return 0


def grade_folder(
    folder: Path,
    assignment: Assignment,
    out: Path,
    *,
    limits: Limits | None = None,
    jobs: int | None = None,
    roster: Roster | Iterable[str] = (),
    retry: bool = False,
    attempts: str = "last",
    anonymous: bool = False,
    deadline: Deadline | None = None,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Grade every submission in a folder.

    Args:
        folder: the submissions, as ``find_submissions`` understands them.
        assignment: what is graded.
        out: the table, OUT.csv. Beside it: OUT-feedback/, a page per student; OUT-explanations.csv and
            OUT-overrides.csv, which people fill in; OUT-report.html about the class; and OUT.log, from which a second
            run goes on: what it has graded and what has not changed since is not graded again.
        limits: of each submission.
        jobs: how many at once; as many as there are CPU cores by default.
        roster: students who should have handed in.
        retry: grade those again that timed out, ran out of memory or crashed.
        attempts: "last", or "best": all attempts of a student are graded, and the best counts.
        anonymous: leave names out of the report about the class.
        deadline: when it was due, and what being late costs.
        say: receives lines of progress.

    Returns:
        The records, sorted by student.

    Raises:
        NotADirectoryError: if there is no such folder.
        KeyboardInterrupt: if you stop it; what is graded is in the log.
    """
    limits, jobs = limits or Limits(), jobs or os.cpu_count() or 1
    written = [out, *out.parent.glob(f"{glob.escape(out.stem)}[-.]*")]
    submissions = find_submissions(folder, assignment, roster, ours=written, every=attempts == "best")
    out.parent.mkdir(parents=True, exist_ok=True)
    log = Log(out.with_suffix(".log"))
    others = {name for record in log.read() for name in record.scores} - {q.name for q in assignment.questions}
    if others and not others <= set(EXERCISES) - {q.name for q in assignment.questions}:
        others = set()  # exercises that the set has lost
    if others:
        raise BadArgument(f"out must be the table of {assignment.name}, got {out} with {', '.join(sorted(others)[:3])}")
    desk = Desk(out, assignment, deadline or Deadline())
    unfinished = ("timeout", "memory", "crashed") if retry else ()
    known = {(r.student, r.digest): r for r in log.read() if r.status not in unfinished}
    done = {s.key: known[s.key] for s in submissions if s.key in known}
    first = len(done)
    by_key = {s.key: s for s in submissions}

    def counted() -> list[Record]:
        """Of each student the attempt that counts: of several the one with the most points, of equal ones the last."""
        best: dict[str, Record] = {}
        for key in by_key:
            record = done.get(key)
            if record is None:
                continue
            record.penalty = desk.deadline.judge(by_key[key])[1]
            before = best.get(record.student)
            if before is None or desk.complete(record).score >= desk.complete(before).score:
                best[record.student] = record
        return sorted(best.values(), key=lambda record: record.student)

    if ignored := ignored_files(folder, written):
        names = ", ".join(ignored[:5])
        what = number_of(len(ignored), "file that is not a notebook is", "files that are not notebooks are")
        say(_printable(f"Warning: {what} ignored: {names}"))
    if reason := supervise.why_not_isolated():
        say(NOT_ISOLATED.format(reason))
    students = len({submission.student for submission in submissions})
    say(f"{assignment.name}: {number_of(students, 'student', 'students')}, {first} graded before, {jobs} at a time")

    remove_stale()
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as workspace,
        supervise.Workers() as workers,
        ThreadPoolExecutor(jobs) as pool,
    ):
        started = [
            pool.submit(supervise.grade, submission, assignment, folder, limits, Path(workspace), stop, workers)
            for submission in submissions
            if submission.key not in done
        ]
        try:
            for record in (future.result() for future in as_completed(started)):
                done[record.student, record.digest] = record
                log.add(record)
                say(_printable(_line(record, len(done), len(by_key), assignment)))
                desk.write_table(counted())
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    records = counted()
    for warning in desk.finish(records, [by_key[record.student, record.digest] for record in records], anonymous):
        say(_printable(f"Warning: {warning}"))
    return records


def remove_stale() -> None:
    """Remove temporary folders that killed runs left behind: those that nothing has touched for a day."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run has just removed it
            if time.time() - folder.stat().st_mtime > DAY:
                shutil.rmtree(folder, ignore_errors=True)


def _line(record: Record, count: int, total: int, assignment: Assignment) -> str:
    position = f"[{count:>{len(str(total))}}/{total}]"
    score = f"{record.score:g} of {assignment.points:g}"
    replaced = f"  replaced: {' '.join(record.flags)}" if record.flags else ""
    return f"{position} {record.student[:30]:30} {record.status:10} {score:>12} {record.seconds:6.1f} s{replaced}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
