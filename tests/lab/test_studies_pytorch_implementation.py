"""The table of a network's layers, against counts by hand."""

import torch
from torch import nn

from bncourse import models
from bncourse.studies.pytorch_implementation import layer_table


def test_layer_table_counts():
    model = models.FCNetworkWithBatchNorm(nn)
    table = layer_table(model, torch.zeros(1, 784))
    assert "| Linear | 1 × 256 | 200,960 | 0 |" in table  # 784 * 256 + 256
    assert "| BatchNorm1d | 1 × 256 | 512 | 513 |" in table  # gamma and beta; mean, variance and the counter
    assert "| **all** | | **235,914** | **770** |" in table
    assert model.training and not model.network[1]._forward_hooks
