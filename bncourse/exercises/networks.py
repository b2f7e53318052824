"""Set 3, first half: blocks and variants (chapters 5 to 7)."""

from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import Wrong, expect, require, sample
from bncourse.exercises.exercise import Exercise

REDUNDANT_BIAS = "BatchNorm subtracts the mean, and the bias with it; its own bias does the shift. Pass bias=False."
INTERLEAVED = (
    "The groups are interleaved. Group g holds neighbouring channels: reshape to (N, G, C // G, H, W), in that order."
)
PER_CHANNEL = "This normalizes every channel by itself: that is InstanceNorm. A group shares one mean and one variance."
WHOLE_SAMPLE = "This normalizes all channels of a sample together: that is one group (LayerNorm's statistics)."
ACROSS_BATCH = "This reduces over the batch axis too. GroupNorm treats each sample alone."

conv_block = Exercise("conv-block", "A convolution block", 5, 10, "easy")
norm_axes = Exercise("norm-axes", "Which axes does each norm average over?", 7, 10, "easy")
group_norm = Exercise("group-norm", "GroupNorm", 7, 15, "medium")
EXERCISES = (conv_block, norm_axes, group_norm)


def _parts(block):
    require(isinstance(block, nn.Module), f"the block should be an nn.Module; got a {type(block).__name__}.")
    parts = [part for part in block.modules() if not list(part.children())]
    for kind, name in ((nn.Conv2d, "convolution"), (nn.modules.batchnorm._BatchNorm, "BatchNorm"), (nn.ReLU, "ReLU")):
        found = sum(_is(part, kind) for part in parts)
        require(found == 1, f"the block should hold one {name}; it holds {found}.", "Conv2d, BatchNorm2d, ReLU.")
    return parts


def _is(part, kind):
    return isinstance(part, kind) or (kind is nn.modules.batchnorm._BatchNorm and "BatchNorm" in type(part).__name__)


@conv_block.case("the paper's order: convolution, BatchNorm, ReLU")
def block_order(answer):
    convolution, norm, relu = _parts(answer(3, 8, 3))
    in_order = _is(convolution, nn.Conv2d) and _is(norm, nn.modules.batchnorm._BatchNorm) and _is(relu, nn.ReLU)
    names = ", ".join(type(part).__name__ for part in (convolution, norm, relu))
    require(
        in_order, f"the order is {names}.", "The paper normalizes before the nonlinearity: Conv2d, BatchNorm2d, ReLU."
    )


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


def compare_axes(answer, name, expected, hints):
    """Standardize a batch of images over the learner's axes and compare with torch's layer."""
    require(isinstance(answer, dict) and name in answer, f'the answer should be a dict with the key "{name}".')
    axes = answer[name]
    if axes is ... or axes is None:
        raise Wrong("not answered yet")
    require(
        isinstance(axes, tuple | list | int) and not isinstance(axes, bool),
        f"axes should be a tuple of integers; got {type(axes).__name__}.",
    )
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    x = sample(4, 6, 5, 5)
    layers = {
        "batch": nn.BatchNorm2d(6),
        "layer": nn.LayerNorm((6, 5, 5)),
        "instance": nn.InstanceNorm2d(6),
        "group": nn.GroupNorm(2, 6),
    }
    view = x.reshape(4, 2, 3, 5, 5) if name == "group" else x
    positive = tuple(sorted(axis % view.dim() if -view.dim() <= axis < view.dim() else axis for axis in axes))
    require(all(0 <= axis < view.dim() for axis in positive), f"there is no such axis in {axes}.")
    got = (view - view.mean(positive, keepdim=True)) / (view.var(positive, correction=0, keepdim=True) + 1e-5).sqrt()
    try:
        expect(got.reshape(x.shape), layers[name](x), f"a batch standardized over {positive}")
    except Wrong as wrong:
        raise Wrong(wrong.message, hints.get(positive, f"{name} norm averages over {len(expected)} axes.")) from None


