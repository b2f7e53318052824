"""Set 1: normalizing a batch (chapters 1 and 2)."""

import torch
from torch.nn import functional as F

from bncourse.exercises.compare import expect, expect_items, require, sample
from bncourse.exercises.exercise import Exercise

UNBIASED = (
    "This is what the unbiased variance gives: torch's var() divides by m - 1. "
    "BatchNorm divides by m: pass correction=0."
)
NO_EPS = "This is the result without eps. The denominator is sqrt(variance + eps)."
EPS_OUTSIDE = "eps belongs inside the square root: sqrt(variance + eps), not sqrt(variance) + eps."
ALL_AXES = "This uses one mean and one variance for the whole tensor. Reduce over the given axes only."
BATCH_AXIS_ONLY = (
    "This reduces over the batch axis alone, which gives every pixel its own statistics. "
    "A channel has one mean and one variance: reduce over every axis but the channel's, (0, 2, 3)."
)
PER_SAMPLE = (
    "This reduces over space only, within each image: that is InstanceNorm. BatchNorm also reduces over the batch axis."
)
LAST_AXIS = (
    "weight and bias met the last axis (the width), not the channels. Reshape them to (1, C, 1, 1) before you multiply."
)
CANCELLATION = (
    "E[x^2] - E[x]^2 loses all its digits when the mean is large. Subtract the mean first, then average the squares."
)
CONSTANTS = (
    "This is the gradient with the mean and the variance held constant (no_grad or detach). "
    "Both depend on x: let the gradient flow through them."
)

signal = Exercise("signal", "How far does a signal get?", chapter=1, minutes=10, level="easy")
standardize = Exercise("standardize", "Standardize over given axes", chapter=2, minutes=10, level="easy")
batch_norm = Exercise("batch-norm", "The forward pass of BatchNorm", chapter=2, minutes=15, level="medium")
identity = Exercise("identity", "When BatchNorm does nothing", chapter=2, minutes=10, level="medium")
EXERCISES = (signal, standardize, batch_norm, identity)


def _deep(gain, depth):
    return {
        "This multiplies gain by depth. Every layer multiplies the scale by gain once more: gain ** depth.": (
            gain * depth
        ),
        "This is the variance. The question asks for the standard deviation, its square root.": gain ** (2 * depth),
        "A layer multiplies by the gain, not its square root: std(w) = gain / sqrt(n) and n terms add up.": (
            gain ** (depth / 2)
        ),
        "Count the layers again: the first one multiplies by gain too.": gain ** (depth - 1),
    }


@signal.case("a network we measure: 6 layers, gain 0.7")
def measured_signal(answer):
    width, depth, gain = 500, 6, 0.7
    x = sample(width, width, seed=1)
    for layer in range(depth):
        x = x @ (sample(width, width, seed=10 + layer) * gain / width**0.5)
    expect(answer(gain, depth), x.std(), "the standard deviation", _deep(gain, depth), rtol=0.1)


@signal.case("30 layers, gain 0.5: the signal vanishes")
def vanishing_signal(answer):
    expect(answer(0.5, 30), 0.5**30, "the standard deviation", _deep(0.5, 30), atol=1e-12)


@signal.case("30 layers, gain 1.5: the signal explodes")
def exploding_signal(answer):
    expect(answer(1.5, 30), 1.5**30, "the standard deviation", _deep(1.5, 30))


def _standardized(x, dims, eps=1e-5, correction=0):
    variance = x.var(dims, correction=correction, keepdim=True)
    return (x - x.mean(dims, keepdim=True)) / (variance + eps).sqrt()


def standardize_mistakes(x, dims, eps):
    centred = x - x.mean(dims, keepdim=True)
    variance = centred.square().mean(dims, keepdim=True)
    return {
        UNBIASED: _standardized(x, dims, eps, correction=1),
        NO_EPS: centred / variance.sqrt(),
        EPS_OUTSIDE: centred / (variance.sqrt() + eps),
        "Divide by the standard deviation, the square root of the variance.": centred / (variance + eps),
        ALL_AXES: _standardized(x, tuple(range(x.dim())), eps),
        "The mean is not subtracted.": x / (variance + eps).sqrt(),
    }


@standardize.case("features: a (8, 5) tensor over axis 0")
def standardize_features(answer):
    x = 3 * sample(8, 5) + 2
    expected = F.batch_norm(x.double(), None, None, training=True, eps=0.1)
    expect(answer(x, (0,), 0.1), expected, "the result", standardize_mistakes(x, (0,), 0.1))


@standardize.case("images: a (4, 3, 6, 5) tensor over axes 0, 2, 3")
def standardize_images(answer):
    x = 2 * sample(4, 3, 6, 5) - 1
    expected = F.batch_norm(x.double(), None, None, training=True, eps=1e-5)
    mistakes = standardize_mistakes(x, (0, 2, 3), 1e-5) | {BATCH_AXIS_ONLY: _standardized(x, (0,))}
    expect(answer(x, (0, 2, 3), 1e-5), expected, "the result", mistakes)


@standardize.case("small inputs: eps decides")
def standardize_small(answer):
    x = 1e-3 * sample(16, 4)
    expected = F.batch_norm(x.double(), None, None, training=True, eps=1e-5)
    expect(answer(x, (0,), 1e-5), expected, "the result", standardize_mistakes(x, (0,), 1e-5))


