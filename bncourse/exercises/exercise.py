"""An exercise is a list of named cases; checking an answer runs them all and reports in plain words."""

import dis
import linecache
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bncourse.exercises.compare import Wrong
from bncourse.exercises.undisturbed import undisturbed

CaseFunction = Callable[[Any], None]
LIBRARIES = (str(Path(__file__).parents[1]), "site-packages", "dist-packages", "<frozen", "/lib/python3")


class CheckFailed(AssertionError):
    """An answer failed its check. In a notebook only the report is shown, not a traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


@dataclass(frozen=True)
class Case:
    """One thing an answer is tested for: a name a learner understands, and a function that raises if it fails."""

    name: str
    test: CaseFunction

    def run(self, answer: Any) -> Wrong | None:
        """Test an answer; return what is wrong with it, or None."""
        if is_unanswered(answer):
            return Wrong("not answered yet")
        try:
            with undisturbed():
                self.test(answer)
        except Wrong as wrong:
            return wrong
        except NotImplementedError:
            return Wrong("not answered yet")
        except Exception as error:
            return Wrong(_explain(error))
        return None


@dataclass(frozen=True)
class Exercise:
    """A named task with its cases.

    Attributes:
        name: what `check` calls it.
        title: what the book calls it.
        chapter: the chapter it belongs to.
        minutes: how long it takes a student who has read the chapter.
        level: how hard it is.
    """

    name: str
    title: str
    chapter: int
    minutes: int
    level: Literal["easy", "medium", "hard"]
    cases: list[Case] = field(default_factory=list, repr=False)

    def case(self, name: str) -> Callable[[CaseFunction], CaseFunction]:
        """Decorate a function as one of this exercise's cases."""

        def add(test: CaseFunction) -> CaseFunction:
            self.cases.append(Case(name, test))
            return test

        return add

    def check(self, answer: Any) -> str:
        """Run every case and return the report.

        Raises:
            CheckFailed: with the report, if a case fails.
        """
        outcomes = {case.name: case.run(answer) for case in self.cases}
        report = _report(self.name, outcomes)
        if any(outcomes.values()):
            raise CheckFailed(report)
        return report


def is_unanswered(answer: Any) -> bool:
    """Whether an answer is still what the notebook came with: None, ... or a function that has no body."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is None or answer is ...
    says_nothing = all(constant is None or isinstance(constant, str) for constant in code.co_consts)
    steps = {step.opname for step in dis.get_instructions(code)}
    return says_nothing and steps <= {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}


def _report(name: str, outcomes: dict[str, Wrong | None]) -> str:
    failed = sum(wrong is not None for wrong in outcomes.values())
    if all(wrong is not None and wrong.message == "not answered yet" for wrong in outcomes.values()):
        return f"{name}: not answered yet. Replace the ... above, run that cell, then this one."
    lines = [f"{name}: all {len(outcomes)} cases pass"]
    if failed:
        lines = [f"{name}: {failed} of {len(outcomes)} cases fail"]
    hints = set()
    for case, wrong in outcomes.items():
        lines.append(f"  {'ok  ' if wrong is None else 'FAIL'}  {case}")
        if wrong is not None:
            lines += _indented(wrong.message)
            if wrong.hint:
                lines += _indented("Hint: the same as above." if wrong.hint in hints else f"Hint: {wrong.hint}")
                hints.add(wrong.hint)
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        lines += textwrap.wrap(line, 88, initial_indent=" " * 8, subsequent_indent=" " * 8) or [""]
    return lines


def _explain(error: Exception) -> str:
    """What the learner's code raised, and on which of its lines."""
    message = f"your code raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(library in frame.filename for library in LIBRARIES):
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f"{message}\nin line {frame.lineno} of {frame.name}: {line}" if line else message
    return message
