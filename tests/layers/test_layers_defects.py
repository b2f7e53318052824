"""The defects that teaching code has, planted one by one: each must be found by the check that is for it.

A check takes a BatchNorm1d class and fails if the defect is in it. Each check passes on ours, and fails on a layer
that is ours but for the defect. So the checks are known to see what they are for.
"""

import copy

import pytest
import torch
from torch import nn

import bncourse
from bncourse.functional import batch_norm

DOUBLE = torch.float64


class Naive(bncourse.BatchNorm1d):
    """Ours, computed in steps that a defect can change."""

    def forward(self, x):
        if self.chooses_batch():
            mean, variance = self.statistics(x)
            self.remember(mean, variance, x.size(0))
        else:
            mean, variance = self.running_mean, self.running_var
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias

    def chooses_batch(self):
        return self.training

    def statistics(self, x):
        return x.mean(0), x.var(0, correction=0)

    def remember(self, mean, variance, count):
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)


# The defects, numbered as in the course's list of mechanics that teaching code gets wrong


class ModeByGradEnabled(Naive):  # 1
    def chooses_batch(self):
        return torch.is_grad_enabled()


class PlainTensors(Naive):  # 2
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mean, variance = self.running_mean, self.running_var
        del self.running_mean, self.running_var
        self.running_mean, self.running_var = mean, variance


class BiasedMemory(Naive):  # 3
    def remember(self, mean, variance, count):
        super().remember(mean, variance * (count - 1) / count, count)


class UnbiasedForward(Naive):  # 3
    def statistics(self, x):
        return x.mean(0), x.var(0, correction=1)


class GrowingGraph(Naive):  # 4
    def remember(self, mean, variance, count):
        self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
        self.running_var = (1 - self.momentum) * self.running_var + self.momentum * variance * count / (count - 1)


class DifferenceOfSquares(Naive):  # 5
    def statistics(self, x):
        return x.mean(0), (x * x).mean(0) - x.mean(0) ** 2


class NoGradientThroughStatistics(Naive):  # 6
    def statistics(self, x):
        with torch.no_grad():
            return super().statistics(x)


class ReversedMomentum(Naive):  # 8
    def remember(self, mean, variance, count):
        with torch.no_grad():
            self.running_mean.lerp_(mean, 1 - self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), 1 - self.momentum)


class NeverInEvaluation(Naive):  # 10, as if eval() had been forgotten
    def chooses_batch(self):
        return True


# The checks


def follows_its_mode(kind):
    layer, x = kind(3), torch.randn(8, 3) * 2 + 1
    with torch.no_grad():
        y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    layer.eval()
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))  # alone as in company


def keeps_its_memory_in_the_state(kind):
    layer = kind(3)
    assert {"running_mean", "running_var"} <= set(layer.state_dict())
    assert layer.to(DOUBLE).running_var.dtype == DOUBLE


def agrees_with_torch(kind):
    ours, theirs = kind(3, dtype=DOUBLE), nn.BatchNorm1d(3, dtype=DOUBLE)
    for _ in range(3):
        x = torch.randn(8, 3, dtype=DOUBLE) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)


def grows_no_graph(kind):
    layer = kind(3)
    layer(torch.randn(8, 3, requires_grad=True)).sum().backward()
    assert layer.running_mean.grad_fn is None
    copy.deepcopy(layer)


def bears_an_offset(kind):
    x = torch.randn(64, 3) + 1e4
    exact = nn.BatchNorm1d(3).double()(x.double()).float()
    torch.testing.assert_close(kind(3)(x), exact, rtol=0, atol=0.01)


def has_the_right_gradient(kind, samples=6):
    layer = kind(3, dtype=DOUBLE)
    x = torch.randn(samples, 3, dtype=DOUBLE, requires_grad=True)
    torch.autograd.gradcheck(layer, x, atol=1e-3 if samples == 2 else 1e-5, rtol=1e-3, nondet_tol=1e-9)


FINDS = [
    (ModeByGradEnabled, follows_its_mode),
    (PlainTensors, keeps_its_memory_in_the_state),
    (BiasedMemory, agrees_with_torch),
    (UnbiasedForward, agrees_with_torch),
    (GrowingGraph, grows_no_graph),
    (DifferenceOfSquares, bears_an_offset),
    (NoGradientThroughStatistics, has_the_right_gradient),
    (ReversedMomentum, agrees_with_torch),
    (NeverInEvaluation, follows_its_mode),
]


@pytest.mark.parametrize(("defect", "check"), FINDS, ids=lambda value: value.__name__)
def test_the_check_passes_on_ours_and_finds_the_defect(defect, check):
    torch.manual_seed(0)
    check(bncourse.BatchNorm1d)
    check(Naive)
    with pytest.raises((AssertionError, RuntimeError)):
        check(defect)


def test_a_gradient_check_at_two_samples_finds_nothing():  # 9
    """At batch size 2 the gradient is about 0 and code that has it wrong passes: why the checks take 4 and more."""

    class Wrong(bncourse.BatchNorm1d):
        def forward(self, x):
            return Detached.apply(super().forward(x))

    class Detached(torch.autograd.Function):
        forward = staticmethod(lambda ctx, y: y.clone())
        backward = staticmethod(lambda ctx, dy: 0 * dy)

    def check(samples):
        x = torch.tensor([[-3.0], [3.0], [1.0], [-1.5]], dtype=DOUBLE)[:samples].requires_grad_()
        torch.autograd.gradcheck(Wrong(1, dtype=DOUBLE), x, atol=1e-3)

    check(2)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        check(4)


def test_redundant_bias_is_dropped():  # 7
    """A block that takes the norm as a class: isinstance asks the class itself, and never drops the bias."""

    def drops_the_bias(block):
        assert block(bncourse.BatchNorm2d)[0].bias is None
        assert block(bncourse.GroupNorm)[0].bias is not None

    def block(norm):
        return nn.Conv2d(2, 4, 3, bias=not issubclass(norm, nn.BatchNorm2d)), norm

    def defect(norm):
        return nn.Conv2d(2, 4, 3, bias=not isinstance(norm, nn.BatchNorm2d)), norm

    drops_the_bias(block)
    with pytest.raises(AssertionError):
        drops_the_bias(defect)


def test_bias_before_batch_norm_has_no_gradient():  # 10: why it is redundant
    linear, norm = nn.Linear(4, 3).double(), bncourse.BatchNorm1d(3, dtype=DOUBLE)
    norm(linear(torch.randn(8, 4, dtype=DOUBLE))).pow(3).sum().backward()
    assert linear.bias.grad.abs().max() < 1e-12 < linear.weight.grad.abs().max()


def test_evaluation_leaves_the_memory_alone():  # 10: a forgotten eval() does not
    layer = bncourse.BatchNorm1d(3)
    with torch.no_grad():
        layer(torch.randn(8, 3))
        before = copy.deepcopy(layer.state_dict())
        layer.eval()
        layer(torch.randn(8, 3))
    torch.testing.assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    x = torch.randn(8, 3)
    mean, variance = torch.zeros(3), torch.ones(3)
    batch_norm(x, mean, variance, training=False)
    assert not mean.any() and variance.eq(1).all()
