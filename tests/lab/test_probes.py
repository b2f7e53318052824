"""What the probe records is what torch computes, and it leaves no trace."""

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bncourse.probes import outputs_of, record, watch


def test_record_agrees_with_torch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    x = torch.randn(16, 4) + 3
    with record(model) as layers:
        model(x).square().sum().backward()
    assert list(layers) == ["0", "2"]
    hidden = model[0](x).relu()
    out = model[2](hidden)
    seen = layers["2"]
    assert seen.input_mean == pytest.approx([hidden.mean().item()])
    assert seen.input_std == pytest.approx([hidden.std(correction=0).item()])
    assert seen.output_mean == pytest.approx([out.mean().item()])
    assert seen.gradient_norm == pytest.approx([(2 * out).norm().item()])


def test_after_the_block_nothing_is_recorded_even_if_it_failed():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="stop"), record(model) as layers:
        raise RuntimeError("stop")
    model(torch.ones(1, 2))
    assert layers["0"].input_mean == [] and not model[0]._forward_hooks


def test_no_gradients_are_asked_of_an_evaluation():
    model = nn.Sequential(nn.Linear(2, 2))
    with record(model) as layers, torch.no_grad():
        model(torch.ones(1, 2))
    assert len(layers["0"].output_std) == 1 and math.isnan(layers["0"].gradient_norm[0])


def test_a_layer_that_gives_no_single_tensor_is_named():
    for model, x in ((nn.LSTM(3, 4), torch.randn(2, 1, 3)), (nn.Embedding(3, 4), torch.tensor([1]))):
        model = nn.Sequential(model)
        with pytest.raises(TypeError, match=r"(input|output) of .* '0' must be .* got (tuple|torch.int64).*kinds"):
            with record(model, type(model[0])):
                model(x)
        assert not model[0]._forward_hooks


def test_a_model_without_such_layers_is_named():
    with pytest.raises(ValueError, match="ReLU"):
        record(nn.ReLU()).__enter__()


def test_outputs_are_those_of_every_call_in_order():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    x = torch.randn(4, 3)
    with outputs_of(model, nn.Linear) as calls:
        y = model(x)
    model(x)  # after the block nothing is kept
    first, second = calls
    assert first.name == second.name == "0" and first.layer is shared
    assert first.input is x and second.output is y
    torch.testing.assert_close(second.input, first.output.relu())


def gradients_of(outputs, loss):
    """What ``torch.autograd`` says about the outputs, in their order."""
    return [gradient.norm().item() for gradient in torch.autograd.grad(loss, outputs)]


class Recurrent(nn.Module):
    """Calls one layer three times; each time it shrinks the gradient."""

    def __init__(self, way="plain"):
        super().__init__()
        self.step, self.way = nn.Linear(3, 3, bias=False), way
        self.step.weight.data.copy_(0.1 * torch.eye(3))

    def forward(self, x):
        self.outputs = []
        for _ in range(3):
            if self.way == "plain":
                x = self.step(x)
            else:
                x = checkpoint(lambda x: self.step(x).sin(), x, use_reentrant=self.way == "reentrant")
            self.outputs.append(x)
        return x


def test_every_gradient_stands_at_the_place_of_its_call():
    model = Recurrent()
    x = torch.randn(5, 3)
    loss = model(2 * x).square().sum()
    expected = gradients_of(model.outputs, loss)
    with record(model) as seen:
        model(x)  # no backward pass
        model(2 * x).square().sum().backward()
        with torch.no_grad():
            model(x)
    norms = seen["step"].gradient_norm
    assert len(norms) == len(seen["step"].output_std) == 9
    assert norms[3:6] == pytest.approx(expected) and expected[0] < expected[1] < expected[2]
    assert all(map(math.isnan, norms[:3] + norms[6:]))


@pytest.mark.parametrize("way", ["reentrant", "not reentrant"])
def test_what_checkpointing_computes_again_is_not_another_call(way):
    model, plain = Recurrent(way), Recurrent()
    x = torch.randn(5, 3, requires_grad=True)
    calls = []
    with record(model) as seen, watch(model, nn.Linear, calls.append):
        model(x).square().sum().backward()
    with record(plain) as expected:
        y, outputs = x, []
        for _ in range(3):
            outputs.append(plain.step(y))
            y = outputs[-1].sin()
        y.square().sum().backward()
    assert len(calls) == 3 and len(seen["step"].output_std) == 3
    for ours, theirs in zip(seen["step"], expected["step"], strict=True):
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3)])
def test_an_activation_in_place_after_a_view_hides_no_gradient(shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(inplace=True))
    x = torch.randn(shape, requires_grad=True)
    with record(model) as seen:
        model(x).square().sum().backward()
    y = model[0](x)
    (expected,) = gradients_of([y], y.relu().square().sum())
    assert seen["0"].gradient_norm == pytest.approx([expected])


def test_a_norm_of_many_small_values_is_added_up_in_double_precision():
    model = nn.Sequential(nn.Identity())
    x = torch.ones(2**20, requires_grad=True)
    with record(model, nn.Identity) as seen:
        model(x * 1e-25).sum().mul(1e-25).backward()
    assert seen["0"].gradient_norm == pytest.approx([1e-25 * 2**10], rel=1e-6)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6: refused, as tested below")
@pytest.mark.parametrize("way", ["outside", "in place", "a part"])
@pytest.mark.parametrize("used", ["not", "in training", "in evaluation"])
def test_compiled_models_are_seen(way, used):
    torch.compiler.reset()
    part = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model = nn.Sequential(part, nn.Linear(3, 2))
    if way == "outside":
        model = torch.compile(model, backend="eager")
    elif way == "in place":
        model.compile(backend="eager")
    else:
        model[0] = torch.compile(part, backend="eager")
    x = torch.randn(4, 3)
    if used != "not":
        with torch.set_grad_enabled(used == "in training"):
            model.train(used == "in training")(x)
    with outputs_of(model, nn.Linear) as calls, record(model) as seen:
        model(x).sum().backward()
    assert len(calls) == 2 and not any(math.isnan(layer.gradient_norm[0]) for layer in seen.values())


def test_an_older_torch_says_that_it_cannot_see_a_compiled_model(monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    model = nn.Sequential(nn.Linear(3, 3))
    with record(model):
        model(torch.randn(4, 3))
    with pytest.raises(ValueError, match="must not be compiled where torch is older"):
        record(torch.compile(model, backend="eager")).__enter__()
    assert not model[0]._forward_hooks


def test_convolutions_of_every_kind_are_recorded():
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ConvTranspose1d(4, 2, 2), nn.Flatten(), nn.Linear(6, 1))
    with record(model) as seen:
        model(torch.randn(2, 3, 2))
    assert list(seen) == ["0", "1", "3"]
