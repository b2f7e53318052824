"""``standardize`` against the formula written out, and what must hold for each norm whatever the input."""

from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from norm_cases import gradients

import bncourse
from bncourse import cpu, standardize
from bncourse import functional as F
from bncourse.studies.fast_layers import saved_bytes

DOUBLE = torch.float64
SHAPES = [  # input, axes, shape of weight and bias
    ((6, 4), (0,), (1, 4)),
    ((6, 4, 5), (0, 2), (1, 4, 1)),
    ((5, 4, 3, 2), (0, 2, 3), (1, 4, 1, 1)),
    ((5, 4, 3, 2), (2, 3), (1, 4, 1, 1)),
    ((5, 2, 2, 3, 2), (2, 3, 4), (1, 2, 2, 1, 1)),
    ((5, 4, 6), (2,), (1, 1, 6)),
    ((5, 4, 6), (1, 2), (1, 4, 6)),
    ((5, 4, 6), (0, 1, 2), (1, 1, 1)),
    ((5, 4, 6), (1,), (5, 4, 6)),
]
shapes = pytest.mark.parametrize(("shape", "dims", "affine"), SHAPES)


def written_out(x, dims, weight, bias, eps=1e-5, center=True):
    """The formula with no care for speed, differentiated by torch."""
    mean = x.mean(dims, keepdim=True) if center else 0
    variance = ((x - mean) ** 2).mean(dims, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def tensors(shape, affine, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in (shape, affine, affine, shape)]


@shapes
@pytest.mark.parametrize("compiled", [False, True], ids=["in place", "loops"])
@pytest.mark.parametrize("center", [True, False])
def test_formula_and_gradients(shape, dims, affine, compiled, center, monkeypatch):
    if not compiled:
        monkeypatch.setattr(cpu, "loops", lambda: None)
    x, weight, bias, dy = tensors(shape, affine)
    bias = torch.zeros_like(bias) if not center else bias
    y, mean, variance = standardize.standardize(x, dims, weight, bias if center else None, center=center)
    expected = written_out(x, dims, weight, bias, center=center)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        variance.expand(shape),
        x.var(dims, correction=0, keepdim=True).expand(shape)
        if center
        else x.square().mean(dims, keepdim=True).expand(shape),
    )
    assert not mean.requires_grad and not variance.requires_grad
    wanted = (x, weight, bias)[: 3 if center else 2]
    found = torch.autograd.grad(y, wanted, dy)
    torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, dy))
    textbook = standardize.formula_backward(dy, x, dims, weight, center=center)
    torch.testing.assert_close([g.detach() for g in textbook[: len(wanted)]], list(found))


@shapes
def test_given_statistics(shape, dims, affine):
    x, weight, bias, dy = tensors(shape, affine)
    mean, variance = torch.randn(2, *x.mean(dims, keepdim=True).shape, dtype=DOUBLE).exp()
    y, used, _ = standardize.standardize(x, dims, weight, bias, statistics=(mean, variance))
    expected = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close((y, used), (expected, mean))
    torch.testing.assert_close(*(torch.autograd.grad(o, (x, weight, bias), dy) for o in (y, expected)))


@shapes
def test_derivatives(shape, dims, affine):
    x, weight, bias, _ = tensors(shape, affine)

    def function(*inputs):
        return standardize.standardize(inputs[0], dims, *inputs[1:])[0]

    for inputs in ((x,), (x, weight), (x, weight, bias)):
        torch.autograd.gradcheck(function, inputs, fast_mode=True, check_forward_ad=True, check_batched_grad=True)
        torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    torch.autograd.gradcheck(lambda x, b: standardize.standardize(x, dims, None, b)[0], (x, bias), fast_mode=True)


def test_what_is_kept_for_backward():
    """The input and a few numbers per channel: not the normalized input as well."""
    for function, theirs in (
        (lambda x: bncourse.BatchNorm2d(8)(x), torch.nn.BatchNorm2d(8)),
        (lambda x: bncourse.GroupNorm(4, 8)(x), torch.nn.GroupNorm(4, 8)),
        (lambda x: bncourse.LayerNorm(16)(x), torch.nn.LayerNorm(16)),
        (lambda x: bncourse.RMSNorm(16)(x), torch.nn.RMSNorm(16)),
    ):
        x = torch.randn(16, 8, 16, 16, requires_grad=True)
        assert saved_bytes(partial(function, x)) <= 1.05 * saved_bytes(partial(theirs, x))


# The norms among themselves


def test_the_norms_differ_in_their_axes_only():
    x = torch.randn(4, 6, 5, 5, dtype=DOUBLE)
    torch.testing.assert_close(F.group_norm(x, 6), F.instance_norm(x))
    torch.testing.assert_close(F.group_norm(x, 1), F.layer_norm(x, x.shape[1:]))
    one = x[:1]
    torch.testing.assert_close(F.batch_norm(one, None, None, training=True), F.instance_norm(one))
    flat = x.view(4, -1)
    torch.testing.assert_close(F.layer_norm(flat, flat.shape[1:]), F.group_norm(flat, 1))
    centred = flat - flat.mean(1, keepdim=True)
    torch.testing.assert_close(F.rms_norm(centred, flat.shape[1:], eps=1e-5), F.layer_norm(flat, flat.shape[1:]))


