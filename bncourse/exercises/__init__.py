"""Exercises that correct the learner: ``check("name", answer)`` says what is wrong, and why it usually is.

There is one module for each notebook of ``book/exercises``, under its name.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from bncourse.exercises import (
    backward_and_deployment,
    blocks_and_variants,
    bug_zoo,
    experiments_and_intervals,
    learner,
    many_devices_and_fast_layers,
    normalizing_a_batch,
    training_and_inference,
)
from bncourse.exercises.exercise import Case, CheckFailed, Exercise

__all__ = ["EXERCISES", "Case", "CheckFailed", "Exercise", "check", "check_all", "progress", "run_case"]

ANSWERS = {  # what the notebooks call the answers
    "signal": ("output_std",),
    "standardize": ("standardize",),
    "batch-norm": ("batch_norm",),
    "identity": ("undo",),
    "running-statistics": ("update",),
    "warm-up": ("steps_until",),
    "evaluate": ("accuracy",),
    "batch-noise": ("mean_noise",),
    "conv-block": ("conv_block",),
    "norm-axes": ("batch_axes", "layer_axes", "instance_axes", "group_axes"),
    "group-norm": ("group_norm",),
    "batch-of-two": ("batch_of_two",),
    "accumulation": ("train_epoch",),
    "dropout-shift": ("variance_ratio",),
    **{exercise.name: (creature.__name__,) for exercise, creature in bug_zoo.CREATURES.items()},
    "zoo-bias": ("conv_norm_relu",),
    "zoo-residual": ("ResidualBlock",),
    "zoo-gradient-check": ("gradient_is_right",),
    "layer": ("BatchNorm",),
    "backward": ("backward",),
    "fold": ("fold",),
    "recalibrate": ("recalibrate",),
    "verdict": ("verdict",),
    "enough-seeds": ("enough_seeds",),
    "paired": ("paired_interval",),
    "forgotten-eval": ("forgotten_eval",),
    "race": ("race",),
    "merge-statistics": ("merge",),
    "loss-weights": ("loss_factors",),
    "kept-activations": ("kept",),
}
KEYS = {"norm-axes": ("batch", "layer", "instance", "group")}  # the answer is a dictionary

SETS = (
    *(normalizing_a_batch, training_and_inference, blocks_and_variants, bug_zoo, backward_and_deployment),
    *(experiments_and_intervals, many_devices_and_fast_layers),
)
EXERCISES = {exercise.name: exercise for exercises in SETS for exercise in exercises.EXERCISES}


def set_of(name: str) -> str:
    """The notebook that has an exercise, such as "ex-04-bug-zoo"."""
    number = next(n for n, exercises in enumerate(SETS, 1) if _exercise(name) in exercises.EXERCISES)
    return f"ex-{number:02}-{SETS[number - 1].__name__.rpartition('.')[2].replace('_', '-')}"


def check(name: str, answer: Any) -> None:
    """Check an answer and print a report of every case.

    Args:
        name: the exercise, as the notebook gives it: "batch-norm".
        answer: your function, class or value.

    Raises:
        CheckFailed: with the report, if a case fails. In a notebook only the report is shown.
        KeyError: if there is no exercise of that name.
    """
    exercise = _exercise(name)
    try:
        report = exercise.check(answer)
    except CheckFailed as failure:
        learner.remember(name, len(exercise.cases) - failure.failed, len(exercise.cases))
        raise
    learner.remember(name, len(exercise.cases), len(exercise.cases))
    print(report)
    parts = [answer[key] for key in KEYS[name]] if name in KEYS else [answer]
    if other := [e for e, part in zip(ANSWERS[name], parts, strict=True) if not learner.is_graded(part, e)]:
        print(f"{name} passes, but it will not be graded under this name: call it {' and '.join(other)}.")


def check_all(names: Mapping[str, Any] | None = None) -> None:
    """Check every exercise whose answer the notebook defines, and print a line for each, then ``progress()``.

    Args:
        names: the notebook's names, such as ``globals()``; those of the running notebook if it is left out.
    """
    defined = learner.notebooks_names(names)
    for name, answers in ANSWERS.items():
        if not any(answer in defined for answer in answers):
            continue
        exercise = EXERCISES[name]
        values = {key: defined.get(answer) for key, answer in zip(KEYS.get(name, answers), answers, strict=True)}
        try:
            exercise.check(values if name in KEYS else values[answers[0]])
            failed, said = 0, "all cases pass"
        except CheckFailed as failure:
            failed, said = failure.failed, str(failure).splitlines()[0].partition(": ")[2]
        learner.remember(name, len(exercise.cases) - failed, len(exercise.cases))
        print(f"  {'FAIL' if failed else 'ok  '}  {name}: {said}")
    progress()


def progress() -> None:
    """Print which exercises you have solved in this folder, their points, and what comes next.

    ``check`` keeps its results in the file ``.bncourse-progress.json`` beside the notebook; delete it to forget them.
    The points are those of the public cases; a person gives those for explanations.
    """
    kept, following = learner.results(), None
    for exercises in SETS:
        solved = [e for e in exercises.EXERCISES if kept.get(e.name, [0, 1])[0] >= len(e.cases)]
        points = sum(exercise.points for exercise in exercises.EXERCISES)
        print(f"{set_of(exercises.EXERCISES[0].name)}: {sum(e.points for e in solved)} of {points} points")
        for exercise in exercises.EXERCISES:
            passed, total = kept.get(exercise.name, [0, len(exercise.cases)])
            done = exercise in solved
            following = following or (None if done else exercise)
            state = "done" if done else f"{passed} of {total} cases" if exercise.name in kept else "to do"
            print(f"  {'✓' if done else ' '} {exercise.name:20} {exercise.points} points, {state}")
    if following is None:
        print("You have solved all of them.")
    else:
        print(f"Next: {following.name} ({following.title}), chapter {following.chapter}, {following.minutes} minutes.")


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
        near = difflib.get_close_matches(str(name), EXERCISES, 2, cutoff=0.3) or list(EXERCISES)[:2]
        raise KeyError(f"name must be that of an exercise, such as {' or '.join(map(repr, near))}, got {name!r}")
    return EXERCISES[name]
