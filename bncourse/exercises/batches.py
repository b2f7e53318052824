"""Set 3, second half: small batches and dropout (chapters 8 and 9)."""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import expect, expect_items, require, sample
from bncourse.exercises.exercise import Exercise

LEFTOVER = "The last, incomplete window never took its step: its micro-batches are lost, or leak into the next epoch."
UNEQUAL_WEIGHTS = (
    "A smaller last micro-batch counts as much as a full one, so its samples count more. "
    "Weight each micro-batch by its number of samples."
)
FULL_WINDOW = "The last window holds fewer micro-batches, yet its gradient is still divided by the full number."

batch_of_two = Exercise("batch-of-two", "What is left of a batch of two?", 8, 10, "medium")
accumulation = Exercise("accumulation", "Mend gradient accumulation", 8, 30, "hard")
dropout_shift = Exercise("dropout-shift", "Dropout before BatchNorm", 9, 15, "medium")
EXERCISES = (batch_of_two, accumulation, dropout_shift)


def compare_two(answer, a, b, eps):
    """Compare with what torch's BatchNorm1d gives for a batch of two numbers."""
    x = torch.tensor([[a], [b]], dtype=torch.float64)
    expected = F.batch_norm(x, None, None, training=True, eps=eps).flatten()
    got = expect_items(answer(a, b, eps), 2, "the answer")
    got = torch.tensor([float(value) for value in got], dtype=torch.float64)
    half = (a - b) / 2
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    mistakes = {
        "Only the sign survives when the gap is large. For a small gap eps counts: d / sqrt(d^2 + eps).": (
            signs * math.copysign(1, half)
        ),
        "This is the unbiased variance. BatchNorm divides by m = 2.": signs * half / math.sqrt(2 * half**2 + eps),
        "The variance is the square of half the gap, not of the gap.": signs * half / math.sqrt(4 * half**2 + eps),
        "The two outputs are in the other order.": -expected,
        "These are the inputs without their mean; now divide by sqrt(variance + eps).": signs * half,
    }
    expect(got, expected, f"the outputs for {a} and {b}", mistakes)


@batch_of_two.case("3 and 7")
def two_far(answer):
    compare_two(answer, 3.0, 7.0, 1e-5)


@batch_of_two.case("a near tie: 0.500 and 0.503")
def two_near(answer):
    compare_two(answer, 0.503, 0.500, 1e-5)


@batch_of_two.case("a tie: both 2")
def two_equal(answer):
    compare_two(answer, 2.0, 2.0, 1e-5)


def small_network():
    """A network without BatchNorm, so that accumulation can equal one large batch exactly."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def micro_batches(sizes):
    """Micro-batches of the given sizes."""
    return [(sample(size, 4, seed=20 + i, dtype=torch.float64), torch.arange(size) % 3) for i, size in enumerate(sizes)]


def _epoch(batches, steps, *, last_window=True, by_samples=True, full_window=False):
    """Parameters after one epoch of accumulation, right by default, with its usual mistakes otherwise."""
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for start in range(0, len(batches), steps):
        window = batches[start : start + steps]
        if len(window) < steps and not last_window:
            continue
        total = sum(len(labels) for _, labels in window)
        for images, labels in window:
            share = len(labels) / total if by_samples else 1 / (steps if full_window else len(window))
            (F.cross_entropy(model(images), labels) * share).backward()
        optimizer.step()
        optimizer.zero_grad()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def compare_epoch(answer, sizes, steps):
    """Compare one epoch of the learner's loop with one where each window is a single large batch."""
    batches = micro_batches(sizes)
    windows = [batches[start : start + steps] for start in range(0, len(batches), steps)]
    merged = [tuple(torch.cat(part) for part in zip(*window, strict=True)) for window in windows]
    expected = _epoch(merged, 1)
    model = small_network()
    before = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    answer(model, batches, optimizer, steps)
    got = nn.utils.parameters_to_vector(model.parameters()).detach()
    untouched = nn.utils.parameters_to_vector(before.parameters()).detach()
    mistakes = {
        "The parameters have not moved: no optimizer step was taken.": untouched,
        LEFTOVER: _epoch(batches, steps, last_window=False),
        UNEQUAL_WEIGHTS: _epoch(batches, steps, by_samples=False),
        FULL_WINDOW: _epoch(batches, steps, by_samples=False, full_window=True),
        "Two mistakes at once: the last window takes no step, and micro-batches of any size count alike.": (
            _epoch(batches, steps, last_window=False, by_samples=False)
        ),
        "A step is taken after every micro-batch: nothing is accumulated.": _epoch(batches, 1),
    }
    expect(got, expected, "the parameters after the epoch", mistakes, rtol=1e-6, atol=1e-8)
    left = [p for p in model.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    require(not left, "gradients are left over after the epoch.", "Call optimizer.zero_grad() after every step.")


@accumulation.case("6 micro-batches, 3 to a step")
def accumulation_full(answer):
    compare_epoch(answer, (4, 4, 4, 4, 4, 4), 3)


@accumulation.case("5 micro-batches, 3 to a step: an incomplete last window")
def accumulation_incomplete(answer):
    compare_epoch(answer, (4, 4, 4, 4, 4), 3)


@accumulation.case("a last micro-batch of 1 sample")
def accumulation_small(answer):
    compare_epoch(answer, (4, 4, 4, 1), 2)


def compare_shift(answer, keep, mean, variance):
    """Compare with the ratio of the variances that dropout gives in evaluation and in training."""
    exact = variance / ((variance + mean**2) / keep - mean**2)
    drop = 1 - keep
    mistakes = {
        "That is the ratio for inputs of zero mean. A mean counts: in training its square is scaled too.": keep,
        "The probability given is the one to KEEP a value.": (
            variance / ((variance + mean**2) / drop - mean**2) if drop else 0.0
        ),
        "This is the ratio upside down: the question is evaluation over training.": 1 / exact,
        "Kept values are divided by keep, so their squares by keep^2, with probability keep: the second moment "
        "grows by 1 / keep.": keep**2,
        "Subtract the squared mean from the second moment: the variance is E[y^2] - E[y]^2.": (
            variance / ((variance + mean**2) / keep)
        ),
    }
    return exact, mistakes


@dropout_shift.case("zero mean, keep 0.5: measured with nn.Dropout")
def shift_measured(answer):
    x = sample(400_000)
    measured = x.var() / F.dropout(x, 0.5, training=True).var()
    _, mistakes = compare_shift(answer, 0.5, 0.0, 1.0)
    expect(answer(0.5, 0.0, 1.0), measured, "the ratio", mistakes, rtol=0.02)


@dropout_shift.case("after a ReLU, keep 0.9: measured with nn.Dropout")
def shift_relu(answer):
    x = sample(400_000).relu()
    measured = x.var() / F.dropout(x, 0.1, training=True).var()
    mean, variance = x.mean().item(), x.var().item()
    _, mistakes = compare_shift(answer, 0.9, mean, variance)
    expect(answer(0.9, mean, variance), measured, "the ratio", mistakes, rtol=0.01)


@dropout_shift.case("mean 2, variance 3, keep 0.8")
def shift_exact(answer):
    exact, mistakes = compare_shift(answer, 0.8, 2.0, 3.0)
    expect(answer(0.8, 2.0, 3.0), exact, "the ratio", mistakes)
