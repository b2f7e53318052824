"""The process that runs one submission: first the student's cells, then the cases, which arrive only then.

Started by ``bncourse.grading.supervise`` in an empty folder of its own, with ``cells.json`` in it. It reports on what
was its standard output, one line of JSON at a time.
"""

import builtins
import contextlib
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from bncourse.exercises import EXERCISES, CheckFailed
from bncourse.exercises.compare import CaseFailed
from bncourse.exercises.exercise import isolated_rng

MEGABYTE = 1 << 20
TORCH = str(Path(torch.__file__).parent)
GUARDED = (torch, torch.nn, torch.nn.functional, torch.nn.init, torch.autograd, torch.testing, torch.linalg)


class TimeLimit(BaseException):
    """Raised in a cell or a case that took too long; no ``except Exception`` stops it."""


def main() -> None:
    seconds, megabytes = map(float, sys.argv[1:])
    limits = {  # they also hold for what a submission starts
        resource.RLIMIT_DATA: megabytes * MEGABYTE,
        resource.RLIMIT_FSIZE: 100 * MEGABYTE,
        resource.RLIMIT_CPU: 2 * seconds,  # ends a loop even where the grader was killed
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some
            resource.setrlimit(kind, (int(value), int(value)))
    cases_from, reports = os.fdopen(os.dup(0), "rb"), os.dup(1)  # out of the reach of input(), print() and children
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)

    def report(**content: Any) -> None:
        os.write(reports, json.dumps(content).encode() + b"\n")

    torch.set_num_threads(1)
    guard = TamperGuard()
    signal.signal(signal.SIGALRM, _out_of_time)
    with open("cells.json") as file:
        cells = json.load(file)
    namespace = run_cells(cells, seconds / 3, report)
    torch.set_default_dtype(torch.float32)
    report(event="executed", changed=guard.restore())

    message = json.loads(cases_from.readline())
    for question in message["questions"]:
        outcomes = [run_case(case, namespace, seconds / 10) for case in question["cases"]]
        late = guard.restore()
        report(event="question", token=message["token"], name=question["name"], outcomes=outcomes, changed=late)
    os._exit(0)  # whatever threads a submission left


def run_cells(cells: list[str], seconds: float, report: Callable[..., None]) -> dict[str, Any]:
    """Run the cells in order, as IPython would, and go on after an error. Returns the names they defined."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance()
    for number, source in enumerate(cells, 1):
        report(event="cell", number=number)
        with _time_limit(seconds):
            result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and not isinstance(error, CheckFailed):
            report(event="error", number=number, kind=_kind(error), message=_describe(error))
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
        return _failed(_describe(error), kind=_kind(error))
    return {"passed": True, "message": "", "hint": "", "kind": ""}


def _failed(message: str, hint: str = "", kind: str = "") -> dict[str, Any]:
    return {"passed": False, "message": message[:1000], "hint": hint[:1000], "kind": kind}


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
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


class TamperGuard:
    """Remembers torch, the exercises and Python's built-ins as they are when it is made.

    ``restore`` puts back what has been replaced since, and returns the names of it.
    """

    def __init__(self) -> None:
        modules = [*GUARDED, *(module for name, module in sys.modules.items() if name.startswith("bncourse."))]
        classes = [value for module in modules for value in vars(module).values() if _is_guarded_class(value)]
        owners = dict.fromkeys([builtins, torch.Tensor, torch.autograd.Function, torch.nn.Module, *modules, *classes])
        self.attributes = [
            (owner, name, value)
            for owner in owners
            for name, value in vars(owner).items()
            if (callable(value) or isinstance(value, dict | list | tuple)) and not _is_internal(name)
        ]
        functions = [value for *_, value in self.attributes if isinstance(value, FunctionType)]
        self.codes = {f: (f.__code__, f.__defaults__) for f in functions if f.__module__.startswith("bncourse.")}
        self.exercises = {name: (exercise, list(exercise.cases)) for name, exercise in EXERCISES.items()}
        self.cases = [(case, deepcopy(vars(case))) for _, cases in self.exercises.values() for case in cases]

    def restore(self) -> list[str]:
        changed = set()
        for owner, name, value in self.attributes:
            now = vars(owner).get(name)
            if now is not value and not _wrapped_by_torch(value, now):
                changed.add(f"{_name(owner)}.{name}")
                setattr(owner, name, value)
        for function, (code, defaults) in self.codes.items():
            if function.__code__ is not code or function.__defaults__ is not defaults:
                changed.add(f"{function.__module__}.{function.__qualname__}")
                function.__code__, function.__defaults__ = code, defaults
        for case, original in self.cases:
            vars(case).update(deepcopy(original))
        for name, (exercise, cases) in self.exercises.items():
            if exercise.cases != cases or EXERCISES.get(name) is not exercise:
                changed.add(f"bncourse.exercises.EXERCISES[{name!r}]")
                exercise.cases = list(cases)
                EXERCISES[name] = exercise
        return sorted(changed)


def _is_guarded_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__.startswith(("torch.nn.modules", "bncourse."))


def _is_internal(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in ("__init__", "__call__", "__getattr__")


def _wrapped_by_torch(before: Any, now: Any) -> bool:
    """Whether torch itself put a wrapper around its function, as torch.compile's machinery does when it is loaded."""
    code = getattr(now, "__code__", None)
    return code is not None and getattr(now, "__wrapped__", None) is before and code.co_filename.startswith(TORCH)


def _name(owner: ModuleType | type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__


if __name__ == "__main__":
    main()