NORMS = {
    "batch": lambda x: F.batch_norm(x, None, None, training=True, eps=1e-12),
    "layer": lambda x: F.layer_norm(x, x.shape[1:], eps=1e-12),
    "instance": lambda x: F.instance_norm(x, eps=1e-12),
    "group": lambda x: F.group_norm(x, 2, eps=1e-12),
    "rms": lambda x: F.rms_norm(x, x.shape[1:], eps=1e-12),
}
SHARED = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3), "rms": (1, 2, 3)}
names = pytest.mark.parametrize("name", NORMS)


@st.composite
def inputs(draw):
    """(N, C, H, W) in double precision: some shapes, memory layouts, offsets and spreads."""
    shape = draw(st.tuples(st.integers(2, 5), st.sampled_from([2, 4, 6]), st.integers(2, 5), st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(shape, generator=generator, dtype=DOUBLE) * draw(st.sampled_from([1.0, 30.0]))
    x = x + draw(st.sampled_from([0.0, 1.0, -20.0]))
    layout = draw(st.sampled_from(["contiguous", "channels last", "transposed", "strided"]))
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(0, 3).contiguous().transpose(0, 3)
    return torch.stack([x, -x], -1)[..., 0] if layout == "strided" else x


@names
@settings(max_examples=25, deadline=None)
@given(x=inputs(), scale=st.floats(0.01, 100, allow_subnormal=False), shift=st.floats(-10, 10, allow_subnormal=False))
def test_properties(name, x, scale, shift):
    norm = NORMS[name]
    if name != "rms":
        shared = x.unflatten(1, (2, -1)).var((2, 3, 4)) if name == "group" else x.var(SHARED[name])
        assume(shared.min() > 1e-3)  # or eps counts, however small it is
    y = norm(x)
    assert y.shape == x.shape and y.dtype == x.dtype
    torch.testing.assert_close(norm(scale * x), y, rtol=1e-6, atol=1e-6)  # scale invariance
    torch.testing.assert_close(norm(-x), -y)  # of positive scales only
    if name != "rms":
        torch.testing.assert_close(norm(x + shift), y, rtol=1e-6, atol=1e-6)
    if name in SHARED:
        dims = SHARED[name]
        square = y.square().mean(dims)
        torch.testing.assert_close(square, torch.ones_like(square), rtol=1e-6, atol=1e-6)
        if name != "rms":
            mean = y.mean(dims)
            torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)
    order = torch.arange(len(x) - 1, -1, -1)
    torch.testing.assert_close(norm(x[order]), y[order], rtol=1e-9, atol=1e-9)  # samples in another order
    if name != "batch":
        torch.testing.assert_close(norm(x[:1]), y[:1], rtol=1e-9, atol=1e-9)  # a sample alone


@names
@settings(max_examples=10, deadline=None)
@given(x=inputs())
def test_gradients_of_scale_and_shift_invariance(name, x):
    """What a norm cannot see, its gradient has none of: along the input itself, and along constants."""
    x = x.detach().requires_grad_()
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    (dx,) = torch.autograd.grad(NORMS[name](x), x, dy)
    assert (dx * x).sum().abs() < 1e-6 * dy.norm() * x.norm()  # not 0: epsilon breaks the invariance a little
    if name != "rms":
        assert dx.sum().abs() < 1e-6 * dx.norm() + 1e-8


@names
@settings(max_examples=10, deadline=None)
@given(x=inputs(), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_lower_precision_is_the_same_function(name, x, dtype):
    x = x.to(dtype)
    y = NORMS[name](x)
    assert y.dtype == dtype
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-4}[dtype]
    torch.testing.assert_close(y.double(), NORMS[name](x.double()), rtol=tolerance, atol=tolerance)


@names
def test_offset(name):
    """A mean ten thousand times the standard deviation: E[x^2] - E[x]^2 would give NaN."""
    if name == "rms":
        return
    x = torch.randn(16, 4, 6, 6) + 1e4
    exact = NORMS[name](x.double())
    torch.testing.assert_close(NORMS[name](x).double(), exact, rtol=5e-3, atol=5e-3)


def test_offset_in_the_gradient():
    """A few times torch's error at most: a float32 mean near 1e4 is itself off by one or two steps of 1e-3."""
    torch.manual_seed(0)
    x = torch.randn(16, 4, 6, 6) + 1e4
    _, exact = gradients(torch.nn.BatchNorm2d(4).double(), x.double().requires_grad_())
    ours, theirs = (
        [
            (found - right).abs().max()
            for found, right in zip(gradients(layer, x.requires_grad_())[1], exact, strict=True)
        ]
        for layer in (bncourse.BatchNorm2d(4), torch.nn.BatchNorm2d(4))
    )
    for our_error, their_error in zip(ours, theirs, strict=True):
        assert our_error <= 6 * their_error + 1e-3


def test_constant_input_gives_zero():
    for name, norm in NORMS.items():
        if name != "rms":
            assert not norm(torch.full((4, 4, 3, 3), 5.0)).any()
