"""Set 4: the bug zoo, and a layer of your own (chapters 6, 10 and 11).

The creatures are different layers, so that no class solves two of them, and each is compared with the function of torch
that it should be. A ``BatchNorm2d`` of the learner's own is tested by all that can go wrong in one.
"""

import copy
import dis
from difflib import SequenceMatcher
from functools import partial
from itertools import product

import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bncourse.exercises import creatures
from bncourse.exercises.compare import CaseFailed, expect, require, sample, two_slips
from bncourse.exercises.exercise import Exercise
from bncourse.exercises.normalizing_a_batch import (
    CANCELLATION,
    CONSTANTS,
    EPS_OUTSIDE,
    PER_SAMPLE,
    UNBIASED,
    batch_norm_mistakes,
    compare_gradient,
    standardized,
)
from bncourse.exercises.training_and_inference import running_mistakes

BY_GRADIENTS = (
    "Gradients decide which statistics are used. Ask self.training, and nothing else: gradients can be on in "
    "evaluation (saliency, fine-tuning) and off in training (recalibration)."
)
BY_BATCH = "This is normalized with the batch's statistics. In evaluation use the running statistics."
BY_RUNNING = "This is normalized with the running statistics. In training use the batch's own."
PLAIN_TENSORS = (
    "The running statistics are plain tensors, which state_dict(), .to() and .cuda() do not see. "
    "Use self.register_buffer(name, tensor)."
)
KEEPS_GRAPH = (
    "The update of the running statistics is part of the graph, which grows at every step. "
    "Update them under torch.no_grad()."
)
AFTER_ADDITION = (
    "BatchNorm comes after the addition, so it normalizes the shortcut too, and no signal passes through unchanged. "
    "It belongs in the branch, before the addition."
)
SUMMED = (
    "The sum of BatchNorm's outputs does not depend on its inputs, so its gradient is zero, and so is the one that "
    "almost any code gives. Weight the outputs differently, with random numbers instead of the ones that a sum uses."
)
TWO_SAMPLES = (
    "With 2 samples the outputs are +1 and -1, apart from eps, so the gradient is tiny, and a larger tolerance accepts "
    "any other small one, zero included. Use at least 4 samples."
)
TOLERANT = "Compare element by element, in float64 and with a small tolerance."
RAISES = "gradcheck raises an error when a gradient is wrong: catch that, or pass raise_exception=False."
IN_PLACE = "Fix the class that the notebook gives you, in place: one line or a few."
KEPT = 0.65  # of the instructions of a creature, at least: fixes keep over 0.8, other creatures share at most 0.6

layer = Exercise("layer", "A BatchNorm of your own", chapter=11, minutes=45, level="hard")
mode = Exercise("zoo-mode", "The layer that forgets to sleep", chapter=10, minutes=15, level="medium")
buffers = Exercise("zoo-buffers", "The layer with amnesia", chapter=10, minutes=10, level="easy")
variance = Exercise("zoo-variance", "The layer that counts wrong", chapter=10, minutes=15, level="medium")
momentum = Exercise("zoo-momentum", "The layer that lives in the moment", chapter=10, minutes=10, level="easy")
graph = Exercise("zoo-graph", "The layer that never lets go", chapter=10, minutes=15, level="medium")
cancellation = Exercise(
    "zoo-cancellation", "The layer that is afraid of heights", chapter=10, minutes=15, level="medium"
)
detached = Exercise("zoo-detached", "The layer that learns too little", chapter=10, minutes=15, level="medium")
bias = Exercise("zoo-bias", "The bias that nobody removed", chapter=10, minutes=10, level="easy")
residual = Exercise("zoo-residual", "The shortcut that is not one", chapter=6, minutes=15, level="medium")
gradient_check = Exercise("zoo-gradient-check", "The check that cannot fail", chapter=10, minutes=25, level="hard")
CREATURES = {
    mode: creatures.Sleepless,
    buffers: creatures.Amnesiac,
    variance: creatures.Miscounting,
    momentum: creatures.Forgetful,
    graph: creatures.Clinging,
    cancellation: creatures.Dizzy,
    detached: creatures.Halfhearted,
}
EXERCISES = (*CREATURES, bias, residual, gradient_check, layer)


