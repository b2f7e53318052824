"""A BatchNorm with constant statistics, against torch and the formula by hand."""

import torch
from torch import nn

from bncourse.models import fc_network
from bncourse.studies.backward_pass import ConstantStatistics, with_constant_statistics


def test_it_computes_what_batch_norm_does_and_remembers_the_same():
    ours, theirs = ConstantStatistics(3).double(), nn.BatchNorm1d(3).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_its_gradient_takes_the_statistics_as_constants():
    layer = ConstantStatistics(3).double()
    x, dy = torch.randn(8, 3, dtype=torch.float64, requires_grad=True), torch.randn(8, 3, dtype=torch.float64)
    (dx,) = torch.autograd.grad(layer(x), x, dy)
    torch.testing.assert_close(dx, dy / (x.var(0, correction=0) + layer.eps).sqrt())


def test_a_network_keeps_its_weights_and_changes_its_norms():
    network = fc_network([4, 5, 6, 2])
    before = network.state_dict()
    changed = with_constant_statistics(network)
    assert [type(layer) for layer in changed if isinstance(layer, nn.BatchNorm1d | ConstantStatistics)] == [
        ConstantStatistics,
        ConstantStatistics,
    ]
    torch.testing.assert_close(changed.state_dict(), before)
