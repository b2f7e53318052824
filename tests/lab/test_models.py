"""The networks are the source's, and every norm fits every network."""

import pytest
import torch
from torch import nn

import bncourse
from bncourse import models
from bncourse.models import NORMS, fc_block, fc_network, initialize, norm_layer, small_cnn


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_the_sources_networks_have_its_parameters():
    """784*256+256 + 2*256 + 256*128+128 + 2*128 + 128*10+10, and the same sum for the CNN."""
    assert count(models.FCNetworkWithBatchNorm()) == 235_914
    assert count(models.CNNWithBatchNorm()) == 1_792 + 128 + 73_856 + 256 + 2_097_408 + 512 + 2_570
    assert models.FCNetworkWithBatchNorm()(torch.randn(4, 784)).shape == (4, 10)
    assert models.CNNWithBatchNorm()(torch.randn(4, 3, 32, 32)).shape == (4, 10)


@pytest.mark.parametrize(
    ("network", "shape"), [(models.FCNetworkWithBatchNorm, (8, 784)), (models.CNNWithBatchNorm, (8, 3, 32, 32))]
)
def test_torchs_norms_and_ours_make_the_same_network(network, shape):
    theirs, ours = network(nn), network()
    assert type(next(m for m in theirs.modules() if hasattr(m, "running_mean"))).__module__.startswith("torch.nn")
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))  # so the running statistics moved alike
    assert [type(m).__name__ for m in ours.modules()] == [type(m).__name__ for m in theirs.modules()]


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_builds_a_network_that_runs_and_learns(norm):
    x = torch.randn(32, 1, 4, 4)
    model = fc_network([16, 12, 8, 5], norm) if norm != "instance" else small_cnn(norm, channels=1, width=4)
    model(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_layers_come_in_the_order_of_the_words():
    model = fc_network([6, 5, 4, 3], "dropout batch relu", drop=0.4)
    block = [nn.Linear, models.Dropout, bncourse.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in model] == [nn.Flatten, *block, *block, nn.Linear]
    assert model[2].p == 0.4
    assert model(torch.randn(2, 2, 3)).shape == (2, 3)
    first, pooling = small_cnn("relu batch", channels=1, width=4)[:2]
    assert [type(layer) for layer in first] == [nn.Conv2d, nn.ReLU, bncourse.BatchNorm2d]
    assert isinstance(pooling, nn.MaxPool2d)
    assert small_cnn("relu", channels=1, width=4)(torch.randn(2, 1, 16, 16)).shape == (2, 10)


def test_a_norm_alone_is_followed_by_relu():
    for build in (fc_network, small_cnn):
        sizes = [[6, 5, 3]] if build is fc_network else []
        networks = build(*sizes, block="layer relu"), build(*sizes, block="layer"), build(*sizes, norm="layer")
        kinds = [[type(module) for module in network.modules()] for network in networks]
        assert kinds[0] == kinds[1] == kinds[2] and bncourse.GroupNorm in kinds[0]


@pytest.mark.parametrize("block", ["relu batch", "relu"])
def test_networks_with_different_blocks_start_alike(block):
    networks = []
    for words in (block, "batch relu"):
        torch.manual_seed(0)
        networks.append(fc_network([12, 8, 8, 5], words))
    for ours, theirs in zip(*([m for m in network if isinstance(m, nn.Linear)] for network in networks), strict=True):
        assert torch.equal(ours.weight, theirs.weight)


def test_fc_block_drops_out_only_when_asked():
    assert [type(m).__name__ for m in fc_block(4, 3)] == ["Linear", "BatchNorm1d", "ReLU"]
    assert fc_block(4, 3, dropout=0.3)[-1].p == 0.3


def test_initialize_draws_he_weights():
    torch.manual_seed(0)
    linear = initialize(nn.Linear(400, 300), gain=2)
    assert linear.weight.std().item() == pytest.approx(2 * (2 / 400) ** 0.5, rel=0.02)
    assert linear.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: norm_layer("batchnorm", 4), "norm must be .* got 'batchnorm'"),
        (lambda: norm_layer("batch", 4, dimensions=4), "dimensions must be .* got 4"),
        (lambda: norm_layer("instance", 4), "dimensions must be .* got 0"),
        (lambda: norm_layer("rms", 4, dimensions=2), "dimensions must be .* got 2"),
        (lambda: fc_network([2, 2, 2], "batch tanh"), "words must be .* got 'tanh'"),
        (lambda: fc_network([3]), "sizes"),
        (lambda: fc_block(4, 3, dropout=-0.1), "dropout.*-0.1"),
        (lambda: initialize(nn.Linear(2, 2), gain=0), "gain must be positive, got 0"),
    ],
)
def test_errors_name_the_argument(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()
