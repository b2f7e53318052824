"""Set 4: the bug zoo, and a layer of your own (chapters 6, 10 and 11).

Every creature has one bug that real courses and code bases have shipped.
"""

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import expect, require, sample
from bncourse.exercises.exercise import Case, Exercise
from bncourse.exercises.layer_cases import LAYER_CASES


def layer_exercise(name: str, title: str, minutes: int, level: str, chapter: int = 10) -> Exercise:
    """An exercise whose answer is a BatchNorm2d class, with all the cases of one."""
    return Exercise(name, title, chapter, minutes, level, [Case(*case) for case in LAYER_CASES.items()])


mode = layer_exercise("zoo-mode", "The layer that forgets to sleep", 15, "medium")
buffers = layer_exercise("zoo-buffers", "The layer with amnesia", 10, "easy")
variance = layer_exercise("zoo-variance", "The layer that counts wrong", 15, "medium")
momentum = layer_exercise("zoo-momentum", "The layer that lives in the moment", 10, "easy")
graph = layer_exercise("zoo-graph", "The layer that never lets go", 15, "medium")
cancellation = layer_exercise("zoo-cancellation", "The layer that is afraid of heights", 15, "medium")
detached = layer_exercise("zoo-detached", "The layer that learns too little", 15, "medium")
bias = Exercise("zoo-bias", "The bias that nobody removed", 10, 10, "easy")
residual = Exercise("zoo-residual", "The shortcut that is none", 6, 15, "medium")
gradient_check = Exercise("zoo-gradient-check", "The check that cannot fail", 10, 25, "hard")
layer = layer_exercise("layer", "A BatchNorm of your own", 45, "hard", chapter=11)
EXERCISES = (mode, buffers, variance, momentum, graph, cancellation, detached, bias, residual, gradient_check, layer)


class _Subclass(nn.BatchNorm2d):
    pass


def _convolution(block):
    require(isinstance(block, nn.Module), f"the block should be an nn.Module; got a {type(block).__name__}.")
    found = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    require(len(found) == 1, f"the block should hold one convolution; it holds {len(found)}.")
    return found[0]


@bias.case("no bias before BatchNorm2d")
def no_bias(answer):
    require(
        _convolution(answer(nn.BatchNorm2d, 3, 8)).bias is None,
        "with nn.BatchNorm2d the convolution still has its bias.",
        "`norm` is a class, not a layer: isinstance(norm, nn.BatchNorm2d) is never true of it. Ask issubclass.",
    )


@bias.case("no bias before a layer derived from BatchNorm2d")
def no_bias_subclass(answer):
    require(
        _convolution(answer(_Subclass, 3, 8)).bias is None,
        "with a subclass of nn.BatchNorm2d the convolution still has its bias.",
        "Comparing with == misses subclasses. Ask issubclass.",
    )


@bias.case("a bias where nothing replaces it")
def keeps_bias(answer):
    require(_convolution(answer(nn.BatchNorm2d, 3, 8)).bias is None, "with nn.BatchNorm2d there is still a bias.")
    require(
        _convolution(answer(lambda channels: nn.Identity(), 3, 8)).bias is not None,
        "without a norm the convolution has lost its bias.",
        "Nothing replaces it there: drop the bias only before BatchNorm. (`norm` may also be a plain function.)",
    )


def _residual_block(answer):
    require(isinstance(answer, type) and issubclass(answer, nn.Module), "the answer should be your class.")
    block = answer(4)
    missing = [name for name in ("conv1", "norm1", "conv2", "norm2") if not hasattr(block, name)]
    require(not missing, f"the block should keep its parts' names; it has no {', '.join(missing)}.")
    return block


@residual.case("with the last BatchNorm at zero, the block is relu(x)")
def residual_identity(answer):
    block, x = _residual_block(answer), 2 * sample(4, 4, 5, 5) + 1
    nn.init.zeros_(block.norm2.weight)
    nn.init.zeros_(block.norm2.bias)
    mistakes = {AFTER_ADDITION: torch.zeros_like(x), "The shortcut goes around the last ReLU too.": x}
    expect(block(x), x.relu(), "the output", mistakes)


@residual.case("shortcut plus branch, then ReLU")
def residual_values(answer):
    block, x = _residual_block(answer), 2 * sample(4, 4, 5, 5) + 1
    branch = block.conv2(F.relu(block.norm1(block.conv1(x))))
    expected = F.relu(x + block.norm2(branch))
    mistakes = {
        AFTER_ADDITION: F.relu(block.norm2(x + branch)),
        "The shortcut is missing.": F.relu(block.norm2(branch)),
        "The branch has its ReLU before the addition: the sum comes first.": x + F.relu(block.norm2(branch)),
    }
    expect(block(x), expected, "the output", mistakes)


AFTER_ADDITION = (
    "BatchNorm stands after the addition, so it normalizes the shortcut too and no signal passes unchanged. "
    "It belongs in the branch, before the addition."
)


def right_batch_norm(x):
    """What the learner's check must accept: x is (N, C), in training mode."""
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


def constant_statistics(x):
    """Mean and variance as constants (bug 6 of the zoo)."""
    with torch.no_grad():
        mean, scale = x.mean(0), (x.var(0, correction=0) + 1e-5).rsqrt()
    return (x - mean) * scale


def constant_variance(x):
    """The variance alone as a constant."""
    return (x - x.mean(0)) * (x.var(0, correction=0) + 1e-5).rsqrt().detach()


def no_gradient(x):
    """A gradient of zero for every input."""
    return right_batch_norm(x.detach()) + 0 * x


def _verdict(answer, batch_norm):
    verdict = answer(batch_norm)
    require(isinstance(verdict, bool), f"the check should return True or False; got {verdict!r}.")
    return verdict


TOO_EASY = (
    "With 2 samples the outputs are +1 and -1 whatever the inputs, so the true gradient is about zero, and so is "
    "that of almost any code; and the sum of the outputs never changes. Take at least 4 samples and weigh the "
    "outputs differently."
)


@gradient_check.case("a right BatchNorm is accepted")
def accepts_right(answer):
    require(
        _verdict(answer, right_batch_norm), "a right BatchNorm is rejected.", "Compare in float64; allow rounding only."
    )
    require(not _verdict(answer, no_gradient), "so is one whose gradient is zero.", TOO_EASY)


@gradient_check.case("constant mean and variance are rejected")
def rejects_constants(answer):
    require(not _verdict(answer, constant_statistics), "a BatchNorm without gradient through them passes.", TOO_EASY)


@gradient_check.case("a constant variance is rejected")
def rejects_constant_variance(answer):
    require(
        not _verdict(answer, constant_variance),
        "a BatchNorm without gradient through the variance passes.",
        f"{TOO_EASY} Compare element by element, with a small tolerance.",
    )


@gradient_check.case("a zero gradient is rejected")
def rejects_zero(answer):
    require(not _verdict(answer, no_gradient), "a BatchNorm with a gradient of zero passes.", TOO_EASY)
