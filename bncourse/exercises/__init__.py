"""Exercises that correct the learner: `check("name", answer)` says what is wrong, and why it usually is."""

from typing import Any

from bncourse.exercises import batches, deployment, forward, modes, networks, zoo
from bncourse.exercises.exercise import Case, CheckFailed, Exercise

__all__ = ["EXERCISES", "Case", "CheckFailed", "Exercise", "check", "run_case"]

EXERCISES = {
    exercise.name: exercise
    for exercises in (forward, modes, networks, batches, zoo, deployment)
    for exercise in exercises.EXERCISES
}


def check(name: str, answer: Any) -> None:
    """Check an answer and print a report of every case.

    Args:
        name: the exercise, as the notebook gives it: "batch-norm".
        answer: your function, class or value.

    Raises:
        CheckFailed: with the report, if a case fails. In a notebook only the report is shown.
        KeyError: if there is no exercise of that name.
    """
    print(_exercise(name).check(answer))


def run_case(name: str, case: str, answer: Any) -> None:
    """Run one case of an exercise, as grading and tests do.

    Raises:
        Wrong: if it fails, with what is wrong and the usual mistake behind it.
        KeyError: if there is no exercise, or no case, of that name.
    """
    cases = {case.name: case for case in _exercise(name).cases}
    if case not in cases:
        raise KeyError(f"exercise {name!r} has no case {case!r}; it has {', '.join(map(repr, cases))}")
    wrong = cases[case].run(answer)
    if wrong is not None:
        raise wrong


def _exercise(name: str) -> Exercise:
    if name not in EXERCISES:
        raise KeyError(f"no exercise is called {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
