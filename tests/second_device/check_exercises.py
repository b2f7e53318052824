"""On the second device: a learner takes the inputs there, and hands in what is there; every check says what it says."""

import functools
from pathlib import Path
from unittest.mock import patch

import pytest
import second_device
import torch
from fixed_creatures import FIXES, fixed
from torch import nn
from torch.utils._pytree import tree_map_only
from wrong_answers import WRONG

import bncourse.exercises
from bncourse.exercises import EXERCISES, CheckFailed, check

SOURCES = sorted((Path(__file__).resolve().parents[2] / "instructor").glob("ex-*.py"))


@functools.cache
def solutions() -> dict:
    """What the instructor's sources hand to ``check``, by exercise."""
    answers = {}
    with patch.object(bncourse.exercises, "check", answers.__setitem__):
        for source in SOURCES:
            exec(compile(source.read_text(encoding="utf-8"), source, "exec"), {})
    return answers | {name: fixed(name)[0] for name in FIXES}  # the sources say of the creatures what is replaced


def there(value):
    return tree_map_only((torch.Tensor, nn.Module), lambda part: part.to("pretend"), value)


def taken_there(answer):
    """The same answer as a learner writes it who works on the device: ``model.to(device)``, ``x.to(device)``."""
    if isinstance(answer, type) or not callable(answer):
        return there(answer)

    @functools.wraps(answer)
    def on_the_device(*inputs, **options):
        return there(answer(*there(inputs), **there(options)))

    return on_the_device


@pytest.fixture(autouse=True)
def nothing_late():
    yield
    assert not second_device.LATE


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_is_right(name):
    check(name, taken_there(solutions()[name]))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_is_right_where_all_that_is_made_is_made_there(name):
    torch.set_default_device("pretend")
    try:
        check(name, solutions()[name])
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("name", EXERCISES)
def test_wrong_answers_get_their_hints(name):
    for answer, hint in WRONG[name]:
        with pytest.raises(CheckFailed) as failure:
            check(name, taken_there(answer))
        assert hint in " ".join(str(failure.value).split())
