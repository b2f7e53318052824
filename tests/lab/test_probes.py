"""What the probe records is what torch computes, and it leaves no trace."""

import pytest
import torch
from torch import nn

from bncourse.probes import outputs_of, record


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
    assert layers["0"].gradient_norm == []


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