@standardize.case("a large offset: inputs near 10,000")
def standardize_offset(answer):
    x = sample(64, 4) + 1e4
    expected = F.batch_norm(x.double(), None, None, training=True, eps=1e-5)
    got = answer(x, (0,), 1e-5)
    mistakes = standardize_mistakes(x, (0,), 1e-5)
    try:
        expect(got, expected, "the result", mistakes, rtol=1e-2, atol=1e-2)
    except AssertionError as wrong:
        require(getattr(wrong, "hint", None) is not None, getattr(wrong, "message", str(wrong)), CANCELLATION)
        raise


@standardize.case("the gradient flows through the mean and the variance")
def standardize_gradient(answer):
    x = sample(6, 3, dtype=torch.float64).requires_grad_()
    dy = sample(6, 3, seed=1, dtype=torch.float64)
    result = answer(x, (0,), 1e-5)
    require(
        isinstance(result, torch.Tensor) and result.requires_grad,
        "the result does not depend on x for autograd: it has no gradient.",
        "Do not detach x, and do not compute under no_grad.",
    )
    (got,) = torch.autograd.grad(result, x, dy)
    (expected,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True), x, dy)
    scale = (x.detach().var(0, correction=0) + 1e-5).rsqrt()
    expect(got, expected, "the gradient of x", {CONSTANTS: dy * scale}, rtol=1e-3)


def _batch_norm_mistakes(x, weight, bias, eps):
    channels = (1, -1) + (1,) * (x.dim() - 2)
    axes = (0, *range(2, x.dim()))

    def affine(normalized):
        return weight.reshape(channels) * normalized + bias.reshape(channels)

    mistakes = {
        hint: affine(value)
        for hint, value in standardize_mistakes(x, axes, eps).items()
        if hint != ALL_AXES or x.dim() == 2
    }
    if x.dim() > 2:
        mistakes[BATCH_AXIS_ONLY] = affine(_standardized(x, (0,), eps))
        mistakes[PER_SAMPLE] = affine(_standardized(x, tuple(range(2, x.dim())), eps))
        mistakes[ALL_AXES] = affine(_standardized(x, tuple(range(x.dim())), eps))
    if x.shape[-1] == len(weight):
        mistakes[LAST_AXIS] = weight * _standardized(x, axes, eps) + bias
    mistakes["Scale first, then shift: weight * x_hat + bias."] = weight.reshape(channels) * (
        _standardized(x, axes, eps) + bias.reshape(channels)
    )
    return mistakes


def compare_batch_norm(answer, x, eps=1e-5):
    """Compare with torch's, with a weight and a bias that differ by channel."""
    weight, bias = sample(x.shape[1], seed=2) + 3, sample(x.shape[1], seed=3)
    expected = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True, eps=eps)
    expect(answer(x, weight, bias, eps), expected, "the output", _batch_norm_mistakes(x, weight, bias, eps))


@batch_norm.case("features: a (16, 4) batch")
def batch_norm_features(answer):
    compare_batch_norm(answer, 2 * sample(16, 4) + 1)


@batch_norm.case("images: a (4, 3, 6, 5) batch")
def batch_norm_images(answer):
    compare_batch_norm(answer, 2 * sample(4, 3, 6, 5) + 1)


@batch_norm.case("images as wide as they have channels: (4, 6, 6, 6)")
def batch_norm_square(answer):
    compare_batch_norm(answer, sample(4, 6, 6, 6))


@batch_norm.case("a small batch and a large eps: (3, 2) and eps 0.1")
def batch_norm_eps(answer):
    compare_batch_norm(answer, sample(3, 2), eps=0.1)


def compare_identity(answer, x, eps):
    """BatchNorm with the learner's weight and bias must give the batch back."""
    axes = (0, *range(2, x.dim()))
    weight, bias = expect_items(answer(x, eps), 2, "the answer")
    variance = x.var(axes, correction=0)
    mistakes = {
        "This is sigma without eps. BatchNorm divides by sqrt(variance + eps), so that is what undoes it.": (
            variance.sqrt()
        ),
        "This is the unbiased variance (divided by m - 1). BatchNorm normalizes with the biased one.": (
            x.var(axes) + eps
        ).sqrt(),
        "This is the variance. What undoes the division is its square root, with eps inside.": variance + eps,
        "This is the inverse. BatchNorm divides by it, so the weight multiplies by it.": (variance + eps).rsqrt(),
    }
    expect(weight, (variance + eps).sqrt(), "the weight", mistakes)
    expect(bias, x.mean(axes), "the bias", {"The bias is the mean itself, with its sign.": -x.mean(axes)})
    output = F.batch_norm(x, None, None, torch.as_tensor(weight), torch.as_tensor(bias), training=True, eps=eps)
    expect(output, x, "the output of BatchNorm", rtol=1e-3, atol=1e-3)


@identity.case("features, eps 0.5: a (10, 4) batch")
def identity_features(answer):
    compare_identity(answer, 2 * sample(10, 4) + 1, eps=0.5)


@identity.case("images, eps 1e-5: a (4, 3, 5, 5) batch")
def identity_images(answer):
    compare_identity(answer, 0.01 * sample(4, 3, 5, 5) - 1, eps=1e-5)
