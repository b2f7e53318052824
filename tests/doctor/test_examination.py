"""The examination leaves everything as it was, whatever model it meets."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bncourse.doctor import diagnose, watch
from bncourse.models import small_cnn


def state_of(model):
    """All that a model is: values, modes, gradients, hooks, and the random numbers to come."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: None if value.grad is None else value.grad.clone() for name, value in model.named_parameters()},
        [value.requires_grad for value in model.parameters()],
        sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class Draws(nn.Module):
    """It draws numbers of all kinds and calls the original from a copy."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.calls = 0
        norm = self.norm
        self.original = lambda x: norm.train()(x)

    def forward(self, x):
        self.calls += 1
        return self.original(self.norm(x)) + random.random() + np.random.rand() + torch.rand(1)  # noqa: NPY002


class NotCopied(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.computed = self.scale * 2  # no leaf: deepcopy refuses
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x) * self.computed


MODELS = {
    "torch": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(3)
    ),
    "ours": lambda: small_cnn(),
    "draws": Draws,
    "not copied": NotCopied,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_to_the_bit(name, training):
    model = MODELS[name]()
    x = torch.randn(8, 3, 16, 16)
    if name == "torch":
        model(x)
    model.train(training)
    sum(value.sum() for value in model.parameters()).backward()
    before = state_of(model)
    diagnose(model, [(x, torch.zeros(8, dtype=torch.long)), x[:1]])
    assert same(before, state_of(model))
    if name == "draws":
        assert model.calls == 0


class Augmented(Dataset):
    """It draws numbers of all kinds, as augmentation does."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return torch.randn(3, 4, 4) + random.random() + np.random.rand(), index % 2  # noqa: NPY002


def test_a_shuffling_loader_takes_no_random_numbers_away():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    before = state_of(model)
    diagnose(model, DataLoader(Augmented(), 4, shuffle=True))
    assert same(before, state_of(model))


def test_a_model_that_fails_is_left_too():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(5, 1))
    x = torch.randn(4, 3, 2, 2)
    before = state_of(model)
    with pytest.raises(ValueError, match="batch must fit the model, which raised"):
        diagnose(model, x)
    assert same(before, state_of(model))


def train(model, optimizer):
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()


def test_watching_changes_nothing_and_takes_its_hooks_away():
    ends = []
    for looked_at in (False, True):
        torch.manual_seed(1)
        model = small_cnn()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        if looked_at:
            with pytest.raises(KeyError), watch(model, optimizer) as diagnosis:
                train(model, optimizer)
                raise KeyError
            assert diagnosis.examined.endswith("watched for 2 forward passes and 2 steps")
        else:
            train(model, optimizer)
        ends.append((state_of(model), len(optimizer._optimizer_step_post_hooks)))
    assert same(*ends)