@norm_axes.case("batch: BatchNorm2d")
def axes_batch(answer):
    hints = {(0,): BATCH_ALONE, (2, 3): "That is InstanceNorm: BatchNorm averages over the batch too."}
    compare_axes(answer, "batch", (0, 2, 3), hints | {(1,): "That is the channel axis: the one that BatchNorm keeps."})


@norm_axes.case("layer: LayerNorm((C, H, W))")
def axes_layer(answer):
    hints = {
        (
            1,
        ): "LayerNorm((C, H, W)) averages over all of a sample. Over channels alone is what ConvNeXt's variant does.",
        (0, 1, 2, 3): "Not over the batch: LayerNorm treats each sample alone.",
    }
    compare_axes(answer, "layer", (1, 2, 3), hints)


@norm_axes.case("instance: InstanceNorm2d")
def axes_instance(answer):
    hints = {
        (1, 2, 3): "That is each sample. InstanceNorm is each sample AND each channel: over space only.",
        (0, 2, 3): "That is BatchNorm. InstanceNorm treats each sample alone.",
    }
    compare_axes(answer, "instance", (2, 3), hints)


@norm_axes.case("group: GroupNorm, after the reshape to (N, G, C // G, H, W)")
def axes_group(answer):
    hints = {
        (1, 2, 3, 4): "That averages over the groups too: it is LayerNorm. Each group keeps its own statistics.",
        (3, 4): "That is InstanceNorm. The C // G channels of a group share their statistics.",
        (1, 3, 4): "That mixes the groups and keeps the channels within them apart: it is the other way round.",
    }
    compare_axes(answer, "group", (2, 3, 4), hints)


BATCH_ALONE = "Over the batch axis alone every pixel has its own statistics. A channel shares one mean over all pixels."


def _normalized(view, axes, eps):
    return (view - view.mean(axes, keepdim=True)) / (view.var(axes, correction=0, keepdim=True) + eps).sqrt()


def compare_group_norm(answer, x, groups, eps=1e-5):
    """Compare with torch's, with a weight and a bias that differ by channel."""
    samples, channels, *space = x.shape
    weight, bias = sample(channels, seed=2) + 3, sample(channels, seed=3)
    expected = F.group_norm(x, groups, weight, bias, eps)
    by_channel = (1, -1) + (1,) * len(space)

    def affine(normalized):
        return normalized.reshape(x.shape) * weight.reshape(by_channel) + bias.reshape(by_channel)

    flat = x.reshape(samples, channels, -1)
    grouped = flat.reshape(samples, groups, channels // groups, -1)
    mixed = flat.reshape(samples, channels // groups, groups, -1)
    mistakes = {
        PER_CHANNEL: affine(_normalized(flat, (2,), eps)),
        WHOLE_SAMPLE: affine(_normalized(flat, (1, 2), eps)),
        INTERLEAVED: affine(_normalized(mixed, (1, 3), eps)),
        ACROSS_BATCH: affine(_normalized(grouped, (0, 2, 3), eps)),
        "This is the result without weight and bias.": _normalized(grouped, (2, 3), eps).reshape(x.shape),
        "This is the unbiased variance. Divide by m: pass correction=0.": affine(
            (grouped - grouped.mean((2, 3), keepdim=True)) / (grouped.var((2, 3), keepdim=True) + eps).sqrt()
        ),
    }
    expect(answer(x, groups, weight, bias, eps), expected, "the output", mistakes)


@group_norm.case("3 groups of 2 channels: a (4, 6, 5, 3) batch")
def group_norm_groups(answer):
    compare_group_norm(answer, 2 * sample(4, 6, 5, 3) + 1, 3)


@group_norm.case("2 groups of 4 channels, eps 0.1")
def group_norm_eps(answer):
    compare_group_norm(answer, sample(2, 8, 3, 3), 2, eps=0.1)


@group_norm.case("a batch of one image")
def group_norm_single(answer):
    compare_group_norm(answer, sample(1, 6, 4, 4) - 2, 2)
