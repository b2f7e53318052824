"""The networks are the source's, and every norm fits every network."""

import pytest
import torch
from torch import nn

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


def test_the_sources_networks_exchange_states_with_torchs_layers():
    ours = models.FCNetworkWithBatchNorm()
    theirs = nn.Sequential(
        nn.Linear(784, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    theirs.load_state_dict(ours.network.state_dict())
    x = torch.randn(8, 784)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_builds_a_network_that_runs_and_learns(norm):
    x = torch.randn(32, 1, 4, 4)
    model = fc_network([16, 12, 8, 5], norm) if norm != "instance" else small_cnn(norm, channels=1, width=4)
    model(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


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
        (lambda: norm_layer("batchnorm", 4), "norm='batchnorm'"),
        (lambda: norm_layer("batch", 4, dimensions=4), "dimensions=4"),
        (lambda: norm_layer("instance", 4), "dimensions=0"),
        (lambda: fc_network([3]), "sizes"),
        (lambda: fc_block(4, 3, dropout=-0.1), "dropout.*-0.1"),
        (lambda: initialize(nn.Linear(2, 2), gain=0), "gain=0"),
    ],
)
def test_errors_name_the_argument(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()
