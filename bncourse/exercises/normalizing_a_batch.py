"""Set 1: normalizing a batch (chapters 1 and 2)."""

import torch
from torch.nn import functional as F

from bncourse.exercises.compare import expect, expect_items, in_its_place, require, sample, two_slips
from bncourse.exercises.exercise import Exercise

UNBIASED = (
    "This is what the unbiased variance gives: torch's var() divides by m - 1. "
    "BatchNorm divides by m: pass correction=0."
)
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
    "weight and bias line up with the last axis (the width), not with the channels. "
    "Reshape them to (1, C, 1, 1) before you multiply."
)
CANCELLATION = (
    "E[x^2] - E[x]^2 loses all its digits when the mean is large. Subtract the mean first, then average the squares."
)
CONSTANTS = (
    "This is the gradient with the mean and the variance held constant (no_grad or detach). "
    "Both depend on x: let the gradient flow through them."
)

WITHOUT_EPS = "This is the result without eps. The denominator is sqrt(variance + eps)."
NO_ROOT = "Divide by the standard deviation, the square root of the variance."
NOT_CENTRED = "The mean is not subtracted."

signal = Exercise("signal", "How far does a signal get?", chapter=1, minutes=10, level="easy")
standardize = Exercise("standardize", "Standardize over given axes", chapter=2, minutes=10, level="easy")
batch_norm = Exercise("batch-norm", "The forward pass of BatchNorm", chapter=2, minutes=15, level="medium")
identity = Exercise("identity", "When BatchNorm does nothing", chapter=2, minutes=10, level="medium")
EXERCISES = (signal, standardize, batch_norm, identity)


def standardized(x, dims, eps=1e-5, correction=0):
    """What most exercises of this course come down to; ``correction=1`` is the unbiased variance."""
    variance = x.var(dims, correction=correction, keepdim=True)
    return (x - x.mean(dims, keepdim=True)) / (variance + eps).sqrt()


def compare_signal(answer, gain, depth, expected=None, **tolerance):
    """Compare with gain ** depth, or with what was measured."""
    mistakes = {
        "This multiplies gain by depth. Every layer multiplies the scale by gain once more: gain ** depth.": (
            gain * depth
        ),
        "This is the variance. The question asks for the standard deviation, its square root.": gain ** (2 * depth),
        "A layer multiplies by the gain, not its square root: std(w) = gain / sqrt(n) and n terms add up.": (
            gain ** (depth / 2)
        ),
        "Count the layers again: the first one multiplies by gain too.": gain ** (depth - 1),
    }
    expected = gain**depth if expected is None else expected
    expect(answer(gain, depth), expected, "the standard deviation", mistakes, **tolerance)


@signal.case("a network we measure: 6 layers, gain 0.7")
def measured_signal(answer):
    width, depth, gain = 500, 6, 0.7
    x = sample(width, width, seed=1)
    for layer in range(depth):
        x = x @ (sample(width, width, seed=10 + layer) * gain / width**0.5)
    compare_signal(answer, gain, depth, x.std(), rtol=0.1)


signal.add("30 layers, gain 0.5: the signal vanishes", compare_signal, 0.5, 30, atol=1e-12)
signal.add("30 layers, gain 1.5: the signal explodes", compare_signal, 1.5, 30)


def denominators(x, dims, eps):
    """What divides x minus its mean: by one slip, or by two at once, with the hint for them."""
    for unbiased, correction in (("", 0), (UNBIASED, 1)):
        if x[:2].numel() < 2:
            continue
        variance = x.var(dims, correction=correction, keepdim=True)
        for slip, denominator in (
            ("", (variance + eps).sqrt()),
            (WITHOUT_EPS, variance.sqrt()),
            (EPS_OUTSIDE, variance.sqrt() + eps),
            (NO_ROOT, variance + eps),
        ):
            if hint := two_slips(unbiased, slip):
                yield hint, denominator


def standardize_mistakes(x, dims, eps):
    """The usual mistakes, and what they make of x."""
    centred, everywhere = x - x.mean(dims, keepdim=True), tuple(range(x.dim()))
    mistakes = {hint: centred / denominator for hint, denominator in denominators(x, dims, eps)}
    mistakes |= {
        ALL_AXES: standardized(x, everywhere, eps),
        two_slips(ALL_AXES, UNBIASED): standardized(x, everywhere, eps, correction=1),
        NOT_CENTRED: x / (x.var(dims, correction=0, keepdim=True) + eps).sqrt(),
    }
    if x.dim() > 2:
        mistakes |= {BATCH_AXIS_ONLY: standardized(x, (0,), eps)}
        mistakes |= {two_slips(BATCH_AXIS_ONLY, UNBIASED): standardized(x, (0,), eps, correction=1)}
    return mistakes


def by_channel(values, x):
    """One value per channel, in a shape that broadcasts against x."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def compare_standardize(answer, x, dims, eps=1e-5, **options):
    """Compare with torch's BatchNorm in float64, without weight and bias."""
    expected = F.batch_norm(x.double(), None, None, training=True, eps=eps)
    expect(answer(x, dims, eps), expected, "the result", standardize_mistakes(x, dims, eps), **options)


standardize.add("features: a (8, 5) tensor over axis 0", compare_standardize, 3 * sample(8, 5) + 2, (0,), eps=0.1)
standardize.add(
    "images: a (4, 3, 6, 5) tensor over axes 0, 2, 3", compare_standardize, 2 * sample(4, 3, 6, 5) - 1, (0, 2, 3)
)
standardize.add("small inputs: eps decides", compare_standardize, 1e-3 * sample(16, 4), (0,))


