"""The processes that run submissions: one that has imported everything, and a fork of it for each submission.

``bncourse.grading.supervise`` starts this module once. It waits for work; for each piece it forks a guardian, and the
guardian forks the submission's own process, isolated where the system allows it. That one runs the student's cells,
then the cases, which arrive only then, and reports one line of JSON at a time. The guardian tells how it ended, and
ends whatever it left running.
"""

import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bncourse.exercises import CheckFailed
from bncourse.exercises.compare import CaseFailed
from bncourse.exercises.exercise import describe, isolated_rng
from bncourse.grading import isolation
from bncourse.grading.shell import ZMQInteractiveShell
from bncourse.grading.tamper import TamperGuard

MEGABYTE = 1 << 20
DESCRIPTORS = 4  # that come with a piece of work: its link, the cases, the reports, and its standard error


class TimeLimit(BaseException):
    """Raised in a cell or a case that took too long; no ``except Exception`` stops it."""


def main() -> None:
    """Serve until the grader closes the socket that is standard input."""
    torch.set_num_threads(1)
    import_compiler()
    guard = TamperGuard()
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guardians that ended need no waiting for
    gc.freeze()  # no fork collects, and so copies, what all share
    while True:
        begin, descriptors, *_ = socket.recv_fds(control, 1, DESCRIPTORS)
        if not begin:
            return
        if os.fork() == 0:
            control.close()
            try:
                watch(*descriptors, guard=guard)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)


def import_compiler() -> None:
    """An optimizer imports it, and a norm much of it: up to two seconds of each submission.

    It makes a folder for what it compiles, and a variable with its name: no two submissions may share them.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        importlib.import_module("torch._dynamo")
    del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def watch(link: int, cases: int, reports: int, errors: int, guard: TamperGuard) -> None:
    """Be the guardian of one submission: start its process, end it when told, tell its exit code, leave nothing."""
    isolation.die_with_parent()
    isolation.adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=link) as talk:
        work = json.loads(talk.makefile("rb").readline())
        if work["isolated"]:
            isolation.detach()
        child = os.fork()
        if child == 0:
            talk.close()
            with contextlib.suppress(BaseException):
                run_submission(work, cases, reports, errors, guard)
            os._exit(1)
        for descriptor in (cases, reports, errors):
            os.close(descriptor)
        code = None
        while code is None:
            told_to_end = bool(select.select([talk], [], [], 0.02)[0])
            if told_to_end:
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0 if told_to_end else os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
        end_descendants()
        with contextlib.suppress(OSError):  # the grader is gone
            talk.sendall(b"%d" % code)
    os._exit(0)


def end_descendants() -> None:
    """End what a submission left running. In a namespace of its own nothing is left; elsewhere orphans are ours now."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent(path) == os.getpid()]
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def parent(stat: Path) -> int | None:
    """The parent of a process, from its file in /proc; None if it is gone."""
    try:
        return int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return None


def run_submission(work: dict[str, Any], cases: int, reports: int, errors: int, guard: TamperGuard) -> None:
    """Run cells and cases in a process of their own, within limits; does not return."""
    isolation.die_with_parent()
    os.setsid()
    if work["isolated"]:
        isolation.enter(work["hide"])
    os.dup2(errors, 2)
    os.close(errors)
    for descriptor in (cases, reports):  # out of the reach of input(), print() and children
        os.set_inheritable(descriptor, False)
    seconds, home = work["seconds"], work["home"]
    limits = {  # they also hold for what a submission starts
        resource.RLIMIT_DATA: work["megabytes"] * MEGABYTE,
        resource.RLIMIT_FSIZE: 100 * MEGABYTE,
        resource.RLIMIT_CPU: 2 * seconds,  # ends a loop even where the grader was killed
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some
            resource.setrlimit(kind, (int(value), int(value)))
    os.chdir(home)
    os.environ |= {"HOME": home, "TMPDIR": home, "IPYTHONDIR": f"{home}/ipython", "PWD": home}
    tempfile.tempdir = None
    sys.path[0] = ""  # as in a kernel: the notebook's own folder
    dumps, write = json.dumps, os.write

    def report(**content: Any) -> None:
        write(reports, dumps(content).encode() + b"\n")

    with open("cells.json", encoding="utf-8") as file:
        cells = json.load(file)
    namespace = run_cells(cells, seconds / 3, report)
    torch.set_default_dtype(torch.float32)
    report(event="executed", changed=guard.restore())

    message = json.loads(os.fdopen(cases, "rb").readline())
    for question in message["questions"]:
        outcomes = [run_case(case, namespace, seconds / 10) for case in question["cases"]]
        late = guard.restore()
        report(event="question", token=message["token"], name=question["name"], outcomes=outcomes, changed=late)
    os._exit(0)  # whatever threads a submission left


def run_cells(cells: list[str], seconds: float, report: Callable[..., None]) -> dict[str, Any]:
    """Run the cells in order, as a kernel would, and go on after an error. Returns the names they defined."""
    shell = ZMQInteractiveShell.instance()
    sys.stdout = sys.stderr = None  # repaired: what cells print goes nowhere
    shell.repair()
    for number, source in enumerate(cells, 1):
        report(event="cell", number=number)
        try:
            with _time_limit(seconds):
                errors = shell.execute(source)
        except TimeLimit as error:  # between two statements of ours
            errors = [error]
        for error in errors:
            if not isinstance(error, CheckFailed):
                report(event="error", number=number, kind=_kind(error), message=_described(error))
    return shell.user_ns


def run_case(source: str, namespace: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run one case against the names that the notebook defined."""
    definitions: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}  # as in the notebooks
    exec(source, definitions)
    function = next(value for value in reversed(definitions.values()) if inspect.isfunction(value))
    names = list(inspect.signature(function).parameters)
    missing = [name for name in names if name not in namespace]
    if missing:
        return _failed(f"the notebook does not define {' and '.join(missing)}")
    if any(namespace[name] is ... for name in names):
        return _failed("not answered yet")
    try:
        with _time_limit(seconds), isolated_rng():
            function(*(namespace[name] for name in names))
    except TimeLimit:
        return _failed(f"stopped after {seconds:g} s", kind="timeout")
    except CaseFailed as failure:
        return _failed(failure.message, failure.hint or "")
    except BaseException as error:
        return _failed(_described(error), kind=_kind(error))
    return {"passed": True, "message": "", "hint": "", "kind": ""}


def _failed(message: str, hint: str = "", kind: str = "") -> dict[str, Any]:
    return {"passed": False, "message": message[:1000], "hint": hint[:1000], "kind": kind}


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    signal.signal(signal.SIGALRM, _out_of_time)  # again: a cell may have changed it
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again every second, if it is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _out_of_time(*_: Any) -> None:
    raise TimeLimit("it took too long")


def _described(error: BaseException) -> str:
    """The error in one line; its own text may be a program that never ends."""
    try:
        with _time_limit(1.0):
            return describe(error)
    except TimeLimit:
        return "an error whose text takes too long"


def _kind(error: BaseException) -> str:
    """Whether an error means that time or memory ran out: "timeout", "memory" or ""."""
    if isinstance(error, TimeLimit):
        return "timeout"
    text = _described(error).lower() if isinstance(error, RuntimeError) else ""
    out = "allocate memory" in text or "not enough memory" in text or ("enforce fail" in text and "alloc" in text)
    return "memory" if out or isinstance(error, MemoryError) else ""


if __name__ == "__main__":
    main()
