"""Set 4: the bug zoo, and a layer of your own (chapters 6, 10 and 11).

Every creature has one bug that real courses and code bases have shipped. A ``BatchNorm2d`` of one's own is tested by
the same cases everywhere: what ``torch.nn.BatchNorm2d`` passes, and every creature fails.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import expect, require, sample
from bncourse.exercises.exercise import Exercise
from bncourse.exercises.normalizing_a_batch import CANCELLATION, batch_norm_mistakes, compare_gradient, standardized
from bncourse.exercises.training_and_inference import running_mistakes

BY_GRAD_MODE = (
    "The mode follows torch.is_grad_enabled(). Ask self.training: gradients can be on in evaluation "
    "(saliency, fine-tuning) and off in training (recalibration)."
)
PLAIN_TENSORS = (
    "The running statistics are plain tensors, which state_dict(), .to() and .cuda() do not see. "
    "Use self.register_buffer(name, tensor)."
)
KEEPS_GRAPH = (
    "The update of the running statistics is part of the graph, which grows at every step. "
    "Update them under torch.no_grad()."
)
AFTER_ADDITION = (
    "BatchNorm stands after the addition, so it normalizes the shortcut too and no signal passes unchanged. "
    "It belongs in the branch, before the addition."
)
TOO_EASY = (
    "With 2 samples the outputs are +1 and -1 whatever the inputs, so the true gradient is about zero, and so is "
    "that of almost any code; and the sum of the outputs never changes. Take at least 4 samples and weigh the "
    "outputs differently."
)


layer = Exercise("layer", "A BatchNorm of your own", chapter=11, minutes=45, level="hard")
CREATURES = (
    ("zoo-mode", "The layer that forgets to sleep", 15, "medium"),
    ("zoo-buffers", "The layer with amnesia", 10, "easy"),
    ("zoo-variance", "The layer that counts wrong", 15, "medium"),
    ("zoo-momentum", "The layer that lives in the moment", 10, "easy"),
    ("zoo-graph", "The layer that never lets go", 15, "medium"),
    ("zoo-cancellation", "The layer that is afraid of heights", 15, "medium"),
    ("zoo-detached", "The layer that learns too little", 15, "medium"),
)
creatures = [Exercise(name, title, 10, minutes, level, layer.cases) for name, title, minutes, level in CREATURES]
bias = Exercise("zoo-bias", "The bias that nobody removed", chapter=10, minutes=10, level="easy")
residual = Exercise("zoo-residual", "The shortcut that is none", chapter=6, minutes=15, level="medium")
gradient_check = Exercise("zoo-gradient-check", "The check that cannot fail", chapter=10, minutes=25, level="hard")
EXERCISES = (*creatures, bias, residual, gradient_check, layer)


def build(answer) -> nn.Module:
    """An instance of the learner's class, whose parameters and running statistics are not 1 and 0."""
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    require(is_class, "the answer should be your class, an nn.Module.")
    layer = answer(3)
    for name in ("weight", "bias"):
        parameter = getattr(layer, name, None)
        require(
            isinstance(parameter, nn.Parameter) and parameter.shape == (3,),
            f"the layer should have an nn.Parameter `{name}` of shape (3,).",
        )
    for name in ("running_mean", "running_var"):
        there = isinstance(getattr(layer, name, None), torch.Tensor)
        require(there, f"the layer should have the running statistic `{name}`.")
    with torch.no_grad():
        layer.weight.copy_(sample(3, seed=2) + 3)
        layer.bias.copy_(sample(3, seed=3))
        layer.running_mean.copy_(sample(3, seed=5))
        layer.running_var.copy_(sample(3, seed=6).square() + 1)
    return layer.train()


def torch_twin(layer: nn.Module) -> nn.BatchNorm2d:
    """torch's layer with the same weight, bias and running statistics."""
    twin = nn.BatchNorm2d(len(layer.weight)).to(layer.weight.dtype)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(twin, name).copy_(getattr(layer, name))
    return twin.train(layer.training)


