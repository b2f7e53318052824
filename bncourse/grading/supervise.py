"""Run one submission in a process of its own, within limits, and judge what came of it."""

import hashlib
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncourse.grading.assignment import Assignment
from bncourse.grading.isolation import folders_to_hide, wrap
from bncourse.grading.record import Outcome, Record, text, texts
from bncourse.grading.submissions import Submission, Unreadable, read_notebook

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


class Stopped(Exception):
    """The instructor stopped the run."""


def digest_of(submission: Submission, assignment: Assignment) -> str:
    """Changes whenever the notebook's code or the assignment does, so that a second run knows what is done."""
    try:
        content = "\n".join(read_notebook(submission.path)) if submission.path else submission.problem
    except (Unreadable, OSError) as error:
        content = str(error)
    return hashlib.sha256((assignment.digest + content).encode(errors="surrogatepass")).hexdigest()


def grade(
    submission: Submission, assignment: Assignment, folder: Path, limits: Limits, workspace: Path, stop: threading.Event
) -> Record:
    """Grade one submission; whatever it does, this returns a record.

    Raises:
        Stopped: if `stop` is set meanwhile.
    """
    record = Record(submission.student, str(submission.path or ""), digest_of(submission, assignment), "missing")
    record.scores = {question.name: 0.0 for question in assignment.questions}
    if submission.path is None:
        record.status = "unreadable" if "notebooks;" in submission.problem else "missing"
        record.reason = submission.problem
        return record
    started = time.monotonic()
    try:
        cells = read_notebook(submission.path)
    except (Unreadable, OSError) as error:
        record.status, record.reason = "unreadable", str(error)
        return record
    home = Path(tempfile.mkdtemp(dir=workspace))
    try:
        (home / "cells.json").write_text(json.dumps(cells))
        _supervise(record, assignment, folders_to_hide(folder, assignment.path), home, limits, stop)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    record.seconds = round(time.monotonic() - started, 1)
    return record


def _supervise(
    record: Record, assignment: Assignment, hide: list[Path], home: Path, limits: Limits, stop: threading.Event
) -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "bncourse.grading.worker", str(write_end)]
    command += [str(limits.megabytes), str(limits.seconds), str(limits.seconds / 3), str(limits.seconds / 10)]
    with open(home / "stderr", "wb") as stderr:
        process = subprocess.Popen(
            wrap(command, hide),
            cwd=home,
            env=_environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    token = secrets.token_hex()
    progress: dict[str, Any] = {"errors": []}
    try:
        for event in _events(read_end, time.monotonic() + limits.seconds, stop):
            if event.get("event") == "executed" and not progress.get("executed"):
                record.flags += texts(event.get("changed"))
                threading.Thread(target=_send, args=(process, token, assignment), daemon=True).start()
            _note(record, assignment, event, token, progress)
            if progress.get("done"):
                break
        _judge(record, progress, _exit_code(process), home / "stderr")
    except TimeoutError:
        where = f"in cell {progress['cell']}" if progress.get("cell") else "before the first cell"
        where = "while its answers were tested" if progress.get("executed") else where
        record.status, record.reason = "timeout", f"stopped after {limits.seconds:g} s, {where}"
    finally:
        os.close(read_end)
        _kill(process)
        _kill_leftovers(home)


def _environment(home: Path) -> dict[str, str]:
    """Only what Python needs; none of the instructor's tokens and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    quiet = {"MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **threads, **quiet, "HOME": str(home), "TMPDIR": str(home), "IPYTHONDIR": str(home / "ipython")}


def _events(descriptor: int, deadline: float, stop: threading.Event) -> Iterator[dict[str, Any]]:
    """The worker's reports until it closes its end. Raises TimeoutError at the deadline."""
    buffer, received = b"", 0
    while True:
        if stop.is_set():
            raise Stopped
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


def _send(process: subprocess.Popen, token: str, assignment: Assignment) -> None:
    questions = [
        {"name": question.name, "cases": [{"source": case.source} for case in question.cases]}
        for question in assignment.questions
    ]
    try:
        process.stdin.write(json.dumps({"token": token, "questions": questions}).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        pass  # it is gone; its silence tells


def _note(record: Record, assignment: Assignment, event: dict[str, Any], token: str, progress: dict[str, Any]) -> None:
    """Take in one report, as far as it has the form it should have."""
    kind = event.get("event")
    if kind == "cell":
        progress["cell"] = event.get("number")
    elif kind == "error":
        message = f"cell {event.get('number')}: {event.get('message')}"
        progress["errors"].append((str(event.get("kind")), text(message)[:400]))
    elif kind == "executed":
        progress["executed"] = True
    elif event.get("token") == token and kind == "done":
        progress["done"] = True
    elif event.get("token") == token and kind == "question":
        question = next((q for q in assignment.questions if q.name == event.get("name")), None)
        try:
            outcomes = [Outcome.from_report(outcome) for outcome in event["outcomes"]]
        except (KeyError, TypeError, AttributeError):
            return
        if question is None or len(outcomes) != len(question.cases):
            return
        record.flags += [name for name in texts(event.get("changed")) if name not in record.flags]
        record.outcomes[question.name] = outcomes
        record.scores[question.name] = question.score([outcome.passed for outcome in outcomes])


def _judge(record: Record, progress: dict[str, Any], code: int, stderr: Path) -> None:
    """Status and reason of a worker that closed its end of the pipe."""
    errors = list(progress["errors"])
    for question, outcomes in record.outcomes.items():
        errors += [(outcome.kind, f"{question}: {outcome.message}") for outcome in outcomes if outcome.kind]
    if not progress.get("done"):
        how = f"signal {signal.Signals(code - 128).name}" if code > 128 else f"exit code {code}"
        where = f"in cell {progress['cell']}" if progress.get("cell") else "before the first cell"
        where = "while its answers were tested" if progress.get("executed") else where
        last = stderr.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-1:] if code else []
        record.status, record.reason = (
            "crashed",
            f"the process ended with {how} {where}" + "".join(f": {x}" for x in last),
        )
        return
    for status in ("timeout", "memory"):
        found = [what for kind, what in errors if kind == status]
        if found:
            record.status, record.reason = status, f"{found[0]} (the rest was graded)"
            return
    record.status = "ok"
    record.reason = "; ".join(what for kind, what in errors if not kind)[:500]


def _exit_code(process: subprocess.Popen) -> int:
    """As a shell gives it: 128 + the signal for a process that a signal ended."""
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return 0
    return 128 - code if code < 0 else code


def _kill(process: subprocess.Popen) -> None:
    """End the process and everything it started in its session (with namespaces: everything)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if process.stdin:
        try:
            process.stdin.close()
        except OSError:
            pass


def _kill_leftovers(home: Path) -> None:
    """End what left the session, where no namespace held it: on Linux it still carries our HOME."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
        except OSError:
            continue  # gone, or somebody else's
