"""The table of a network's layers, against counts by hand; running means, against torch's layer."""

import pytest
import torch
from torch import nn

from bncourse import models
from bncourse.studies.pytorch_implementation import distances_to_truth, layer_table


def test_layer_table_counts():
    model = models.FCNetworkWithBatchNorm(nn)
    table = layer_table(model, torch.zeros(1, 784))
    assert "| Linear | 1 × 256 | 200,960 | 0 |" in table  # 784 * 256 + 256
    assert "| BatchNorm1d | 1 × 256 | 512 | 513 |" in table  # gamma and beta; mean, variance and the counter
    assert "| **all** | | **235,914** | **770** |" in table
    assert model.training and not model.network[1]._forward_hooks


def test_each_seed_has_a_running_mean_of_its_own():
    found = distances_to_truth([1, 4], (0.3, None), seeds=[3, 4], features=5)
    assert found[0.3].shape == (2, 2) and found[0.3].seeds == (3, 4)
    for momentum, distances in found.items():
        for row, seed in enumerate((3, 4)):
            layer, draw = nn.BatchNorm1d(5, momentum=momentum), torch.Generator().manual_seed(seed)
            for step in range(1, 5):
                layer(1 + torch.randn(32, 5, generator=draw))
                if step in (1, 4):
                    expected = (layer.running_mean - 1).square().mean().sqrt().item()
                    assert distances[row, step // 4] == pytest.approx(expected, rel=1e-4)
