"""Recalibration against the moments of the whole data set, computed at once."""

import copy

import pytest
import torch
from torch import nn

from bncourse.layers import BatchNorm1d, BatchNorm2d, BatchRenorm, GhostBatchNorm
from bncourse.surgery import recalibrate

SORTED = torch.linspace(-3, 5, 60).reshape(60, 1).repeat(1, 4) + torch.randn(60, 4, generator=torch.Generator())


def statistics(layer):
    return torch.stack([layer.running_mean, layer.running_var]).double()


def population(x):
    x = x.double().transpose(0, 1).flatten(1)
    return torch.stack([x.mean(1), x.var(1, correction=0)])


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchNorm1d, BatchRenorm, lambda c: GhostBatchNorm(c, 2)])
@pytest.mark.parametrize("size", [60, 20, 7])
def test_unequal_and_sorted_batches_give_the_populations_moments(kind, size):
    layer = kind(4)
    recalibrate(layer, SORTED.split(size))
    torch.testing.assert_close(statistics(layer), population(SORTED), rtol=1e-5, atol=1e-5)


def test_torchs_update_bn_misses_the_variance_between_batches():
    ours, theirs = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    recalibrate(ours, SORTED.split(20))
    torch.optim.swa_utils.update_bn(SORTED.split(20), theirs)
    assert (theirs.running_var < 0.7 * ours.running_var).all()


def test_maps_are_pooled_over_space_and_every_layer_sees_what_it_will_see_in_evaluation():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6))
    images = torch.randn(30, 3, 8, 8)
    recalibrate(model, [images])
    model.eval()
    for first in (1, 4):
        inputs = model[:first](images)
        torch.testing.assert_close(statistics(model[first]), population(inputs), rtol=1e-4, atol=1e-4)


def test_the_model_is_otherwise_left_as_found():
    model = nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()
    model(torch.randn(8, 4)).sum().backward()
    before, gradient = copy.deepcopy(model), model[0].weight.grad.clone()
    recalibrate(model, [(torch.randn(8, 4), "labels")])
    for (name, was), now in zip(before.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(was, now) != name.endswith(("running_mean", "running_var")), name
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(model[0].weight.grad, gradient)


def test_dropout_is_off():
    model = nn.Sequential(nn.Dropout(0.5), BatchNorm1d(4))
    recalibrate(model, [SORTED])
    torch.testing.assert_close(statistics(model[1]), population(SORTED), rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_called_twice_pools_both_calls_and_one_that_is_not_called_keeps_its_statistics():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = BatchNorm1d(4), BatchNorm1d(4)

        def forward(self, x):
            return self.used(x) + self.used(x + 10)

    model = Twice()
    recalibrate(model, [SORTED])
    torch.testing.assert_close(
        statistics(model.used), population(torch.cat([SORTED, SORTED + 10])), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(statistics(model.unused), torch.tensor([[0.0] * 4, [1.0] * 4]).double())


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (nn.Linear(4, 4), [SORTED], "no batch norm"),
        (BatchNorm1d(4, track_running_stats=False), [SORTED], "no batch norm"),
        (BatchNorm1d(4), [], "batches is empty"),
        (BatchNorm1d(4), [SORTED[:1]], "more than 1 value per channel"),
    ],
)
def test_errors_say_what_was_expected_and_leave_the_model_as_found(model, batches, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        recalibrate(model, batches)
    assert all(torch.equal(was, now) for was, now in zip(before.values(), model.state_dict().values(), strict=True))
    assert not model._forward_hooks and model.training
