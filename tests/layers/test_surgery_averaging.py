"""Averaged weights with averaged statistics, against the averages of what the training went through."""

import copy

import pytest
import torch
from torch import nn

from bncourse.surgery import average, freeze, recalibrate


def history(decay):
    """A model after each of 5 steps, the average that followed them, and its data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), freeze(nn.BatchNorm1d(2)))
    model.double()
    averaged, states = average(model, decay), []
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    x = torch.randn(64, 4, dtype=torch.float64)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        averaged.update_parameters(model)
        states.append(copy.deepcopy(model.state_dict()))
    return states, averaged, x


@pytest.mark.parametrize("decay", [None, 0.7])
def test_every_floating_point_tensor_is_averaged_and_counters_are_the_models(decay):
    states, averaged, _ = history(decay)
    shares = torch.full((5,), 0.2) if decay is None else 0.3 * 0.7 ** torch.arange(4.0, -1, -1)
    if decay is not None:
        shares[0] = 0.7**4  # the first update is a copy
    for name, value in averaged.module.state_dict().items():
        values = torch.stack([state[name] for state in states])
        if value.is_floating_point():
            expected = (values * shares.to(values).view(-1, *[1] * (values.dim() - 1))).sum(0)
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
        else:
            assert value == values[-1] and name.endswith("num_batches_tracked")


def test_behind_a_linear_layer_the_averaged_mean_is_that_of_the_averaged_weights():
    """torch's default leaves the last weights' there; for the variance, recalibration is exact."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=1.0))
    ours, theirs = average(model), torch.optim.swa_utils.AveragedModel(model)
    x = torch.randn(64, 4)
    for _ in range(4):
        model[0].weight.data.normal_()
        model(x)
        for averaged in (ours, theirs):
            averaged.update_parameters(model)
    population = ours.module[0](x)
    torch.testing.assert_close(ours.module[1].running_mean, population.mean(0))
    assert (theirs.module[1].running_mean - population.mean(0)).abs().max() > 0.05
    recalibrate(ours, [x])
    torch.testing.assert_close(ours.module[1].running_var, population.var(0, correction=0))


def test_decay_is_checked():
    for decay in (1.0, -0.1):
        with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
            average(nn.Linear(1, 1), decay)
