"""Numbers at the edge of float32: many values, large offsets, constants, statistics in half precision."""

import copy

import pytest
import torch
from norm_cases import gradients
from torch import nn

import bncourse
from bncourse import kernels, standardize
from bncourse.layers.frozen import FrozenBatchNorm

DOUBLE = torch.float64
FAST = pytest.mark.parametrize("fast", [True, False], ids=["kernels", "formula"])
MANY = [  # layer, arguments, input: many values in a group
    ("BatchNorm1d", (3,), (30_000, 3, 5)),
    ("BatchNorm2d", (2,), (3, 2, 300, 311)),
    ("GroupNorm", (1, 4), (1, 4, 250_007)),
    ("InstanceNorm1d", (2,), (1, 2, 500_009)),
    ("LayerNorm", ((1_000_003,),), (2, 1_000_003)),
    ("LayerNorm", ((2, 400, 300),), (3, 2, 400, 300)),
    ("RMSNorm", ((1_000_003,),), (2, 1_000_003)),
]


def exactly(layer: nn.Module) -> nn.Module:
    """Torch's layer in float64, with the parameters and the memory of ``layer``."""
    exact = getattr(nn, type(layer).__name__).__new__(getattr(nn, type(layer).__name__))
    exact.__dict__ = copy.deepcopy(layer).double().__dict__
    return exact


@FAST
@pytest.mark.parametrize(("name", "arguments", "shape"), MANY, ids=str)
def test_many_values(name, arguments, shape, fast, monkeypatch):
    """Uniform in [0.5, 1.5): all of one sign, so that what a sum loses it loses on one side."""
    monkeypatch.setattr(standardize, "FAST", fast)
    torch.manual_seed(0)
    layer = getattr(bncourse, name)(*arguments)
    exact = exactly(layer)
    x = (torch.rand(shape) + 0.5).requires_grad_()
    dy = torch.randn(shape)
    y, (dx, *others) = gradients(layer, x, dy)
    expected, (dx_expected, *others_expected) = gradients(exact, x.detach().double().requires_grad_(), dy.double())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(dx.double(), dx_expected, rtol=1e-6, atol=2e-6)
    for found, right in zip(others, others_expected, strict=True):  # a mean of 1 has rounding errors of 6e-8
        torch.testing.assert_close(found.double(), right, rtol=2e-6, atol=3e-7 * dy.numel() / found.numel() + 1e-6)
    for key, value in layer.named_buffers():
        torch.testing.assert_close(value, exact.get_buffer(key).to(value.dtype), rtol=2e-6, atol=2e-6)


def test_channels_last_and_half_in_large_groups():
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 8e-3)):
        x = (torch.rand(2, 4, 301, 400) + 0.5).to(dtype, memory_format=torch.channels_last)
        for layer in (bncourse.GroupNorm(2, 4), bncourse.BatchNorm2d(4), bncourse.InstanceNorm2d(4)):
            exact = exactly(layer)
            y, (dx, *_) = gradients(layer, x.detach().requires_grad_(), x)
            wide = x.detach().double().contiguous().requires_grad_()
            expected, (dx_expected, *_) = gradients(exact, wide, wide.detach())
            torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(dx.double(), dx_expected, rtol=tolerance, atol=tolerance)


@FAST
@pytest.mark.parametrize("value", [0.3, 777.77, 54321.98, -1e7 / 7, 2e9 / 3])
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("BatchNorm1d", (3,), (101, 3)),
        ("BatchNorm3d", (2,), (3, 2, 5, 7, 3)),
        ("GroupNorm", (3, 6), (2, 6, 7, 11)),
        ("InstanceNorm2d", (3,), (2, 3, 13, 9)),
        ("LayerNorm", (770,), (3, 770)),
    ],
)
def test_a_constant_gives_zero(name, arguments, shape, value, fast, monkeypatch):
    monkeypatch.setattr(standardize, "FAST", fast)
    layer = getattr(bncourse, name)(*arguments)
    y = layer(torch.full(shape, value))
    assert y.abs().max() < 1e-3 and torch.isfinite(y).all()
    for running in ("running_var", "running_mean"):
        if hasattr(layer, running) and getattr(layer, running) is not None:
            expected = 0.9 if running == "running_var" else 0.1 * value
            torch.testing.assert_close(
                getattr(layer, running), torch.full_like(layer.running_var, expected), rtol=1e-4, atol=0
            )


