"""Ghost batches, renormalization and standardized weights, against their papers' formulas written out."""

import pickle

import pytest
import torch
from torch import nn

import bncourse

DOUBLE = torch.float64


def batch(samples=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, 4, 4, generator=generator, dtype=DOUBLE) * 2 + 1


def test_ghost_batches_are_batches():
    """Output and memory are those of torch's layer shown the ghost batches one after another."""
    ghost, plain = bncourse.GhostBatchNorm(3, 4, dtype=DOUBLE), nn.BatchNorm2d(3, dtype=DOUBLE)
    x = batch().requires_grad_()
    y, expected = ghost(x), torch.cat([plain(part) for part in x.split(4)])
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dict(ghost.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(*(torch.autograd.grad(out.pow(3).sum(), x)[0] for out in (y, expected)))
    ghost.eval(), plain.eval()
    torch.testing.assert_close(ghost(x), plain(x))


def test_ghost_size_that_does_not_divide():
    ghost = bncourse.GhostBatchNorm(3, 4, dtype=DOUBLE)
    y = ghost(batch(9))
    assert y.shape[0] == 9 and ghost.num_batches_tracked == 3
    torch.testing.assert_close(y[:3].mean((0, 2, 3)), torch.zeros(3, dtype=DOUBLE))  # 3, 3, 3: none has one sample
    large, plain = bncourse.GhostBatchNorm(3, 100, dtype=DOUBLE), bncourse.BatchNorm2d(3, dtype=DOUBLE)
    torch.testing.assert_close(large(batch()), plain(batch()))
    with pytest.raises(ValueError, match="ghost_size must be at least 1, got 0"):
        bncourse.GhostBatchNorm(3, 0)
    with pytest.raises(ValueError, match="expected at least 2D input"):
        bncourse.GhostBatchNorm(3, 2)(torch.randn(3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        bncourse.GhostBatchNorm(3, 1)(torch.randn(4, 3))


def test_renorm_with_closed_limits_is_batch_norm():
    renorm, plain = bncourse.BatchRenorm(3, r_max=1, d_max=0, dtype=DOUBLE), nn.BatchNorm2d(3, dtype=DOUBLE)
    for seed in range(3):
        torch.testing.assert_close(renorm(batch(seed=seed)), plain(batch(seed=seed)))
    torch.testing.assert_close(dict(renorm.state_dict()), dict(plain.state_dict()))


def test_renorm_with_open_limits_agrees_with_evaluation():
    renorm = bncourse.BatchRenorm(3, r_max=1e9, d_max=1e9, dtype=DOUBLE)
    with torch.no_grad():
        renorm.running_mean.normal_()
        renorm.running_var.exponential_().add_(0.1)
    frozen = pickle.loads(pickle.dumps(renorm)).eval()
    torch.testing.assert_close(renorm(batch()), frozen(batch()))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_renorm_formula_and_gradient(affine, bias):
    """Algorithm 1 of the paper, differentiated by torch with r and d as constants."""
    layer = bncourse.BatchRenorm(3, affine=affine, bias=bias, r_max=1.5, d_max=0.4, dtype=DOUBLE)
    with torch.no_grad():
        layer.running_mean.copy_(torch.tensor([0.9, 0.0, 5.0]))
        layer.running_var.copy_(torch.tensor([4.0, 0.1, 3.0]))
        for parameter in layer.parameters():
            parameter.normal_()
    weight = layer.weight.detach().view(1, 3, 1, 1) if affine else 1
    shift = layer.bias.detach().view(1, 3, 1, 1) if affine and bias else 0
    x = batch().requires_grad_()
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    running_std = (layer.running_var.view(1, 3, 1, 1) + 1e-5).sqrt()
    r = ((variance + 1e-5).sqrt() / running_std).clamp(1 / 1.5, 1.5).detach()
    d = ((mean - layer.running_mean.view(1, 3, 1, 1)) / running_std).clamp(-0.4, 0.4).detach()
    expected = ((x - mean) / (variance + 1e-5).sqrt() * r + d) * weight + shift
    y = layer(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad(out.pow(3).sum(), x)[0] for out in (y, expected)))


def test_renorm_limits_are_the_papers():
    limits = [bncourse.renorm_limits(step) for step in (0, 5_000, 15_000, 25_000, 40_000, 10**6)]
    assert limits[0] == limits[1] == (1, 0)
    assert limits[2][1] == 2.5 and limits[3][1] == 5
    assert limits[3][0] == pytest.approx(1 + 2 * 20 / 35)
    assert limits[4] == limits[5] == (3, 5)
    layer = bncourse.BatchRenorm(3)
    assert (layer.r_max, layer.d_max) == (3, 5)
    layer.r_max, layer.d_max = limits[0]
    torch.testing.assert_close(layer(batch().float()), nn.BatchNorm2d(3)(batch().float()))
    for wrong in ({"r_max": 0.5}, {"d_max": -1}):
        with pytest.raises(ValueError, match=r"[rd]_max must be at least"):
            bncourse.BatchRenorm(3, **wrong)


def test_renorm_odd_inputs():
    layer = bncourse.BatchRenorm(3)
    before = layer.running_mean.clone()
    assert layer(torch.randn(0, 3)).shape == (0, 3) and torch.equal(layer.running_mean, before)
    with pytest.raises(RuntimeError, match="running_mean should contain 5 elements not 3"):
        layer(torch.randn(4, 5))
    half = layer(torch.randn(8, 3).bfloat16())
    assert half.dtype == torch.bfloat16 and layer.running_mean.dtype == torch.float32
    untracked = bncourse.BatchRenorm(3, track_running_stats=False)
    x = torch.randn(8, 3)
    torch.testing.assert_close(untracked(x), nn.BatchNorm1d(3)(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_standardized_weights(groups):
    conv = bncourse.WeightStandardizedConv2d(4, 6, 3, stride=2, padding=1, groups=groups, dtype=DOUBLE)
    x = torch.randn(2, 4, 7, 7, dtype=DOUBLE, requires_grad=True)
    filters = conv.weight.flatten(1)
    centred = filters - filters.mean(1, keepdim=True)
    standard = (centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()).view_as(conv.weight)
    expected = nn.functional.conv2d(x, standard, conv.bias, stride=2, padding=1, groups=groups)
    torch.testing.assert_close(conv(x), expected)
    wanted = (x, conv.weight, conv.bias)
    torch.testing.assert_close(*(torch.autograd.grad(out.pow(2).sum(), wanted) for out in (conv(x), expected)))
    assert list(conv.state_dict()) == ["weight", "bias"]
    with torch.no_grad():
        conv.weight.mul_(3).add_(1)  # what standardization takes out again
    torch.testing.assert_close(conv(x), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="filters must have more than 1 weight"):
        bncourse.WeightStandardizedConv2d(1, 4, 1)