@standardize.case("a large offset: inputs near 10,000")
def standardize_offset(answer):
    compare_standardize(answer, sample(64, 4) + 1e4, (0,), rtol=1e-2, atol=1e-2, otherwise=CANCELLATION)


def compare_gradient(function, reference, x, weight=1.0, hint="Do not detach x, and do not compute under no_grad."):
    """Compare the gradient of x with the one through a reference; both end with a factor weight by channel."""
    x = x.double().requires_grad_()
    dy = sample(*x.shape, seed=8).double()
    output = function(x)
    require(
        isinstance(output, torch.Tensor) and output.requires_grad,
        "the result has no gradient: as far as autograd knows, it does not depend on x.",
        hint,
    )
    (got,) = torch.autograd.grad(output, x, dy)
    (expected,) = torch.autograd.grad(reference(x), x, dy)
    axes = (0, *range(2, x.dim()))
    scale = weight * (x.var(axes, correction=0) + 1e-5).rsqrt()
    mistakes = {CONSTANTS: dy * by_channel(scale, x)}
    for hint, x_hat in standardize_mistakes(x, axes, 1e-5).items():
        grads = dy * by_channel(weight * torch.ones(x.shape[1]), x)
        (mistakes[hint],) = torch.autograd.grad(x_hat, x, grads, retain_graph=True)
    expect(got, expected, "the gradient of x", mistakes, rtol=1e-3)


@standardize.case("the gradient flows through the mean and the variance")
def standardize_gradient(answer):
    compare_gradient(
        lambda x: answer(x, (0,), 1e-5), lambda x: F.batch_norm(x, None, None, training=True), sample(6, 3)
    )


def batch_norm_mistakes(x, weight, bias, eps):
    """The usual mistakes, and what they make of x with a weight and a bias by channel."""
    axes, space = (0, *range(2, x.dim())), tuple(range(2, x.dim()))
    w, b, right = by_channel(weight, x), by_channel(bias, x), standardized(x, axes, eps)
    mistakes = {hint: w * x_hat + b for hint, x_hat in standardize_mistakes(x, axes, eps).items()}
    if space:
        mistakes[PER_SAMPLE] = w * standardized(x, space, eps) + b
    if x.shape[-1] == len(weight):
        mistakes[LAST_AXIS] = weight * right + bias
    return mistakes | {"Scale first, then shift: weight * x_hat + bias.": w * (right + b)}


def compare_batch_norm(answer, x, eps=1e-5):
    """Compare with torch's, with a weight and a bias that differ by channel."""
    weight, bias = sample(x.shape[1], seed=2) + 3, sample(x.shape[1], seed=3)
    mistakes = batch_norm_mistakes(x, weight, bias, eps)
    expected = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True, eps=eps)
    with in_its_place(answer, standardize=standardized):
        expect(answer(x, weight, bias, eps), expected, "the output", mistakes)


batch_norm.add("features: a (16, 4) batch", compare_batch_norm, 2 * sample(16, 4) + 1)
batch_norm.add("images: a (4, 3, 6, 5) batch", compare_batch_norm, 2 * sample(4, 3, 6, 5) + 1)
batch_norm.add("images as wide as they have channels: (4, 6, 6, 6)", compare_batch_norm, sample(4, 6, 6, 6))
batch_norm.add("a small batch and a large eps: (3, 2) and eps 0.1", compare_batch_norm, sample(3, 2), 0.1)


def compare_identity(answer, x, eps=1e-5):
    """BatchNorm with the learner's weight and bias must return the batch itself."""
    axes = (0, *range(2, x.dim()))
    weight, bias = expect_items(answer(x, eps), 2, "the answer")
    variance = x.var(axes, correction=0)
    without = "This is sigma without eps. BatchNorm divides by sqrt(variance + eps), so that is what undoes it."
    unbiased = "This is the unbiased variance (divided by m - 1). BatchNorm normalizes with the biased one."
    square = "This is the variance. What undoes the division is its square root, with eps inside."
    inverse = "This is the inverse. BatchNorm divides by sqrt(variance + eps), so the weight has to multiply by it."
    mistakes = {}
    for hint, value in (("", variance), (unbiased, x.var(axes))):
        mistakes |= {
            hint: (value + eps).sqrt(),
            two_slips(hint, without): value.sqrt(),
            two_slips(hint, EPS_OUTSIDE): value.sqrt() + eps,
            two_slips(hint, square): value + eps,
            two_slips(hint, square, "Add eps as well."): value,
            two_slips(hint, inverse): (value + eps).rsqrt(),
        }
    mistakes.pop("")
    expect(weight, (variance + eps).sqrt(), "the weight", mistakes)
    of_bias = {
        "The bias is the mean itself, with its sign.": -x.mean(axes),
        "This is the mean divided by sigma. The bias is added last, so it has to be the mean itself.": (
            x.mean(axes) / (variance + eps).sqrt()
        ),
        "The bias adds the mean back; zero does not.": 0 * x.mean(axes),
    }
    expect(bias, x.mean(axes), "the bias", of_bias)
    output = F.batch_norm(x, None, None, torch.as_tensor(weight), torch.as_tensor(bias), training=True, eps=eps)
    expect(output, x, "the output of BatchNorm", rtol=1e-3, atol=1e-3)


identity.add("features, eps 0.5: a (10, 4) batch", compare_identity, 2 * sample(10, 4) + 1, eps=0.5)
identity.add("images, eps 1e-5: a (4, 3, 5, 5) batch", compare_identity, 0.01 * sample(4, 3, 5, 5) - 1)
