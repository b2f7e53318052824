"""Set 3: blocks and variants, small batches and dropout (chapters 5 to 9)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import expect, expect_items, require, sample, two_slips
from bncourse.exercises.exercise import Exercise
from bncourse.exercises.normalizing_a_batch import UNBIASED, by_channel, standardized

REDUNDANT_BIAS = (
    "BatchNorm subtracts the mean, and the bias along with it; its own bias does the shifting. Pass bias=False."
)
WRONG_AXES = {
    "batch": {
        (0,): "Over the batch axis alone, every pixel has its own statistics. "
        "A channel has one mean, which all its pixels share.",
        (2, 3): "That is InstanceNorm: BatchNorm averages over the batch too.",
        (1,): "That is the channel axis, the one that BatchNorm keeps.",
    },
    "layer": {
        (1,): "LayerNorm((C, H, W)) averages over a whole sample. "
        "Averaging over the channels alone is what ConvNeXt's variant does.",
        (0, 1, 2, 3): "Not over the batch: LayerNorm treats each sample on its own.",
    },
    "instance": {
        (1, 2, 3): "That is one mean for each sample. InstanceNorm has one for each sample AND each channel: "
        "average over space only.",
        (0, 2, 3): "That is BatchNorm. InstanceNorm treats each sample on its own.",
    },
    "group": {
        (1, 2, 3, 4): "That averages over the groups too: it is LayerNorm. Each group keeps its own statistics.",
        (3, 4): "That is InstanceNorm. The C // G channels of a group share their statistics.",
        (1, 3, 4): "That mixes the groups and keeps the channels within each group apart. "
        "It should be the other way round.",
    },
}

conv_block = Exercise("conv-block", "A convolution block", chapter=5, minutes=10, level="easy")
norm_axes = Exercise("norm-axes", "Which axes does each norm average over?", chapter=7, minutes=10, level="easy")
group_norm = Exercise("group-norm", "GroupNorm", chapter=7, minutes=15, level="medium")
batch_of_two = Exercise("batch-of-two", "What is left of a batch of two?", chapter=8, minutes=10, level="medium")
accumulation = Exercise("accumulation", "Fix gradient accumulation", chapter=8, minutes=30, level="hard")
dropout_shift = Exercise("dropout-shift", "Dropout before BatchNorm", chapter=9, minutes=15, level="medium")
EXERCISES = (conv_block, norm_axes, group_norm, batch_of_two, accumulation, dropout_shift)


KINDS = {  # bncourse's BatchNorm counts too
    "convolution": lambda part: isinstance(part, nn.Conv2d),
    "BatchNorm": lambda part: isinstance(part, nn.modules.batchnorm._BatchNorm) or "BatchNorm" in type(part).__name__,
    "ReLU": lambda part: isinstance(part, nn.ReLU),
}


def _parts(block):
    require(isinstance(block, nn.Module), f"the block should be an nn.Module; got a {type(block).__name__}.")
    parts = [part for part in block.modules() if not list(part.children())]
    for name, is_kind in KINDS.items():
        found = sum(map(is_kind, parts))
        require(found == 1, f"the block should contain one {name}; it contains {found}.", "Conv2d, BatchNorm2d, ReLU.")
    return parts


@conv_block.case("the paper's order: convolution, BatchNorm, ReLU")
def block_order(answer):
    parts = _parts(answer(3, 8, 3))
    names = ", ".join(type(part).__name__ for part in parts)
    in_order = all(is_kind(part) for part, is_kind in zip(parts, KINDS.values(), strict=True))
    hint = "The paper normalizes before the nonlinearity: Conv2d, BatchNorm2d, ReLU."
    require(in_order, f"the order is {names}.", hint)


@conv_block.case("no bias that BatchNorm would remove")
def block_bias(answer):
    convolution = next(part for part in _parts(answer(3, 8, 3)) if isinstance(part, nn.Conv2d))
    require(convolution.bias is None, "the convolution has a bias.", REDUNDANT_BIAS)


@conv_block.case("the image keeps its size, for kernels 1, 3 and 5")
def block_size(answer):
    for kernel_size in (1, 3, 5):
        block = answer(3, 8, kernel_size)
        _parts(block)
        shape = tuple(block(sample(2, 3, 9, 7)).shape)
        require(
            shape == (2, 8, 9, 7),
            f"with kernel {kernel_size} an image batch (2, 3, 9, 7) becomes {shape}; expected (2, 8, 9, 7).",
            "The padding that keeps the size is kernel_size // 2, not always 1.",
        )


@conv_block.case("the number of parameters: 3 to 8 channels, kernel 3")
def block_parameters(answer):
    block = answer(3, 8, 3)
    _parts(block)
    count = sum(parameter.numel() for parameter in block.parameters())
    weights = 3 * 8 * 3 * 3
    mistakes = {REDUNDANT_BIAS: weights + 8 + 16, "BatchNorm keeps its weight and bias (affine=True).": weights}
    expect(count, weights + 16, "the number of parameters", mistakes)


def compare_axes(answer, name, norm):
    """Standardize a batch of images over the learner's axes and compare with torch's norm."""
    require(isinstance(answer, dict) and name in answer, f'the answer should be a dict with the key "{name}".')
    axes = answer[name]
    require(axes is not ... and axes is not None, "not answered yet")
    is_axes = isinstance(axes, tuple | list | int) and not isinstance(axes, bool)
    require(is_axes, f"axes should be a tuple of integers; got {type(axes).__name__}.")
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    x = sample(4, 6, 5, 5)
    view = x.reshape(4, 2, 3, 5, 5) if name == "group" else x
    positive = tuple(sorted(axis % view.dim() if -view.dim() <= axis < view.dim() else axis for axis in axes))
    require(all(0 <= axis < view.dim() for axis in positive), f"{axes} contains an axis that the batch does not have.")
    hint = WRONG_AXES[name].get(positive, f"{name} norm averages over {2 if name == 'instance' else 3} axes.")
    got = standardized(view, positive).reshape(x.shape)
    expect(got, norm(x), f"a batch standardized over {positive}", otherwise=hint)


norm_axes.add("batch: BatchNorm2d", compare_axes, "batch", lambda x: F.batch_norm(x, None, None, training=True))
norm_axes.add("layer: LayerNorm((C, H, W))", compare_axes, "layer", lambda x: F.layer_norm(x, x.shape[1:]))
norm_axes.add("instance: InstanceNorm2d", compare_axes, "instance", F.instance_norm)
norm_axes.add(
    "group: GroupNorm, after the reshape to (N, G, C // G, H, W)", compare_axes, "group", lambda x: F.group_norm(x, 2)
)


ALONE = (
    "This normalizes every channel on its own: that is InstanceNorm. "
    "The channels of a group share one mean and one variance."
)
INTERLEAVED = (
    "The groups are interleaved. Group g holds neighbouring channels: reshape to (N, G, C // G, H, W), in that order."
)


def compare_group_norm(answer, x, groups, eps=1e-5):
    """Compare with torch's, with a weight and a bias that differ by channel."""
    samples, channels = x.shape[:2]
    weight, bias = sample(channels, seed=2) + 3, sample(channels, seed=3)
    expected = F.group_norm(x, groups, weight, bias, eps)

    def affine(normalized):
        return normalized.reshape(x.shape) * by_channel(weight, x) + by_channel(bias, x)

    grouped = x.reshape(samples, groups, channels // groups, -1)
    mixed = x.reshape(samples, channels // groups, groups, -1)
    whole, across = F.group_norm(x, 1, weight, bias, eps), affine(standardized(grouped, (0, 2, 3), eps))
    mistakes = {
        ALONE: F.group_norm(x, channels, weight, bias, eps),
        "This normalizes all channels of a sample together: that is one group, with LayerNorm's statistics.": whole,
        INTERLEAVED: affine(standardized(mixed, (1, 3), eps)),
        "This reduces over the batch axis too. GroupNorm treats each sample on its own.": across,
        "This is the result without weight and bias.": standardized(grouped, (2, 3), eps).reshape(x.shape),
        UNBIASED: affine(standardized(grouped, (2, 3), eps, correction=1)),
        two_slips(ALONE, UNBIASED): affine(standardized(x.reshape(samples, channels, -1), (2,), eps, correction=1)),
        two_slips(INTERLEAVED, UNBIASED): affine(standardized(mixed, (1, 3), eps, correction=1)),
        "eps belongs inside the square root: sqrt(variance + eps).": affine(
            (grouped - grouped.mean((2, 3), keepdim=True)) / (grouped.std((2, 3), correction=0, keepdim=True) + eps)
        ),
    }
    expect(answer(x, groups, weight, bias, eps), expected, "the output", mistakes)


group_norm.add("3 groups of 2 channels: a (4, 6, 5, 3) batch", compare_group_norm, 2 * sample(4, 6, 5, 3) + 1, 3)
group_norm.add("2 groups of 4 channels, eps 0.1", compare_group_norm, sample(2, 8, 3, 3), 2, eps=0.1)
group_norm.add("a batch of one image", compare_group_norm, sample(1, 6, 4, 4) - 2, 2)


def compare_two(answer, a, b, eps=1e-5):
    """Compare with what torch's BatchNorm1d gives for a batch of two numbers."""
    x = torch.tensor([[a], [b]], dtype=torch.float64)
    expected = F.batch_norm(x, None, None, training=True, eps=eps).flatten()
    got = expect_items(answer(a, b, eps), 2, "the answer")
    got = torch.tensor([float(value) for value in got], dtype=torch.float64)
    half = (a - b) / 2
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    mistakes = {
        "Only the sign survives when the gap is large. For a small gap eps matters: d / sqrt(d^2 + eps).": (
            signs * math.copysign(1, half)
        ),
        "This is the unbiased variance. BatchNorm divides by m = 2.": signs * half / math.sqrt(2 * half**2 + eps),
        "The variance is the square of half the gap, not of the gap.": signs * half / math.sqrt(4 * half**2 + eps),
        "The two outputs are the wrong way round.": -expected,
        "These are the inputs without their mean; now divide by sqrt(variance + eps).": signs * half,
    }
    expect(got, expected, f"the outputs for {a} and {b}", mistakes)


batch_of_two.add("3 and 7", compare_two, 3.0, 7.0)
batch_of_two.add("a near tie: 0.500 and 0.503", compare_two, 0.503, 0.500)
batch_of_two.add("a tie: both 2", compare_two, 2.0, 2.0)


def small_network():
    """A network without BatchNorm, so that accumulation can equal one large batch exactly."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def _epoch(batches, steps, *, last_window=True, by_samples=True, full_window=False, sums=False, epochs=1, clear=True):
    """Parameters after epochs of accumulation, right by default, with its usual mistakes otherwise."""
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(epochs):
        for start in range(0, len(batches), steps):
            window = batches[start : start + steps]
            if len(window) < steps and not last_window:
                continue
            total = sum(len(labels) for _, labels in window)
            for images, labels in window:
                share = len(labels) / total if by_samples else 1 / (steps if full_window else len(window))
                (F.cross_entropy(model(images), labels) * (1 if sums else share)).backward()
            optimizer.step()
            if clear:
                optimizer.zero_grad()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def compare_epoch(answer, sizes, steps):
    """Compare one epoch of the learner's loop with one where each window is a single large batch."""
    batches = [(sample(n, 4, seed=20 + i, dtype=torch.float64), torch.arange(n) % 3) for i, n in enumerate(sizes)]
    windows = [batches[start : start + steps] for start in range(0, len(batches), steps)]
    merged = [tuple(torch.cat(part) for part in zip(*window, strict=True)) for window in windows]
    expected = _epoch(merged, 1)
    model, samples, backwards = small_network(), [], []
    untouched = nn.utils.parameters_to_vector(model.parameters()).detach()
    model.register_forward_pre_hook(lambda part, inputs: samples.append(len(inputs[0])))
    model[0].weight.register_post_accumulate_grad_hook(lambda weight: backwards.append(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    answer(model, batches, optimizer, steps)
    got = nn.utils.parameters_to_vector(model.parameters()).detach()
    mistakes = {
        "The parameters have not moved: no optimizer step was taken.": untouched,
        "The last, incomplete window never took its step, so its micro-batches are lost "
        "or leak into the next epoch.": _epoch(batches, steps, last_window=False),
        "A smaller last micro-batch counts as much as a full one, so its samples count more. "
        "Weight each micro-batch by its number of samples.": _epoch(batches, steps, by_samples=False),
        "The last window holds fewer micro-batches, yet its gradient is still divided by the full number.": _epoch(
            batches, steps, by_samples=False, full_window=True
        ),
        "Two mistakes at once: the last window takes no step, and all micro-batches count the same, "
        "whatever their size.": (_epoch(batches, steps, last_window=False, by_samples=False)),
        "A step is taken after every micro-batch: nothing is accumulated.": _epoch(batches, 1),
        "The gradients are added up but never divided, so the step is too large by a factor of the number of "
        "micro-batches in a window.": _epoch(batches, steps, sums=True),
        "The gradients are never cleared, so those from the first windows are still there in all later steps.": (
            _epoch(batches, steps, clear=False)
        ),
    }
    expect(got, expected, "the parameters after the epoch", mistakes, rtol=1e-6, atol=1e-8)
    most, largest = max(samples, default=0), max(sizes)
    hint = "Accumulation saves memory because the model sees one micro-batch at a time: run it on each of them in turn."
    require(most <= largest, f"the model saw {most} samples at once; a micro-batch has at most {largest}.", hint)
    hint = "A sum of losses keeps the graphs of all its micro-batches in memory. Call backward() on each loss."
    count = f"backward was called {len(backwards)} times for {len(batches)} micro-batches"
    require(len(backwards) == len(batches), f"{count}; it should be called once for each.", hint)
    answer(model, batches, optimizer, steps)
    got = nn.utils.parameters_to_vector(model.parameters()).detach()
    hint = "Gradients from the first epoch are left in the second. Clear them before each window, or after each step."
    expected = _epoch(merged, 1, epochs=2)
    expect(got, expected, "the parameters after a second epoch", otherwise=hint, rtol=1e-6, atol=1e-8)


accumulation.add("6 micro-batches, 3 to a step", compare_epoch, (4, 4, 4, 4, 4, 4), 3)
accumulation.add("5 micro-batches, 3 to a step: an incomplete last window", compare_epoch, (4, 4, 4, 4, 4), 3)
accumulation.add("a last micro-batch of 1 sample", compare_epoch, (4, 4, 4, 1), 2)


def compare_shift(answer, keep, mean, variance, expected=None, **tolerance):
    """Compare with the ratio of the variances in evaluation and in training, or with the measured one."""
    second_moment, drop = variance + mean**2, 1 - keep
    exact = variance / (second_moment / keep - mean**2)
    mistakes = {
        "That is the ratio for inputs with zero mean. The mean matters: in training its square is scaled too.": keep,
        "The probability you are given is that of KEEPING a value.": variance / (second_moment / drop - mean**2),
        "The ratio is upside down: the question asks for evaluation over training.": 1 / exact,
        "Kept values are divided by keep, so their squares are divided by keep^2. That happens with probability keep, "
        "so the second moment grows by a factor of 1 / keep.": keep**2,
        "Subtract the squared mean from the second moment: the variance is E[y^2] - E[y]^2.": (
            variance / (second_moment / keep)
        ),
    }
    expect(answer(keep, mean, variance), exact if expected is None else expected, "the ratio", mistakes, **tolerance)


@dropout_shift.case("zero mean, keep 0.5: measured with nn.Dropout")
def shift_measured(answer):
    x = sample(400_000)
    measured = x.var() / F.dropout(x, 0.5, training=True).var()
    compare_shift(answer, 0.5, 0.0, 1.0, measured, rtol=0.02)


@dropout_shift.case("after a ReLU, keep 0.9: measured with nn.Dropout")
def shift_relu(answer):
    x = sample(400_000).relu()
    measured = x.var() / F.dropout(x, 0.1, training=True).var()
    compare_shift(answer, 0.9, x.mean().item(), x.var().item(), measured, rtol=0.01)


dropout_shift.add("mean 2, variance 3, keep 0.8", compare_shift, 0.8, 2.0, 3.0)