class Calls(TorchFunctionMode):
    """Collects the names of the functions of torch that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, function, types, arguments=(), options=None):
        self.names.add(getattr(function, "__name__", ""))
        return function(*arguments, **(options or {}))


def own_work(layer, *inputs):
    """The layer computes from tensors: it is not, has not and does not call a norm of torch or of this course."""
    for part in layer.modules():
        for kind in type(part).__mro__:
            theirs = kind.__module__.startswith(("torch.nn.modules", "bncourse.layers"))
            if theirs and kind.__name__ not in ("Module", "Sequential", "Identity"):
                found = f"{kind.__module__.split('.')[0]}'s {kind.__name__}"
                raise CaseFailed(f"{found} does the work.", "Write it from tensors: mean, var, sqrt and arithmetic.")
    with Calls() as calls:
        copy.deepcopy(layer)(*inputs)
    norms = sorted(name for name in calls.names if name.endswith("_norm"))
    require(not norms, f"the layer calls torch's {', '.join(norms)}.", "Write it from tensors: mean, var, sqrt.")


def instructions(kind):
    """What the methods of a class do, as Python's own instructions."""
    methods = (getattr(kind, name, None) for name in ("__init__", "forward"))
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    return [(step.opname, repr(step.argval)) for code in codes for step in dis.get_instructions(code)]


def listed(names):
    """Names in words: count, mean or var."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def is_creature(answer, creature, example, *options):
    """The answer is the creature with few lines changed."""
    make(answer, creature, *options)
    share = SequenceMatcher(None, instructions(answer), instructions(creature), autojunk=False).ratio()
    require(share >= KEPT, f"this is not {creature.__name__}: only {share:.0%} of it is left.", IN_PLACE)
    own_work(make(answer, creature, *options), *example)


def make(answer, creature, *options):
    """An instance of the learner's class, with parameters that are not 1 and 0."""
    require(isinstance(answer, type) and issubclass(answer, nn.Module), "the answer should be your class.")
    try:
        layer = answer(*options)
        state = {name for name, _ in (*layer.named_parameters(), *layer.named_buffers())}
    except TypeError as error:
        raise CaseFailed(f"this is not {creature.__name__}: {error}", IN_PLACE) from None
    original = creature(*options)
    missing = [name for name, _ in original.named_parameters() if name not in state]
    require(not missing, f"this is not {creature.__name__}: it has no {listed(missing)}.", IN_PLACE)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(sample(*parameter.shape, seed=2 + number) + 3)
    return layer.train()


def add_identity(exercise, example, *options):
    """The case that all creatures have."""
    name = f"{CREATURES[exercise].__name__} itself, with few lines changed"
    exercise.add(name, lambda answer: is_creature(answer, CREATURES[exercise], example, *options))


add_identity(mode, (sample(4, 3, 3, 2),), 2)
add_identity(buffers, (sample(6, 3),), 3)
add_identity(variance, (sample(4, 2, 3),), 2)
add_identity(momentum, (sample(4, 2, 3, 3),), 2)
add_identity(graph, (sample(6, 3), 1), 3, 2)
add_identity(cancellation, (sample(2, 6, 3, 3),), 2, 6)
add_identity(detached, (sample(2, 3, 5),), 5)


def by_torch(x, layer, training):
    """What torch's BatchNorm makes of x with the layer's weight, bias and running statistics."""
    given = None if training else layer.running_mean, None if training else layer.running_var
    return F.batch_norm(x, *given, layer.weight, layer.bias, training=training)


def channels_last(x, layer, training):
    """The same for images with the channels last."""
    return by_torch(x.movedim(-1, 1), layer, training).movedim(1, -1)


def awake(answer):
    layer = make(answer, creatures.Sleepless, 3)
    with torch.no_grad():
        layer.running_mean.copy_(sample(3, seed=5))
        layer.running_var.copy_(sample(3, seed=6).square() + 1)
    return layer, 2 * sample(4, 5, 6, 3) + 1


