"""On the second device: every layer, forward and backward in both modes, and what surgery makes of a model there."""

import copy

import pytest
import second_device
import torch
from norm_cases import ALL
from torch import nn

import bncourse
from bncourse import surgery
from bncourse.models import Dropout, fc_network, small_cnn
from bncourse.standardize import standardize
from bncourse.studies.deployment import macs
from bncourse.studies.dropout import measured_ratio
from bncourse.studies.pytorch_implementation import layer_table
from bncourse.studies.variants import AttentionBlock, RowReaders, TokenBatchNorm

THERE = torch.device("pretend:0")
OTHERS = {
    "GhostBatchNorm": (lambda: bncourse.GhostBatchNorm(6, 4), (8, 6, 3, 3)),
    "GhostBatchNorm, a rest": (lambda: bncourse.GhostBatchNorm(6, 3), (8, 6)),
    "BatchRenorm": (lambda: bncourse.BatchRenorm(6), (8, 6, 3)),
    "WeightStandardizedConv2d": (lambda: bncourse.WeightStandardizedConv2d(6, 4, 3), (8, 6, 5, 5)),
    "FrozenBatchNorm": (lambda: bncourse.layers.FrozenBatchNorm(nn.BatchNorm2d(6)), (8, 6, 3, 3)),
    "TokenBatchNorm": (lambda: TokenBatchNorm(6), (4, 5, 6)),
    "Dropout": (lambda: Dropout(0.4), (8, 6)),
    "AttentionBlock": (lambda: AttentionBlock(bncourse.LayerNorm, 8, 2, causal=True), (4, 5, 8)),
    "RowReaders": (lambda: RowReaders([0, 1], "batch by step", (1, 6, 6), 8), (2, 4, 36)),
}
MODELS = {"cnn": lambda: small_cnn(channels=1, width=4), "fc": lambda: fc_network([64, 8, 6, 3], "batch relu dropout")}


@pytest.fixture(autouse=True)
def nothing_late():
    yield
    assert not second_device.LATE


def assert_same_there(layer, x):
    """Two training steps and an evaluation: outputs, gradients and state are those on the CPU."""
    twin, far = copy.deepcopy(layer).to(THERE), x.detach().to(THERE).requires_grad_()
    for training in (True, True, False):
        results = []
        for each, inputs in ((layer, x), (twin, far)):
            torch.manual_seed(0)
            y = each.train(training)(inputs)
            dy = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y).to(y.device)
            wanted = [tensor for tensor in (inputs, *each.parameters()) if tensor.requires_grad]
            results.append([y, *torch.autograd.grad(y, wanted, dy), *each.state_dict().values()])
        for ours, expected in zip(results[1], results[0], strict=True):
            assert ours.device == THERE
            torch.testing.assert_close(ours.detach().cpu(), expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_layers_that_torch_has_too(case, dtype):
    assert_same_there(case.build(dtype=dtype), case.input(dtype=dtype))


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers(name):
    make, shape = OTHERS[name]
    torch.manual_seed(1)
    assert_same_there(make(), torch.randn(shape, requires_grad=True))


@pytest.mark.parametrize("case", ALL, ids=str)
def test_layers_are_made_there(case):
    made = case.build(dtype=torch.float32, device=THERE)
    assert {tensor.device for tensor in made.state_dict().values()} <= {THERE}
    made.load_state_dict(case.build(dtype=torch.float32).state_dict())
    with torch.device("pretend:1"):
        implied = getattr(bncourse, case.name)(*case.arguments, **case.options)
    assert {str(tensor.device) for tensor in implied.state_dict().values()} <= {"pretend:1"}


def values_of(layer):
    """A copy of the state, without the counter: torch too has counted a batch before it refuses it."""
    return {name: value.cpu().clone() for name, value in layer.state_dict().items() if "tracked" not in name}


@pytest.mark.parametrize("case", [case for case in ALL if case.build().state_dict()], ids=str)
@pytest.mark.parametrize(("layer_on", "input_on"), [("cpu", THERE), (THERE, "cpu"), (THERE, "pretend:1")])
def test_a_layer_elsewhere_is_refused_in_a_sentence(case, layer_on, input_on):
    layer = case.build(dtype=torch.float32).to(layer_on)
    before = values_of(layer)
    with pytest.raises(RuntimeError, match="same device") as raised:
        layer(case.input(dtype=torch.float32).detach().to(input_on))
    assert str(layer_on) in str(raised.value) and str(input_on) in str(raised.value)
    torch.testing.assert_close(values_of(layer), before)


def test_a_second_derivative():
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for each in (x, x.detach().to(THERE).requires_grad_()):
        (dx,) = torch.autograd.grad(standardize(each, (0,))[0].pow(3).sum(), each, create_graph=True)
        results += torch.autograd.grad(dx.square().sum(), each)
    torch.testing.assert_close(results[1].cpu(), results[0])


@pytest.mark.parametrize("name", MODELS)
def test_surgery(name):
    def all_of_it(model, x):
        surgery.recalibrate(model, [x[:20], (x[20:], None)])
        outputs = [model.eval()(x)]
        for change in (surgery.fold, surgery.drop_redundant_biases, bncourse.SyncBatchNorm.convert_sync_batchnorm):
            changed = change(copy.deepcopy(model))
            assert {tensor.device for tensor in changed.state_dict().values()} == {x.device}
            outputs.append(changed(x))
        outputs.append(surgery.freeze(model).train().eval()(x))
        return outputs

    torch.manual_seed(0)
    model, x = MODELS[name](), torch.randn(50, 1, 8, 8)
    twin = copy.deepcopy(model).to(THERE)
    for ours, expected in zip(all_of_it(twin, x.to(THERE)), all_of_it(model, x), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=1e-4, atol=1e-5)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_a_trial_draws_the_same_random_numbers_each_time():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), Noisy()).to(THERE).eval()
    source = second_device.Module.default_generators[0]
    before = source.get_state()
    assert not any(isinstance(module, nn.BatchNorm1d) for module in surgery.fold(model, torch.randn(5, 6)).modules())
    assert torch.equal(source.get_state(), before)


def test_what_chapters_ask_of_a_model():
    torch.manual_seed(0)
    model, x = fc_network([16, 8, 6, 3], "batch relu dropout", drop=0.5), torch.randn(30, 16)
    twin = copy.deepcopy(model).to(THERE)
    results = []
    for each, inputs in ((model, x), (twin, x.to(THERE))):
        torch.manual_seed(0)
        each.eval()
        results.append([measured_ratio(each, each[6], inputs), layer_table(each, inputs)])
        assert macs(each, inputs)["batch norm"] == 30 * 14
    for ours, expected in zip(*results, strict=True):
        assert ours == expected if isinstance(ours, str) else ours == pytest.approx(expected, rel=1e-4)
