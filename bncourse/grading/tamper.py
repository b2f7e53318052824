"""What a submission replaced, and the originals put back before its answers are judged."""

import builtins
import sys
from copy import deepcopy
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from bncourse.exercises import EXERCISES

TORCH = str(Path(torch.__file__).parent)
GUARDED = (torch, torch.nn, torch.nn.functional, torch.nn.init, torch.autograd, torch.testing, torch.linalg)


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