@mode.case("training: the batch's own statistics, remembered")
def awake_training(answer):
    layer, x = awake(answer)
    old_mean, old_variance = layer.running_mean.clone(), layer.running_var.clone()
    of_mean, of_variance = running_mistakes(old_mean, old_variance, x.movedim(-1, 1))
    within = standardized(x, (1, 2)) * layer.weight + layer.bias
    last = standardized(x, (3,)) * layer.weight + layer.bias
    unbiased = standardized(x, (0, 1, 2), correction=1) * layer.weight + layer.bias
    hints = {
        UNBIASED: unbiased,
        PER_SAMPLE: within,
        "The channels are last here: reduce over axes 0, 1 and 2.": last,
    }
    hints[BY_RUNNING] = channels_last(x, layer, training=False)
    expect(layer(x), channels_last(x, layer, training=True), "the output in training", hints)
    expect(layer.running_mean, old_mean.lerp(x.mean((0, 1, 2)), 0.1), "running_mean", of_mean)
    expect(layer.running_var, old_variance.lerp(x.var((0, 1, 2)), 0.1), "running_var", of_variance)


def in_every_setting(layer, x):
    """Copies of the layer and their outputs, by what must not decide its mode: who needs a gradient, and who records.

    A layer that is wrong in one of them leaves no trace in the next.
    """
    for on, needs, frozen in product((True, False), repeat=3):
        words = "with gradients on" if on else "under no_grad"
        words += " and an input that needs one" * (on and needs) + " and frozen parameters" * frozen
        twin = copy.deepcopy(layer).requires_grad_(not frozen)
        with torch.set_grad_enabled(on):
            yield words, twin, twin(x.clone().requires_grad_(needs))


def compare_mode(layer, x, right):
    """The layer is ``right(training=layer.training)``, whatever the gradients are, and remembers in training only."""
    what, always = ("training", BY_RUNNING) if layer.training else ("evaluation", BY_BATCH)
    expected, other = right(training=layer.training), right(training=not layer.training)
    settings = list(in_every_setting(layer, x))
    hint = always if all(agrees(output, other) for _, _, output in settings) else BY_GRADIENTS
    for words, twin, output in settings:
        expect(output, expected, f"the output in {what}, {words}", {hint: other})
        moved = not torch.equal(twin.running_mean, layer.running_mean)
        fault = "did not move" if layer.training else "has changed"
        require(moved == layer.training, f"in {what}, {words}, running_mean {fault}.", hint)
        expect(twin.running_mean, settings[0][1].running_mean, f"running_mean after {what}, {words}")


def agrees(got, expected):
    """Whether a value is the expected one."""
    try:
        expect(got, expected, "the value")
    except CaseFailed:
        return False
    return True


@mode.case("evaluation: the running statistics, whatever the gradient mode")
def awake_evaluation(answer):
    layer, x = awake(answer)
    compare_mode(layer.eval(), x, partial(channels_last, x, layer))


@mode.case("training: the batch's own statistics, whatever the gradient mode")
def awake_without_gradients(answer):
    layer, x = awake(answer)
    compare_mode(layer, x, partial(channels_last, x, layer))


def remembering(answer):
    layer, batches = make(answer, creatures.Amnesiac, 3), [sample(n, 3, seed=n) + n for n in (4, 6, 2)]
    for batch in batches:
        layer(batch)
    return layer, torch.cat(batches)


@buffers.case("the statistics of all that it has seen")
def remembers_all(answer):
    layer, seen = remembering(answer)
    expect(layer.mean, seen.mean(0), "mean")
    hints = {"This is the unbiased variance; the creature keeps the biased one.": seen.var(0)}
    expect(layer.var, seen.var(0, correction=0), "var", hints)
    x = sample(5, 3, seed=9)
    expected = (x - seen.mean(0)) / (seen.var(0, correction=0) + 1e-5).sqrt()
    expect(layer.eval()(x), expected, "the output in evaluation")


@buffers.case("a checkpoint holds everything")
def remembers_after_loading(answer):
    layer, _ = remembering(answer)
    saved = copy.deepcopy(dict(layer.state_dict()))
    missing = [name for name in ("count", "mean", "var") if name not in saved]
    require(not missing, f"state_dict() has no {listed(missing)}.", PLAIN_TENSORS)
    trained = [name for name, _ in layer.named_parameters()]
    require(not trained, f"{' and '.join(trained)} would be trained: a statistic is not a parameter.", PLAIN_TENSORS)
    loaded = make(answer, creatures.Amnesiac, 3)
    loaded.load_state_dict(saved)
    x = sample(2, 3, seed=9)
    expect(loaded(x), layer(x), "the output of a layer that loaded the checkpoint and goes on training")


