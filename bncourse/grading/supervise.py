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
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bncourse
from bncourse.grading.assignment import Assignment
from bncourse.grading.report import Outcome, Record
from bncourse.grading.submissions import Submission

COURSE = Path(bncourse.__file__).resolve().parents[1]
SIGNALS = {number.value: number.name for number in signal.Signals}
REPORT_LIMIT = 20 << 20  # bytes; what an honest submission reports is a thousandth of it
NAMESPACES = ("unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# Loopback up, each hidden folder covered; then every capability is given up, so that nothing can be uncovered again.
ENTER = """
ip link set lo up 2>/dev/null
while [ "$1" != -- ]; do mount -t tmpfs -o size=4k,mode=555 none "$1" || exit 1; shift; done; shift
exec setpriv --bounding-set=-all --no-new-privs "$@"
"""
DIE_WITH_GRADER = ("setpriv", "--pdeathsig", "KILL")


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
            name = SIGNALS.get(-code) or SIGNALS.get(code - 128)  # the second where a shell or unshare passed it on
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


def grade(
    submission: Submission, assignment: Assignment, folder: Path, limits: Limits, workspace: Path, stop: threading.Event
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
            (Path(home) / "cells.json").write_text(json.dumps(submission.cells))
            hide = folders_to_hide(folder, assignment.path)
            record.status, record.reason = supervise(session, hide, limits, Path(home), stop)
    except Exception as error:
        record.status = "crashed"
        record.reason = f"the grader failed, which is not the student's fault: {type(error).__name__}: {error}"
    record.seconds = round(time.monotonic() - started, 1)
    return record


def supervise(session: Session, hide: list[Path], limits: Limits, home: Path, stop: threading.Event) -> tuple[str, str]:
    """Have the worker run the cells in ``home``, then send it the cases; returns the status and its reason."""
    command = [sys.executable, "-m", "bncourse.grading.worker", str(limits.seconds), str(limits.megabytes)]
    with open(home / "stderr", "wb") as stderr:
        process = subprocess.Popen(
            wrap(command, hide),
            cwd=home,
            env=_environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        for event in _events(process, time.monotonic() + limits.seconds, stop):
            first = not session.executed
            session.take(event)
            if session.executed and first:
                threading.Thread(target=_send, args=(process, session), daemon=True).start()
            if session.done:
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        return session.verdict(process.returncode or 0, home / "stderr")
    except TimeoutError:
        return "timeout", f"stopped after {limits.seconds:g} s, {session.where}"
    finally:
        _end(process, home)


def _environment(home: Path) -> dict[str, str]:
    """Only what Python needs; none of the instructor's tokens and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    python = {
        "PYTHONPATH": str(COURSE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**kept, **threads, **python, "HOME": str(home), "TMPDIR": str(home), "IPYTHONDIR": str(home / "ipython")}


def _events(process: subprocess.Popen, deadline: float, stop: threading.Event) -> Iterator[dict[str, Any]]:
    """The worker's reports until it closes its end. Raises TimeoutError at the deadline."""
    descriptor, buffer, received = process.stdout.fileno(), b"", 0
    while True:
        if stop.is_set():
            raise KeyboardInterrupt
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        if not select.select([descriptor], [], [], min(remaining, 0.5))[0]:
            continue
        block = os.read(descriptor, 1 << 16)
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


def _send(process: subprocess.Popen, session: Session) -> None:
    questions = [{"name": q.name, "cases": [case.source for case in q.cases]} for q in session.assignment.questions]
    with contextlib.suppress(OSError):  # it is gone; its silence tells
        process.stdin.write(json.dumps({"token": session.token, "questions": questions}).encode() + b"\n")
        process.stdin.flush()


def _end(process: subprocess.Popen, home: Path) -> None:
    """End the process and what it started: its namespace; without one, its session and whatever carries its HOME."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for environment in Path("/proc").glob("[0-9]*/environ") if why_not_isolated() else []:
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
    process.stdout.close()
    with contextlib.suppress(OSError):
        process.stdin.close()


@functools.cache
def why_not_isolated() -> str | None:
    """Why this system offers no isolation; None where it does."""
    missing = [program for program in ("unshare", "setpriv", "mount") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} must be installed (on Linux, package util-linux)"
    probe = subprocess.run(_isolated(["true"], []), capture_output=True, text=True)
    return None if probe.returncode == 0 else (probe.stderr.strip() or "the system refuses new namespaces")


def wrap(command: list[str], hide: Iterable[Path]) -> list[str]:
    """The command, isolated where that is possible; either way it dies with the grader where setpriv exists."""
    if why_not_isolated() is None:
        command = _isolated(command, hide)
    return [*DIE_WITH_GRADER, *command] if shutil.which("setpriv") else command


def _isolated(command: list[str], hide: Iterable[Path]) -> list[str]:
    return [*NAMESPACES, "sh", "-c", ENTER, "sh", *map(str, hide), "--", *command]


def folders_to_hide(submissions: Path, autograder: Path) -> list[Path]:
    """What a submission has no business reading: the others' work, the hidden cases, solutions and their history."""
    wanted = {submissions.resolve(), autograder.resolve().parent, COURSE / "instructor", COURSE / ".git"}
    needed = [COURSE / "bncourse", Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())]
    wanted = {folder for folder in wanted if folder.is_dir() and not any(_within(need, folder) for need in needed)}
    return sorted(folder for folder in wanted if not any(_within(folder, other) for other in wanted - {folder}))


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)
