"""An exercise is a list of named cases; checking an answer runs them all and reports in plain words."""

import dis
import functools
import random
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from bncourse.exercises.compare import CaseFailed

CaseFunction = Callable[[Any], None]
SEED = 1502_03167  # not one that the cases use for their inputs: a dropout mask from the same seed would depend on them
LIBRARIES = (str(Path(__file__).parents[1]), "site-packages", "dist-packages", "<frozen", "/lib/python3")


class CheckFailed(AssertionError):
    """An answer failed its check: ``failed`` cases of it. In a notebook only the report is shown, not a traceback."""

    def __init__(self, report: str, failed: int = 0):
        super().__init__(report)
        self.failed = failed

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


@dataclass(eq=False)
class Case:
    """One thing an answer is tested for: a name a learner understands, and a function that raises if it fails.

    The function gets the answer, and a copy of the inputs.
    """

    name: str
    test: Callable[..., None]
    inputs: tuple[Any, ...]
    options: dict[str, Any]

    def run(self, answer: Any) -> None:
        """Test an answer.

        Raises:
            CaseFailed: what is wrong with the answer, in plain words.
        """
        if is_unanswered(answer):
            raise CaseFailed("not answered yet")
        try:
            with isolated_rng():
                self.test(_on_the_cpu(answer), *deepcopy(self.inputs), **self.options)
        except CaseFailed:
            raise
        except NotImplementedError:
            raise CaseFailed("not answered yet") from None
        except Exception as error:
            raise CaseFailed(_explain(error)) from error


@dataclass(eq=False)
class Exercise:
    """A named task with its cases.

    Attributes:
        name: what ``check`` calls it.
        title: what the book calls it.
        chapter: the chapter it belongs to.
        minutes: how long it takes a student who has read the chapter.
        level: how hard it is; easy ones have 2 points, medium ones 3, hard ones 5.
        weights: of cases, by name, public or hidden, that count more than the others, which count once.
        cases: what an answer is tested for.
    """

    name: str
    title: str
    chapter: int
    minutes: int
    level: Literal["easy", "medium", "hard"]
    weights: dict[str, int] = field(default_factory=dict, repr=False)
    cases: list[Case] = field(default_factory=list, repr=False)

    @property
    def points(self) -> int:
        """What it is worth, with the explanation where there is one."""
        return {"easy": 2, "medium": 3, "hard": 5}[self.level]

    def add(self, name: str, test: Callable[..., None], *inputs: Any, **options: Any) -> None:
        """Add a case: a function of the answer and of these inputs."""
        self.cases.append(Case(name, test, inputs, options))

    def case(self, name: str) -> Callable[[CaseFunction], CaseFunction]:
        """Decorate a function of the answer alone as one of this exercise's cases."""

        def decorate(test: CaseFunction) -> CaseFunction:
            self.add(name, test)
            return test

        return decorate

    def check(self, answer: Any) -> str:
        """Run every case and return the report.

        Raises:
            CheckFailed: with the report, if a case fails.
        """
        failures = {}
        for case in self.cases:
            try:
                case.run(answer)
            except CaseFailed as failure:
                failures[case.name] = failure
        report = self._report(failures)
        if failures:
            raise CheckFailed(report, len(failures))
        return report

    def _report(self, failures: dict[str, CaseFailed]) -> str:
        total = len(self.cases)
        if sum(failure.message == "not answered yet" for failure in failures.values()) == total:
            return f"{self.name}: not answered yet. Replace the ... above, run that cell, then this one."
        lines = [
            f"{self.name}: " + (f"{len(failures)} of {total} cases fail" if failures else f"all {total} cases pass")
        ]
        hints = set()
        for case in self.cases:
            failure = failures.get(case.name)
            lines.append(f"  {'FAIL' if failure else 'ok  '}  {case.name}")
            if failure:
                lines += _indented(failure.message)
            if failure and failure.hint:
                lines += _indented("Hint: the same as above." if failure.hint in hints else f"Hint: {failure.hint}")
                hints.add(failure.hint)
        return "\n".join(lines)


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Give the block fixed random numbers and torch's own settings on the CPU, then restore what was there before.

    The random state of torch (CPU and, where it is in use, GPU), numpy and Python is the same after as before, so
    that running a check once more or once less never changes a learner's results.
    """
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (the learner's global state)
    dtype = torch.get_default_dtype()
    with (
        torch.random.fork_rng(devices=gpus),
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        try:
            warnings.simplefilter("default")  # a warning is not an error here, whatever the notebook says
            torch.set_default_dtype(torch.float32)
            random.seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002
            torch.random.default_generator.manual_seed(SEED)
            yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def is_unanswered(answer: Any) -> bool:
    """Whether an answer is still what the notebook came with: None, ... or a function that has no body."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is None or answer is ...
    says_nothing = all(constant is None or isinstance(constant, str) for constant in code.co_consts)
    steps = {step.opname for step in dis.get_instructions(code)}
    return says_nothing and steps <= {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}


def _on_the_cpu(answer: Any) -> Any:
    """A learner's function whose results, and the models that it was given, are on the CPU when it has returned.

    On a GPU a learner takes both there. Any other answer stays as it is.
    """
    if isinstance(answer, type | nn.Module) or not callable(answer):
        return answer

    @functools.wraps(answer)
    def called(*inputs, **options):
        result = answer(*inputs, **options)
        for value in tree_leaves((inputs, options)):
            if isinstance(value, nn.Module):
                value.cpu()
        return tree_map_only((Tensor, nn.Module), lambda value: value.cpu(), result)

    return called


def _indented(text: str) -> list[str]:
    wrap = textwrap.TextWrapper(72, initial_indent=" " * 8, subsequent_indent=" " * 8).wrap
    return [part for line in text.splitlines() for part in wrap(line) or [""]]


def describe(error: BaseException) -> str:
    """The type of an error and the first line of its text, also where its class makes a mess of either."""
    try:
        name = str.__str__(type.__getattribute__(type(error), "__name__"))
    except BaseException:
        name = "an error of an odd class"
    try:
        lines = str.splitlines(str.strip(str(error)))
    except BaseException:
        lines = ["its text cannot be read"]
    return f"{name}: {lines[0][:300]}" if lines else f"{name}: no message"


def _explain(error: Exception) -> str:
    """What the learner's code raised, and on which of its lines."""
    message = f"your code raised {describe(error)}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(library in frame.filename for library in LIBRARIES):
            return f"{message}\nin line {frame.lineno} of {frame.name}: {frame.line}" if frame.line else message
    return message