@FAST
@pytest.mark.parametrize("offset", [3e4, -2e5, 7e6])
def test_offset(offset, fast, monkeypatch):
    """Whole numbers, so that float32 holds the input exactly, and a mean between two of them."""
    monkeypatch.setattr(standardize, "FAST", fast)
    x = torch.tensor([3.0, 0.0, 5.0, 1.0, 2.0, 4.0, 7.0, 6.0]) + offset
    expected = (x.double() - x.double().mean()) / x.double().std(correction=0)
    for layer, shape in (
        (bncourse.LayerNorm(8), (1, 8)),
        (bncourse.GroupNorm(1, 4), (1, 4, 2)),
        (bncourse.InstanceNorm1d(1), (1, 1, 8)),
        (bncourse.BatchNorm1d(1), (8, 1)),
    ):
        torch.testing.assert_close(layer(x.view(shape)).double().flatten(), expected, rtol=0, atol=1e-5)


def test_a_pivot_far_from_the_mean():
    """The first quarter of the values is nothing like the rest: little is lost where its distance is taken off."""
    x = torch.cat([torch.full((100, 2), 1e4), torch.zeros(300, 2)]) + torch.rand(400, 2)
    expected, _, variance = standardize.formula(x.double(), (0,))
    y, _, found = kernels.forward(x, (0,), None, None, 1e-5, statistics=None, center=True)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.double(), variance, rtol=1e-5, atol=0)


# Statistics in half precision


def given_statistics(dtype, eps):
    """Layers whose parameters and memory have ``dtype``, with the variances of dead and of lively channels."""
    layers = [
        bncourse.BatchNorm1d(4, eps),
        bncourse.SyncBatchNorm(4, eps),
        bncourse.GhostBatchNorm(4, 2, eps),
        bncourse.BatchRenorm(4, eps),
        bncourse.InstanceNorm1d(4, eps, affine=True, track_running_stats=True),
    ]
    for layer in layers:
        layer.running_var.copy_(torch.tensor([0.0, 1e-7, 3e-3, 50.0]))
        layer.running_mean.copy_(torch.tensor([1.0, -0.3, 2.0, 0.0]))
        nn.init.uniform_(layer.weight, 0.5, 2)
    layers.append(FrozenBatchNorm(copy.deepcopy(layers[0])))
    return [layer.to(dtype).eval() for layer in layers]


@pytest.mark.parametrize("run", ["kernels", "formula", "compiled"])
@pytest.mark.parametrize(("dtype", "eps"), [(torch.float16, 1e-9), (torch.bfloat16, 1e-5), (torch.bfloat16, 1e-10)])
def test_statistics_in_half_are_used_in_float32(dtype, eps, run, monkeypatch):
    if run == "compiled" and dtype == torch.bfloat16:
        pytest.skip("one type is enough to compile")
    monkeypatch.setattr(standardize, "FAST", run != "formula")
    for layer in given_statistics(dtype, eps):
        mean, variance = layer.running_mean.double()[:, None], layer.running_var.double()[:, None]
        std = (variance + eps).sqrt()
        x = (mean + std * torch.randn(3, 4, 5)).to(dtype).requires_grad_()
        exact = (x.detach().double() - mean) / std * layer.weight.double()[:, None] + layer.bias.double()[:, None]
        if run == "compiled":
            torch.compiler.reset()
            layer.compile(backend="aot_eager", fullgraph=True)
        y, (dx, *_) = gradients(layer, x, torch.ones_like(x))
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(y.double(), exact, rtol=rounding, atol=rounding)
        slope = layer.weight.double()[:, None] / std
        largest = torch.finfo(dtype).max
        inside = (slope < largest).expand_as(dx)
        torch.testing.assert_close(dx.double()[inside], slope.expand_as(dx)[inside], rtol=rounding, atol=0)


def test_the_average_of_many_batches_in_half():
    """momentum=None: the 1,001st batch counts 1/1,001, which bfloat16 rounds by a third of a percent."""
    for kind in (bncourse.BatchNorm1d, nn.BatchNorm1d):
        layer = kind(1, momentum=None).bfloat16()
        layer.num_batches_tracked.fill_(262)
        layer(torch.tensor([[255.0], [257.0]]).bfloat16() * 263)
        torch.testing.assert_close(layer.running_mean.float(), torch.tensor([256.0]), rtol=0, atol=0)