@buffers.case("the layer moves as a whole")
def moves_with_all(answer):
    layer = make(answer, creatures.Amnesiac, 3).to(torch.float64)
    moved = layer.count.dtype == layer.mean.dtype == layer.var.dtype == torch.float64
    require(moved, "layer.to(torch.float64) left a statistic behind.", PLAIN_TENSORS)
    require(layer.to("meta").var.is_meta, "layer.to(device) left a statistic behind.", PLAIN_TENSORS)


def compare_remembered(answer, creature, batches):
    """Outputs in training and the running statistics, batch by batch, with what miscounting makes of them."""
    layer = make(answer, creature, batches[0].shape[1])
    weight = getattr(layer, "weight", torch.ones(batches[0].shape[1])).flatten()
    shift = getattr(layer, "bias", torch.zeros(batches[0].shape[1])).flatten()
    mean, var = layer.running_mean.clone().flatten(), layer.running_var.clone().flatten()
    for x in batches:
        hints = batch_norm_mistakes(x, weight, shift, 1e-5)
        of_mean, of_variance = running_mistakes(mean.clone(), var.clone(), x)
        expected = F.batch_norm(x, mean, var, weight, shift, training=True)
        expect(layer(x), expected, "the output in training", hints)
        expect(layer.running_mean.flatten(), mean, "running_mean", of_mean)
        expect(layer.running_var.flatten(), var, "running_var", of_variance)
    x = batches[0] + 1
    expect(layer.eval()(x), F.batch_norm(x, mean, var, weight, shift), "the output in evaluation")


SEQUENCES = [2 * sample(3, 2, 4, seed=step) + step for step in range(3)]
IMAGES = [sample(4, 2, 3, 2, seed=step) - step for step in range(3)]
variance.add("three steps on sequences: (3, 2, 4)", compare_remembered, creatures.Miscounting, SEQUENCES)
variance.add("two values a channel", compare_remembered, creatures.Miscounting, [sample(2, 3, 1)])
momentum.add("three steps on images: (4, 2, 3, 2)", compare_remembered, creatures.Forgetful, IMAGES)
momentum.add("small images: eps counts", compare_remembered, creatures.Forgetful, [1e-3 * IMAGES[0]])
momentum.add("one step on two images", compare_remembered, creatures.Forgetful, [sample(2, 3, 1, 2) + 5])


def carries_graph(names):
    """That these statistics carry a graph, in words."""
    return f"after a training step {' and '.join(names)} {'carries' if len(names) == 1 else 'carry'} a graph."


@graph.case("two training steps, and no graph between them")
def lets_go(answer):
    layer = make(answer, creatures.Clinging, 3, 4)
    for number in range(2):
        output = layer(sample(5, 3, seed=number).requires_grad_(), 1)
        held = [name for name, buffer in layer.named_buffers() if buffer.requires_grad]
        require(not held, carries_graph(held), KEEPS_GRAPH)
        output.square().sum().backward()
    copy.deepcopy(layer)


@graph.case("each time step has its own statistics")
def steps_apart(answer):
    layer, x = make(answer, creatures.Clinging, 3, 4), 2 * sample(5, 3) + 1
    of_mean, of_variance = running_mistakes(torch.zeros(3), torch.ones(3), x)
    expected = F.batch_norm(x, None, None, layer.weight, training=True)
    expect(layer(x, 2), expected, "the output in training")
    expect(layer.running_mean[2], 0.1 * x.mean(0), "running_mean of step 2", of_mean)
    expect(layer.running_var[2], torch.ones(3).lerp(x.var(0), 0.1), "running_var of step 2", of_variance)
    require(bool((layer.running_mean[[0, 1, 3]] == 0).all()), "another time step's running mean has changed.")
    expected = F.batch_norm(x, layer.running_mean[2], layer.running_var[2], layer.weight)
    expect(layer.eval()(x, 2), expected, "the output in evaluation")


