"""Run one submission in a process of its own, within limits, and judge what came of it.

Linux namespaces keep it away from the rest, where the system allows them to users: no network but its own loopback, no
other process to see, and folders such as the hidden cases replaced by empty ones. This is not a sandbox. The submission
runs as you, can read your other files, and meets the hidden cases when they call its functions. Where that matters,
grade in a virtual machine.
"""

import contextlib
import functools
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bncourse
from bncourse.grading import isolation
from bncourse.grading.assignment import Assignment
from bncourse.grading.report import Outcome, Record
from bncourse.grading.submissions import Submission

COURSE = Path(bncourse.__file__).resolve().parents[1]
SIGNALS = {number.value: number.name for number in signal.Signals}
REPORT_LIMIT = 20 << 20  # bytes; what an honest submission reports is a thousandth of it


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Attributes:
        seconds: wall time for everything. One cell may take a third of it, one case a tenth; then it is stopped and the
            rest goes on.
        megabytes: memory of one process.
    """

    seconds: float = 180.0
    megabytes: float = 4096.0


@dataclass
class Session:
    """What the process of one submission has reported, as far as it has the form it should have.

    The token keeps the student's cells from forging a result; functions that the cases call could still read it.
    """

    assignment: Assignment
    record: Record  # receives the flags, the outcomes and the scores
    token: str = field(default_factory=secrets.token_hex)
    cell: str = ""  # the number of the last one that was started
    executed: bool = False
    errors: list[tuple[str, str]] = field(default_factory=list)  # "timeout", "memory" or "", and what happened

    @property
    def done(self) -> bool:
        return len(self.record.outcomes) == len(self.assignment.questions)

    @property
    def where(self) -> str:
        if self.executed:
            return "while its answers were tested"
        return f"in cell {self.cell}" if self.cell else "before the first cell"

    def take(self, event: dict[str, Any]) -> None:
        """Take in one report."""
        kind, number = event.get("event"), clean_text(event.get("number"))
        if kind == "cell":
            self.cell = number
        elif kind == "error":
            message = f"cell {number}: {clean_text(event.get('message'))}"
            self.errors.append((str(event.get("kind")), message[:400]))
        elif kind == "executed":
            self.executed = True
            self._flag(event)
        elif event.get("token") == self.token and kind == "question":
            with contextlib.suppress(KeyError, TypeError, AttributeError):
                self._answer(event)
            self._flag(event)

    def _answer(self, event: dict[str, Any]) -> None:
        question = next((q for q in self.assignment.questions if q.name == event["name"]), None)
        texts = ("message", "hint", "kind")
        outcomes = [Outcome(o["passed"] is True, *(clean_text(o[name]) for name in texts)) for o in event["outcomes"]]
        if question is None or len(outcomes) != len(question.cases):
            return
        self.record.outcomes[question.name] = outcomes
        self.record.scores[question.name] = question.score([outcome.passed for outcome in outcomes])
        self.errors += [(o.kind, f"{question.name}: {o.message}") for o in outcomes if o.kind]

    def _flag(self, event: dict[str, Any]) -> None:
        names = event.get("changed")
        for name in names[:50] if isinstance(names, list) else []:
            if (text := clean_text(name)[:100]) not in self.record.flags:
                self.record.flags.append(text)

    def verdict(self, code: int, stderr: Path) -> tuple[str, str]:
        """The status and its reason, now that the process has ended with that code, or with minus a signal."""
        if not self.done:
            name = SIGNALS.get(-code)
            how = f"signal {name}" if name else f"exit code {code}"
            last = stderr.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-1:] if code else []
            return "crashed", ": ".join([f"the process ended with {how} {self.where}", *last])
        for status in ("timeout", "memory"):
            if found := [what for kind, what in self.errors if kind == status]:
                return status, f"{found[0]} (the rest was graded)"
        return "ok", "; ".join(what for kind, what in self.errors if not kind)[:500]


def clean_text(value: Any) -> str:
    """As text that every file and terminal takes: no lone surrogates."""
    return str(value).encode("utf-8", "backslashreplace").decode()


class Workers:
    """The process that has imported everything and forks itself for each submission; started again if it ends."""

    def __init__(self) -> None:
        self.lock, self.process, self.control = threading.Lock(), None, None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process is not None:
            self.control.close()  # it ends when it sees that
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
            self.process.kill()
            self.process.wait()

    def hand_over(self, descriptors: list[int]) -> None:
        """Give these to a new fork."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            socket.send_fds(self.control, [b"!"], descriptors)

    def _start(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bncourse.grading.worker"],
                cwd=tempfile.gettempdir(),
                env=_environment(),
                stdin=theirs.fileno(),
                start_new_session=True,  # Ctrl-C is for the grader
            )


