"""The source's networks with torch's layers and with ours are interchangeable."""

import pytest
import torch

from bncourse import models
from bncourse.studies import source_networks
from bncourse.studies.source_networks import layer_table

NETWORKS = {"FCNetworkWithBatchNorm": (8, 784), "CNNWithBatchNorm": (8, 3, 32, 32)}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchs_and_ours_are_the_same_network(name):
    theirs, ours = getattr(source_networks, name)(), getattr(models, name)()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(NETWORKS[name])
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))  # so the running statistics moved alike
    assert [type(m).__name__ for m in ours.modules()] == [type(m).__name__ for m in theirs.modules()]


def test_layer_table_counts():
    model = source_networks.FCNetworkWithBatchNorm()
    table = layer_table(model, torch.zeros(1, 784))
    assert "| Linear | 1 × 256 | 200,960 | 0 |" in table  # 784 * 256 + 256
    assert "| BatchNorm1d | 1 × 256 | 512 | 513 |" in table  # gamma and beta; mean, variance and the counter
    assert "| **all** | | **235,914** | **770** |" in table
    assert model.training and not model.network[1]._forward_hooks