@layer.case("training: the batch's own statistics")
def training_output(answer):
    layer, x = build(answer), 2 * sample(4, 3, 5, 5) + 1
    expected = torch_twin(layer)(x)
    mistakes = batch_norm_mistakes(x, layer.weight, layer.bias, 1e-5)
    by_running = "This is normalized by the running statistics. In training use the batch's own."
    mistakes[by_running] = torch_twin(layer).eval()(x)
    expect(layer(x), expected, "the output in training", mistakes)


@layer.case("training: the running statistics")
def running_update(answer):
    layer = build(answer)
    twin = torch_twin(layer)
    for step in range(3):
        x = 2 * sample(2, 3, 2, 2, seed=step) + step
        of_mean, of_variance = running_mistakes(twin.running_mean.clone(), twin.running_var.clone(), x)
        layer(x), twin(x)
        expect(layer.running_mean, twin.running_mean, "running_mean", of_mean)
        expect(layer.running_var, twin.running_var, "running_var", of_variance)


@layer.case("evaluation: the running statistics, whatever the gradient mode")
def evaluation_output(answer):
    layer, x = build(answer).eval(), 2 * sample(4, 3, 5, 5) + 1
    expected = torch_twin(layer)(x)
    before = layer.running_mean.clone()
    by_batch = {BY_GRAD_MODE: F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)}
    expect(layer(x), expected, "the output in evaluation, with gradients on", by_batch)
    require(torch.equal(before, layer.running_mean), "evaluating changed the running statistics.", BY_GRAD_MODE)
    with torch.no_grad():
        expect(layer(x), expected, "the output in evaluation, under no_grad")


@layer.case("training under no_grad still normalizes by the batch")
def training_without_gradients(answer):
    layer, x = build(answer), 2 * sample(4, 3, 5, 5) + 1
    twin = torch_twin(layer)
    with torch.no_grad():
        by_running = F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)
        expect(layer(x), twin(x), "the output in training, under no_grad", {BY_GRAD_MODE: by_running})
    expect(layer.running_mean, twin.running_mean, "running_mean after training under no_grad")


@layer.case("a checkpoint holds everything")
def checkpoint(answer):
    layer = build(answer)
    for step in range(5):
        layer(sample(4, 3, 2, 2, seed=step) + 5)
    saved = copy.deepcopy(dict(layer.state_dict()))
    missing = [name for name in ("weight", "bias", "running_mean", "running_var") if name not in saved]
    require(not missing, f"state_dict() has no {' and no '.join(missing)}.", PLAIN_TENSORS)
    loaded = build(answer)
    loaded.load_state_dict(saved)
    x = sample(2, 3, 2, 2, seed=9)
    expect(loaded.eval()(x), layer.eval()(x), "the output of a layer that loaded the checkpoint")


@layer.case("the layer moves as a whole")
def moves(answer):
    layer = build(answer).to(torch.float64)
    moved = layer.running_mean.dtype == layer.running_var.dtype == torch.float64
    require(moved, "layer.to(torch.float64) left the statistics behind.", PLAIN_TENSORS)
    layer = build(answer).to("meta")
    require(layer.running_var.is_meta, "layer.to(device) left the statistics behind.", PLAIN_TENSORS)


@layer.case("no graph is kept from step to step")
def no_graph(answer):
    layer = build(answer)
    for step in range(2):
        layer(sample(4, 3, 2, 2, seed=step).requires_grad_()).square().sum().backward()
        held = [name for name in ("running_mean", "running_var") if getattr(layer, name).requires_grad]
        require(not held, f"after a training step {' and '.join(held)} carries a graph.", KEEPS_GRAPH)
    copy.deepcopy(layer)