@graph.case("the gradient of x")
def lets_gradient_through(answer):
    layer = make(answer, creatures.Clinging, 3, 2).double()
    twin = lambda x: F.batch_norm(x, None, None, layer.weight, training=True)  # noqa: E731
    hint = "Only the update belongs under no_grad."
    compare_gradient(lambda x: layer(x, 0), twin, 2 * sample(6, 3) + 1, layer.weight, hint)


def compare_groups(answer, x, **tolerance):
    """Compare with torch's GroupNorm, computed in float64."""
    layer = make(answer, creatures.Dizzy, 2, x.shape[1])
    weight, shift = layer.weight.flatten().double(), layer.bias.flatten().double()
    expect(layer(x), F.group_norm(x.double(), 2, weight, shift), "the output", otherwise=CANCELLATION, **tolerance)


cancellation.add("inputs around zero: (2, 6, 4, 4)", compare_groups, sample(2, 6, 4, 4))
cancellation.add("inputs near 10,000", compare_groups, sample(2, 6, 4, 4) + 1e4, rtol=2e-2, atol=2e-2)
cancellation.add("constant inputs near 1,000", compare_groups, torch.full((1, 4, 3, 3), 1000.1), atol=0.2)


def token_norm(x, layer, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], layer.gain, layer.shift, eps)


@detached.case("the output: (2, 3, 8)")
def whole_output(answer):
    layer, x = make(answer, creatures.Halfhearted, 8), 2 * sample(2, 3, 8) + 1
    unbiased = layer.gain * standardized(x, (-1,), correction=1) + layer.shift
    outside = layer.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + 1e-5) + layer.shift
    tiny = 1e-2 * sample(2, 3, 8)
    expect(layer(x), token_norm(x, layer), "the output", {UNBIASED: unbiased, EPS_OUTSIDE: outside})
    expect(layer(tiny), token_norm(tiny, layer), "the output for small inputs")


@detached.case("the gradient of x")
def whole_gradient(answer):
    layer, x = make(answer, creatures.Halfhearted, 8).double(), sample(2, 3, 8).double().requires_grad_()
    dy = sample(2, 3, 8, seed=4).double()
    output = layer(x)
    require(output.requires_grad, "the output has no gradient at all.", "Nothing here belongs under no_grad.")
    (got,) = torch.autograd.grad(output, x, dy)
    (expected,) = torch.autograd.grad(token_norm(x, layer), x, dy)
    mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    ways = {
        CONSTANTS: (mean.detach(), var.detach()),
        "The mean has its gradient now; the variance is still a constant.": (mean, var.detach()),
        "The variance has its gradient now; the mean is still a constant.": (mean.detach(), var),
    }
    hints = {}
    for hint, (m, v) in ways.items():
        (hints[hint],) = torch.autograd.grad(layer.gain * (x - m) / (v + 1e-5).sqrt(), x, dy, retain_graph=True)
    expect(got, expected, "the gradient of x", hints)


def build(answer) -> nn.Module:
    """An instance of the learner's class, whose parameters and running statistics are not 1 and 0."""
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    require(is_class, "the answer should be your class, an nn.Module.")
    layer = answer(3)
    own_work(layer, sample(4, 3, 2, 2))
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
    mistakes[BY_RUNNING] = torch_twin(layer).eval()(x)
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
    layer, x = build(answer), 2 * sample(4, 3, 5, 5) + 1
    compare_mode(layer.eval(), x, partial(by_torch, x, layer))


@layer.case("training: the batch's own statistics, whatever the gradient mode")
def training_without_gradients(answer):
    layer, x = build(answer), 2 * sample(4, 3, 5, 5) + 1
    compare_mode(layer, x, partial(by_torch, x, layer))


@layer.case("a checkpoint holds everything")
def checkpoint(answer):
    layer = build(answer)
    for step in range(5):
        layer(sample(4, 3, 2, 2, seed=step) + 5)
    saved = copy.deepcopy(dict(layer.state_dict()))
    missing = [name for name in ("weight", "bias", "running_mean", "running_var") if name not in saved]
    require(not missing, f"state_dict() has no {listed(missing)}.", PLAIN_TENSORS)
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
        require(not held, carries_graph(held), KEEPS_GRAPH)
    copy.deepcopy(layer)


