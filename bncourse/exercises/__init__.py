"""Exercises that correct the learner: ``check("name", answer)`` says what is wrong, and why it usually is.

There is one module for each notebook of ``book/exercises``, under its name.
"""

from typing import Any

from bncourse.exercises import (
    backward_and_deployment,
    blocks_and_variants,
    bug_zoo,
    normalizing_a_batch,
    training_and_inference,
)
from bncourse.exercises.exercise import Case, CheckFailed, Exercise

__all__ = ["EXERCISES", "Case", "CheckFailed", "Exercise", "check", "run_case"]

SETS = (normalizing_a_batch, training_and_inference, blocks_and_variants, bug_zoo, backward_and_deployment)
EXERCISES = {exercise.name: exercise for exercises in SETS for exercise in exercises.EXERCISES}


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
        CaseFailed: if it fails, with what is wrong and the usual mistake behind it.
        KeyError: if there is no exercise, or no case, of that name.
    """
    cases = {case.name: case for case in _exercise(name).cases}
    if case not in cases:
        raise KeyError(f"case of {name!r} must be one of {', '.join(map(repr, cases))}, got {case!r}")
    cases[case].run(answer)


def _exercise(name: str) -> Exercise:
    if name not in EXERCISES:
        raise KeyError(f"name must be one of {', '.join(EXERCISES)}, got {name!r}")
    return EXERCISES[name]
