"""The process that runs one submission: first the student's cells, then the cases, which arrive only then.

Started by `bncourse.grading.supervise` in an empty folder of its own, with `cells.json` in it. It reports line by line,
as JSON, on the file descriptor it is given.
"""

import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MEGABYTE = 1 << 20


class TimeLimit(BaseException):
    """Raised in a cell or a case that took too long; no `except Exception` stops it."""


def main() -> None:
    reports, megabytes, seconds, cell_seconds, case_seconds = int(sys.argv[1]), *map(float, sys.argv[2:])
    # Limits come first, so that they also hold for torch and for every process that a submission starts.
    limit(resource.RLIMIT_DATA, megabytes * MEGABYTE)
    limit(resource.RLIMIT_FSIZE, 100 * MEGABYTE)
    limit(resource.RLIMIT_CPU, 2 * seconds)  # ends a loop even where the grader was killed
    limit(resource.RLIMIT_CORE, 0)
    os.set_inheritable(reports, False)
    cases_from = os.fdopen(os.dup(0), "rb")  # out of the reach of input() and of child processes
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    report = Reporter(reports)

    import torch

    import bncourse.exercises  # noqa: F401 (what the watch guards)
    from bncourse.grading.tampering import Watch

    torch.set_num_threads(1)
    watch = Watch()
    signal.signal(signal.SIGALRM, _out_of_time)
    with open("cells.json") as file:
        cells = json.load(file)
    namespace = run_cells(cells, cell_seconds, report)
    torch.set_default_dtype(torch.float32)
    report(event="executed", changed=watch.restore())

    message = json.loads(cases_from.readline())
    for question in message["questions"]:
        outcomes = [run_case(case["source"], namespace, case_seconds) for case in question["cases"]]
        late = watch.restore()
        report(event="question", token=message["token"], name=question["name"], outcomes=outcomes, changed=late)
    report(event="done", token=message["token"])
    os._exit(0)  # whatever threads a submission left


def limit(kind: int, value: float) -> None:
    """Set a resource limit, as far as the system knows it."""
    try:
        resource.setrlimit(kind, (int(value), int(value)))
    except (OSError, ValueError):
        pass  # macOS refuses some


class Reporter:
    """Writes one line of JSON per call."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __call__(self, **content: Any) -> None:
        os.write(self.descriptor, json.dumps(content).encode() + b"\n")


def run_cells(cells: list[str], seconds: float, report: Callable[..., None]) -> dict[str, Any]:
    """Run the cells in order, as IPython would, and go on after an error. Returns the names they defined."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance()
    for number, source in enumerate(cells, 1):
        report(event="cell", number=number)
        with _limit(seconds):
            result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            kind = _kind(error)
            if kind or type(error).__name__ != "CheckFailed":
                report(event="error", number=number, kind=kind, message=_describe(error))
    return shell.user_ns


def run_case(source: str, namespace: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run one case against the names that the notebook defined."""
    import torch

    from bncourse.exercises.compare import CaseFailed
    from bncourse.exercises.exercise import isolated_rng

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
        with _limit(seconds), isolated_rng():
            function(*(namespace[name] for name in names))
    except TimeLimit:
        return _failed(f"stopped after {seconds:g} s", kind="timeout")
    except CaseFailed as wrong:
        return _failed(wrong.message, wrong.hint)
    except BaseException as error:
        return _failed(_describe(error), kind=_kind(error))
    return {"passed": True, "message": "", "hint": None, "kind": ""}


def _failed(message: str, hint: str | None = None, kind: str = "") -> dict[str, Any]:
    return {"passed": False, "message": message[:1000], "hint": hint and hint[:1000], "kind": kind}


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again every second, if it is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _out_of_time(*_: Any) -> None:
    raise TimeLimit("it took too long")


def _kind(error: BaseException) -> str:
    """Whether an error means that time or memory ran out: "timeout", "memory" or ""."""
    if isinstance(error, TimeLimit):
        return "timeout"
    text = str(error).lower()
    out = "allocate memory" in text or "not enough memory" in text or ("enforce fail" in text and "alloc" in text)
    return "memory" if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out) else ""


def _describe(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


if __name__ == "__main__":
    main()