@layer.case("the gradient of x")
def gradient(answer):
    layer = build(answer).double()
    hint = "Only the update belongs under no_grad."
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
    require(len(found) == 1, f"the block should contain one convolution; it contains {len(found)}.")
    fault = "has lost its bias" if bias else "still has its bias"
    require((found[0].bias is not None) == bias, f"with {what} the convolution {fault}.", hint)


CLASS_NOT_LAYER = (
    "`norm` is a class, not a layer: isinstance(norm, nn.BatchNorm2d) is never true of it. Ask issubclass."
)
SUBCLASSES = "Comparing with == or `is` misses subclasses. Ask issubclass."
NOTHING_REPLACES_IT = (
    "Nothing replaces it there: drop the bias only before BatchNorm. (`norm` may also be a plain function.)"
)
Derived = type("Derived", (nn.BatchNorm2d,), {})


def drops_bias(answer, norm, what, hint):
    """The hint is for a block that drops the bias elsewhere; one that keeps every bias takes the class for a layer."""
    try:
        compare_bias(answer, nn.BatchNorm2d, "nn.BatchNorm2d")
    except CaseFailed:
        hint = CLASS_NOT_LAYER
    compare_bias(answer, norm, what, hint)


bias.add("no bias before BatchNorm2d", drops_bias, nn.BatchNorm2d, "nn.BatchNorm2d", None)
bias.add(
    "no bias before a layer derived from BatchNorm2d",
    *(drops_bias, Derived, "a subclass of nn.BatchNorm2d", SUBCLASSES),
)


@bias.case("a bias where nothing replaces it")
def keeps_bias(answer):
    compare_bias(answer, lambda channels: nn.Identity(), "no norm", NOTHING_REPLACES_IT, bias=True)


def _residual_block(answer):
    require(isinstance(answer, type) and issubclass(answer, nn.Module), "the answer should be your class.")
    block = answer(4)
    missing = [name for name in ("conv1", "norm1", "conv2", "norm2") if not hasattr(block, name)]
    require(not missing, f"the block should keep the names of its parts; it has no {listed(missing)}.")
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
        "The branch has a ReLU before the addition, but the sum comes first.": x + F.relu(block.norm2(branch)),
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


class Spy:
    """A BatchNorm that notes what a check does with it."""

    def __init__(self, batch_norm):
        self.batch_norm, self.samples, self.constant = batch_norm, [], []

    def __call__(self, x):
        self.samples.append(len(x))
        output = self.batch_norm(x)
        if output.requires_grad:
            output.register_hook(lambda dy: self.constant.append(bool((dy == dy.flatten()[0]).all())))
        return output

    @property
    def hint(self):
        """What makes the check blind, as far as it can be seen from here."""
        two = TWO_SAMPLES if self.samples and max(self.samples) <= 2 else ""
        summed = SUMMED if self.constant and all(self.constant) else ""
        return two_slips(summed, two) or TOLERANT


def _verdict(answer, batch_norm):
    try:
        verdict = answer(batch_norm)
    except GradcheckError:
        raise CaseFailed("gradcheck raised GradcheckError.", RAISES) from None
    if isinstance(verdict, torch.Tensor) and verdict.numel() == 1:
        verdict = verdict.item()
    require(isinstance(verdict, bool), f"the check should return True or False; got {verdict!r}.")
    return verdict


@gradient_check.case("a correct BatchNorm is accepted")
def accepts_right(answer):
    for _ in range(3):  # a check that draws its inputs draws others each time
        right = _verdict(answer, right_batch_norm)
        require(right, "a correct BatchNorm is rejected.", "Compare in float64, and allow for rounding.")


def reject(answer, batch_norm, what):
    """The learner's check rejects this BatchNorm."""
    spy = Spy(batch_norm)
    require(not _verdict(answer, spy), f"a BatchNorm {what} is accepted as well.", spy.hint)


gradient_check.add(
    "constant mean and variance are rejected",
    *(reject, constant_statistics, "with its mean and variance held constant"),
)
gradient_check.add("a constant variance is rejected", reject, constant_variance, "with its variance held constant")
gradient_check.add("a zero gradient is rejected", reject, no_gradient, "whose gradient is zero")