@layer.case("the gradient of x")
def gradient(answer):
    layer = build(answer).double()
    hint = "Only the update belongs in no_grad."
    compare_gradient(layer, torch_twin(layer), 2 * sample(4, 3, 2, 2) + 1, layer.weight, hint)


@layer.case("a large offset: inputs near 10,000")
def large_offset(answer):
    layer, x = build(answer), sample(8, 3, 4, 4) + 1e4
    expected = torch_twin(layer.double())(x.double())
    got = layer.float()(x)
    expect(got, expected, "the output for inputs near 10,000", otherwise=CANCELLATION, rtol=1e-2, atol=1e-2)


def compare_bias(answer, norm, what, hint=None, *, bias=False):
    """The block's convolution has a bias, or it has none."""
    block = answer(norm, 3, 8)
    require(isinstance(block, nn.Module), f"the block should be an nn.Module; got a {type(block).__name__}.")
    found = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    require(len(found) == 1, f"the block should hold one convolution; it holds {len(found)}.")
    fault = "has lost its bias" if bias else "still has its bias"
    require((found[0].bias is not None) == bias, f"with {what} the convolution {fault}.", hint)


CLASS_NOT_LAYER = (
    "`norm` is a class, not a layer: isinstance(norm, nn.BatchNorm2d) is never true of it. Ask issubclass."
)
SUBCLASSES = "Comparing with == misses subclasses. Ask issubclass."
Derived = type("Derived", (nn.BatchNorm2d,), {})
bias.add("no bias before BatchNorm2d", compare_bias, nn.BatchNorm2d, "nn.BatchNorm2d", CLASS_NOT_LAYER)
bias.add(
    "no bias before a layer derived from BatchNorm2d", compare_bias, Derived, "a subclass of nn.BatchNorm2d", SUBCLASSES
)


@bias.case("a bias where nothing replaces it")
def keeps_bias(answer):
    hint = "Nothing replaces it there: drop the bias only before BatchNorm. (`norm` may also be a plain function.)"
    compare_bias(answer, nn.BatchNorm2d, "nn.BatchNorm2d")
    compare_bias(answer, lambda channels: nn.Identity(), "no norm", hint, bias=True)


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


def right_batch_norm(x):
    """What the learner's check must accept: x is (N, C), in training mode."""
    return standardized(x, (0,))


def constant_statistics(x):
    """Mean and variance as constants: the bug of ``zoo-detached``."""
    return (x - x.detach().mean(0)) * (x.detach().var(0, correction=0) + 1e-5).rsqrt()


def constant_variance(x):
    """The variance alone as a constant."""
    return (x - x.mean(0)) * (x.detach().var(0, correction=0) + 1e-5).rsqrt()


def no_gradient(x):
    """A gradient of zero for every input."""
    return right_batch_norm(x.detach()) + 0 * x


def _verdict(answer, batch_norm):
    verdict = answer(batch_norm)
    require(isinstance(verdict, bool), f"the check should return True or False; got {verdict!r}.")
    return verdict


@gradient_check.case("a right BatchNorm is accepted")
def accepts_right(answer):
    require(
        _verdict(answer, right_batch_norm), "a right BatchNorm is rejected.", "Compare in float64; allow rounding only."
    )
    require(not _verdict(answer, no_gradient), "so is one whose gradient is zero.", TOO_EASY)


def reject(answer, batch_norm, what, hint=TOO_EASY):
    """The learner's check rejects this BatchNorm."""
    require(not _verdict(answer, batch_norm), f"a BatchNorm {what} passes.", hint)


BY_ELEMENT = f"{TOO_EASY} Compare element by element, with a small tolerance."
gradient_check.add(
    "constant mean and variance are rejected", reject, constant_statistics, "without gradient through them"
)
gradient_check.add(
    "a constant variance is rejected", reject, constant_variance, "without gradient through the variance", BY_ELEMENT
)
gradient_check.add("a zero gradient is rejected", reject, no_gradient, "with a gradient of zero")