class Worker:
    """The process of one submission, as the grader sees it: cases in, reports out, and a link to its guardian."""

    def __init__(self, workers: Workers, home: Path, limits: Limits, hide: list[Path]):
        self.link, theirs = socket.socketpair()
        cases, self.cases = os.pipe()
        self.reports, reports = os.pipe()
        errors = os.open(home / "stderr", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            workers.hand_over([theirs.fileno(), cases, reports, errors])
        finally:
            theirs.close()
            for descriptor in (cases, reports, errors):
                os.close(descriptor)
        work = {"home": str(home), "seconds": limits.seconds, "megabytes": limits.megabytes}
        work |= {"isolated": why_not_isolated() is None, "hide": [str(folder) for folder in hide]}
        with contextlib.suppress(OSError):  # it is gone; its silence tells
            self.link.sendall(json.dumps(work).encode() + b"\n")

    def events(self, deadline: float, stop: threading.Event) -> Iterator[dict[str, Any]]:
        """Its reports until it closes its end. Raises TimeoutError at the deadline."""
        buffer, received = b"", 0
        while True:
            if stop.is_set():
                raise KeyboardInterrupt
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            if not select.select([self.reports], [], [], min(remaining, 0.5))[0]:
                continue
            block = os.read(self.reports, 1 << 16)
            received += len(block)
            if not block or received > REPORT_LIMIT:
                return
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue  # not from the worker
                if isinstance(event, dict):
                    yield event

    def send(self, session: Session) -> None:
        """Send the cases; it takes them when it has run the cells."""
        questions = [{"name": q.name, "cases": [case.source for case in q.cases]} for q in session.assignment.questions]
        content = json.dumps({"token": session.token, "questions": questions}).encode() + b"\n"
        with contextlib.suppress(OSError):
            while content:
                content = content[os.write(self.cases, content) :]

    def exit_code(self, seconds: float) -> int | None:
        """Its exit code, or minus a signal, once it and all that it started are gone; None if that takes longer."""
        with contextlib.suppress(OSError, ValueError):
            self.link.settimeout(seconds)
            return int(self.link.recv(100))
        return None

    def end(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_WR)
            self.link.settimeout(10)
            while self.link.recv(100):
                pass
        self.link.close()
        for descriptor in (self.cases, self.reports):
            os.close(descriptor)


def grade(
    submission: Submission,
    assignment: Assignment,
    folder: Path,
    limits: Limits,
    workspace: Path,
    stop: threading.Event,
    workers: Workers,
) -> Record:
    """Grade one submission of a folder; whatever it does, and whatever befalls the grader, this returns a record.

    Raises:
        KeyboardInterrupt: ``stop`` was set meanwhile.
    """
    record = Record(submission.student, str(submission.path or ""), submission.digest, "missing", submission.problem)
    record.scores = {question.name: 0.0 for question in assignment.questions}
    if submission.problem:
        record.status = "unreadable" if submission.path else "missing"
        return record
    session, started = Session(assignment, record), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(dir=workspace, ignore_cleanup_errors=True) as home:
            (Path(home) / "cells.json").write_text(json.dumps(submission.cells), encoding="utf-8")
            hide = folders_to_hide(folder, assignment.path)
            record.status, record.reason = supervise(session, hide, limits, Path(home), stop, workers)
    except Exception as error:
        record.status = "crashed"
        record.reason = f"the grader failed, which is not the student's fault: {type(error).__name__}: {error}"
    record.seconds = round(time.monotonic() - started, 1)
    return record


def supervise(
    session: Session, hide: list[Path], limits: Limits, home: Path, stop: threading.Event, workers: Workers
) -> tuple[str, str]:
    """Have a worker run the cells in ``home``, then send it the cases; returns the status and its reason."""
    worker = Worker(workers, home, limits, hide)
    try:
        for event in worker.events(time.monotonic() + limits.seconds, stop):
            first = not session.executed
            session.take(event)
            if session.executed and first:
                threading.Thread(target=worker.send, args=(session,), daemon=True).start()
            if session.done:
                break
        return session.verdict(worker.exit_code(seconds=5) or 0, home / "stderr")
    except TimeoutError:
        return "timeout", f"stopped after {limits.seconds:g} s, {session.where}"
    finally:
        worker.end()


def _environment() -> dict[str, str]:
    """Only what Python needs; none of the instructor's tokens and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    python = {
        "PYTHONPATH": str(COURSE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "PYTHONBREAKPOINT": "0",  # breakpoint() waits for nobody
        "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS
    }
    return {**kept, **threads, **python, "TMPDIR": tempfile.gettempdir(), "HOME": tempfile.gettempdir()}


@functools.cache
def why_not_isolated() -> str | None:
    """Why this system offers no isolation; None where it does."""
    if sys.platform != "linux":
        return "only Linux has namespaces"
    probe = subprocess.run([sys.executable, "-I", isolation.__file__], capture_output=True, text=True)
    return None if probe.returncode == 0 else (probe.stderr.strip() or "the system refuses new namespaces")


def folders_to_hide(submissions: Path, autograder: Path) -> list[Path]:
    """What a submission has no business reading: the others' work, the hidden cases, solutions and their history."""
    wanted = {submissions.resolve(), autograder.resolve().parent, COURSE / "instructor", COURSE / ".git"}
    needed = [COURSE / "bncourse", Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())]
    wanted = {folder for folder in wanted if folder.is_dir() and not any(_within(need, folder) for need in needed)}
    return sorted(folder for folder in wanted if not any(_within(folder, other) for other in wanted - {folder}))


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)
