"""What is wrong with an argument of ``fit`` and ``evaluate`` is said before anything happens."""

import copy

import pytest
import torch
from torch import nn

from bncourse.training import evaluate, fit

X, Y = torch.randn(20, 4), torch.arange(20) % 3


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"train": (X, Y[:15])}, ValueError, "train has 20 images and 15 labels"),
        ({"train": (X[:15], Y)}, ValueError, "train has 15 images and 20 labels"),
        ({"test": (X, Y[:15])}, ValueError, "test has 20 images and 15 labels"),
        ({"test": (X[:0], Y[:0])}, ValueError, "test is empty"),
        ({"test": X}, TypeError, "test is Tensor; expected a pair"),
        ({"train": (X,)}, TypeError, "train is Tensor; expected a pair"),
        ({"train": (X.numpy(), Y)}, TypeError, "train is ndarray, Tensor; expected a pair"),
        ({"train": (X[:4], Y[:4])}, ValueError, "train has 4 examples"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"epochs": 1.5}, TypeError, "epochs=1.5"),
        ({"batch_size": 2.5}, TypeError, "batch_size=2.5"),
        ({"accumulate": "2"}, TypeError, "accumulate='2'"),
        ({"seed": 1.7}, TypeError, "seed=1.7"),
        ({"seed": 2**64}, ValueError, "seed=18446744073709551616 .*64 bits"),
        ({"optimizer": "rmsprop"}, ValueError, "optimizer='rmsprop'"),
        ({"optimizer": None}, TypeError, "optimizer=None"),
        ({"on_step": 3}, TypeError, "on_step=3"),
        ({"learning_rate": -1.0}, ValueError, "learning rate: -1"),
    ],
)
def test_fit_refuses_before_it_touches_the_model(arguments, error, named):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=named):
        fit(model, **({"train": (X, Y), "epochs": 1, "batch_size": 8} | arguments))
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert not model.training


@pytest.mark.parametrize(
    ("examples", "batch_size", "error", "named"),
    [
        ((X, Y[:15]), 6, ValueError, "examples has 20 images and 15 labels"),
        ((X[:0], Y[:0]), 6, ValueError, "examples is empty"),
        (X, 6, TypeError, "examples is Tensor"),
        ((X, Y), 0, ValueError, "batch_size=0"),
        ((X, Y), 1.5, TypeError, "batch_size=1.5"),
    ],
)
def test_evaluate_names_what_is_wrong(examples, batch_size, error, named):
    with pytest.raises(error, match=named):
        evaluate(nn.Linear(4, 3), examples, batch_size)
