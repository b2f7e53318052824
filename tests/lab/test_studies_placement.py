"""The two orders are what they say."""

import pytest
import torch
from torch import nn

from bncourse.studies.placement import ORDERS, block, fc_network, small_cnn, through


@pytest.mark.parametrize("order", ORDERS)
def test_order(order):
    kinds = [type(layer) for layer in block(nn.Linear(3, 4), nn.BatchNorm1d(4), order)]
    assert (nn.BatchNorm1d in kinds) == (order != "none")
    if order == "before":
        assert kinds.index(nn.BatchNorm1d) < kinds.index(nn.ReLU)
    if order == "after":
        assert kinds.index(nn.BatchNorm1d) > kinds.index(nn.ReLU)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order='between' is unknown"):
        block(nn.Linear(3, 4), nn.BatchNorm1d(4), "between")


@pytest.mark.parametrize("order", ORDERS)
def test_networks_start_alike_and_run(order):
    torch.manual_seed(0)
    network = fc_network([12, 8, 8, 5], order)
    torch.manual_seed(0)
    plain = fc_network([12, 8, 8, 5], "none")
    assert torch.equal(network[1].weight, plain[1].weight) and torch.equal(network[-1].weight, plain[-1].weight)
    assert network(torch.randn(6, 3, 2, 2)).shape == (6, 5)
    assert small_cnn(order, channels=1, width=4)(torch.randn(2, 1, 16, 16)).shape == (2, 10)


def test_through_is_the_forward_pass():
    network, x = fc_network([12, 8, 8, 5], "after"), torch.randn(6, 12)
    seen = through(network, x)
    assert [name for name, _ in seen] == [type(layer).__name__ for layer in network]
    torch.testing.assert_close(seen[-1][1], network(x))
    norm = seen[3][1]  # Flatten, Linear, ReLU, BatchNorm1d
    torch.testing.assert_close(norm.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
