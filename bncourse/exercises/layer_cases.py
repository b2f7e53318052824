"""The cases of a BatchNorm2d class: what torch.nn.BatchNorm2d passes, and every creature of the bug zoo fails."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import Wrong, expect, require, sample
from bncourse.exercises.forward import BATCH_AXIS_ONLY, CANCELLATION, CONSTANTS, PER_SAMPLE, UNBIASED
from bncourse.exercises.modes import BIASED_RUNNING, REVERSED

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


def build(answer, features: int = 3) -> nn.Module:
    """An instance of the learner's class, with a weight and a bias that are not 1 and 0."""
    require(
        isinstance(answer, type) and issubclass(answer, nn.Module), "the answer should be your class, an nn.Module."
    )
    layer = answer(features)
    for name in ("weight", "bias"):
        parameter = getattr(layer, name, None)
        require(
            isinstance(parameter, nn.Parameter) and parameter.shape == (features,),
            f"the layer should have an nn.Parameter `{name}` of shape ({features},).",
        )
    for name in ("running_mean", "running_var"):
        require(
            isinstance(getattr(layer, name, None), torch.Tensor),
            f"the layer should have the running statistic `{name}`.",
        )
    with torch.no_grad():
        layer.weight.copy_(sample(features, seed=2) + 3)
        layer.bias.copy_(sample(features, seed=3))
    return layer.train()


def torch_twin(layer: nn.Module) -> nn.BatchNorm2d:
    """torch's layer with the same weight, bias and running statistics."""
    twin = nn.BatchNorm2d(len(layer.weight)).to(layer.weight.dtype)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(twin, name).copy_(getattr(layer, name))
    return twin.train(layer.training)


def _expected(layer, x, mean, variance):
    shape = (1, -1, 1, 1)
    scale = layer.weight / (variance + 1e-5).sqrt()
    return (scale.reshape(shape) * (x - mean.reshape(shape)) + layer.bias.reshape(shape)).detach()


def training_output(answer):
    layer, x = build(answer), 2 * sample(4, 3, 5, 5) + 1
    expected = torch_twin(layer)(x)
    mistakes = {
        UNBIASED: _expected(layer, x, x.mean((0, 2, 3)), x.var((0, 2, 3))),
        "This is normalized by the running statistics. In training use the batch's own.": _expected(
            layer, x, torch.zeros(3), torch.ones(3)
        ),
        BATCH_AXIS_ONLY: F.batch_norm(x.flatten(1), None, None, training=True).reshape(x.shape)
        * layer.weight.detach().reshape(1, -1, 1, 1)
        + layer.bias.detach().reshape(1, -1, 1, 1),
        PER_SAMPLE: F.instance_norm(x, weight=layer.weight, bias=layer.bias).detach(),
    }
    expect(layer(x), expected, "the output in training", mistakes)


def running_update(answer):
    layer = build(answer)
    twin = torch_twin(layer)
    for step in range(3):
        x = 2 * sample(2, 3, 2, 2, seed=step) + step
        old_mean, old_variance = twin.running_mean.clone(), twin.running_var.clone()
        layer(x), twin(x)
        mean, biased, unbiased = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0), x.var((0, 2, 3))
        expect(
            layer.running_mean,
            twin.running_mean,
            "running_mean",
            {REVERSED: 0.1 * old_mean + 0.9 * mean, "The running mean never changes in training.": old_mean},
        )
        mistakes = {
            BIASED_RUNNING: 0.9 * old_variance + 0.1 * biased,
            REVERSED: 0.1 * old_variance + 0.9 * unbiased,
            "The running variance never changes in training.": old_variance,
        }
        expect(layer.running_var, twin.running_var, "running_var", mistakes)


def _with_statistics(layer):
    with torch.no_grad():
        layer.running_mean.copy_(sample(3, seed=5))
        layer.running_var.copy_(sample(3, seed=6).square() + 1)
    return layer


def evaluation_output(answer):
    layer, x = _with_statistics(build(answer)).eval(), 2 * sample(4, 3, 5, 5) + 1
    expected = torch_twin(layer)(x)
    before = layer.running_mean.clone()
    by_batch = {BY_GRAD_MODE: _expected(layer, x, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))}
    expect(layer(x), expected, "the output in evaluation, with gradients on", by_batch)
    require(torch.equal(before, layer.running_mean), "evaluating changed the running statistics.", BY_GRAD_MODE)
    with torch.no_grad():
        expect(layer(x), expected, "the output in evaluation, under no_grad")


def training_without_gradients(answer):
    layer, x = _with_statistics(build(answer)), 2 * sample(4, 3, 5, 5) + 1
    twin = torch_twin(layer)
    with torch.no_grad():
        by_running = {BY_GRAD_MODE: _expected(layer, x, layer.running_mean, layer.running_var)}
        expect(layer(x), twin(x), "the output in training, under no_grad", by_running)
    expect(layer.running_mean, twin.running_mean, "running_mean after training under no_grad")


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


def moves(answer):
    layer = build(answer).to(torch.float64)
    kinds = {name: getattr(layer, name).dtype for name in ("running_mean", "running_var")}
    require(
        set(kinds.values()) == {torch.float64}, "layer.to(torch.float64) left the statistics behind.", PLAIN_TENSORS
    )
    layer = build(answer).to("meta")
    require(layer.running_var.is_meta, "layer.to(device) left the statistics behind.", PLAIN_TENSORS)


def no_graph(answer):
    layer = build(answer)
    for step in range(2):
        layer(sample(4, 3, 2, 2, seed=step).requires_grad_()).square().sum().backward()
        held = [name for name in ("running_mean", "running_var") if getattr(layer, name).requires_grad]
        require(not held, f"after a training step {' and '.join(held)} carries a graph.", KEEPS_GRAPH)
    copy.deepcopy(layer)


def gradient(answer):
    layer = build(answer).double()
    x = (2 * sample(4, 3, 2, 2, dtype=torch.float64) + 1).requires_grad_()
    dy = sample(4, 3, 2, 2, seed=8, dtype=torch.float64)
    (expected,) = torch.autograd.grad(torch_twin(layer)(x), x, dy)
    output = layer(x)
    require(
        output.requires_grad, "the output does not depend on x for autograd.", "Only the update belongs in no_grad."
    )
    (got,) = torch.autograd.grad(output, x, dy)
    scale = (layer.weight / (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()).detach().reshape(1, -1, 1, 1)
    expect(got, expected, "the gradient of x", {CONSTANTS: dy * scale}, rtol=1e-3, atol=1e-4)


def large_offset(answer):
    layer, x = build(answer), sample(8, 3, 4, 4) + 1e4
    expected = torch_twin(layer.double())(x.double())
    try:
        expect(layer.float()(x), expected, "the output for inputs near 10,000", rtol=1e-2, atol=1e-2)
    except Wrong as wrong:
        raise Wrong(wrong.message, CANCELLATION) from None


LAYER_CASES = {
    "training: the batch's own statistics": training_output,
    "training: the running statistics": running_update,
    "evaluation: the running statistics, whatever the gradient mode": evaluation_output,
    "training under no_grad still normalizes by the batch": training_without_gradients,
    "a checkpoint holds everything": checkpoint,
    "the layer moves as a whole": moves,
    "no graph is kept from step to step": no_graph,
    "the gradient of x": gradient,
    "a large offset: inputs near 10,000": large_offset,
}
