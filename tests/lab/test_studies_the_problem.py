"""The experiments of chapter 1 measure what they say they do."""

import pytest
import torch
from torch import nn

import bncourse
from bncourse.models import fc_network
from bncourse.studies.the_problem import NoisyBatchNorm1d, add_noise, track_shift, walk_along_gradient


def test_the_shift_is_measured_in_standard_deviations():
    layer = nn.Linear(2, 1)
    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])  # mean 0, standard deviation 1 in both units
    with track_shift(layer) as shift:
        for offset in (0.0, 2.0, 3.0):
            layer(x + offset)
    layer(x + 100)  # after the block nothing is recorded
    assert shift.from_start == pytest.approx([2.0, 3.0])
    assert shift.each_step == pytest.approx([2.0, 1.0])


def test_noise_moves_the_outputs_in_training_only():
    torch.manual_seed(0)
    model = add_noise(fc_network([4, 8, 2]))
    noisy = next(m for m in model.modules() if isinstance(m, NoisyBatchNorm1d))
    x = torch.randn(64, 8)
    assert noisy(x).mean(0).abs().max() > 0.5  # BatchNorm alone would give 0
    assert not torch.equal(noisy(x), noisy(x))
    noisy.eval()
    expected = bncourse.BatchNorm1d(8).eval()
    expected.load_state_dict(noisy.state_dict())
    torch.testing.assert_close(noisy(x), expected(x))


def test_noise_of_the_batch_keeps_the_samples_apart_and_noise_of_the_sample_does_not():
    """A shift and scale common to the batch keep the order of the samples in a unit, and their correlation at 1."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for per_sample, low, high in ((False, 0.999, 1.001), (True, 0.5, 0.95)):
        norm = add_noise(torch.nn.Sequential(bncourse.BatchNorm1d(8)), per_sample)
        correlation = torch.corrcoef(torch.stack([x[:, 0], norm(x)[:, 0].detach()]))[0, 1]
        assert low < correlation < high


def test_a_walk_on_a_quadratic_has_known_losses_and_leaves_the_model():
    """For one weight w and the loss log(1 + exp(-w)), everything is known in closed form."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False))
    model[0].weight.data = torch.tensor([[1.0], [0.0]])
    images, labels = torch.ones(1, 1), torch.tensor([0])
    losses, changes = walk_along_gradient(model, images, labels, [0.0, 1.0])
    slope = torch.sigmoid(torch.tensor(-1.0))  # the gradient is (-slope, +slope)
    after = 1 + 2 * slope
    assert losses[0] == pytest.approx(torch.log1p(torch.exp(torch.tensor(-1.0))).item())
    assert losses[1] == pytest.approx(torch.log1p(torch.exp(-after)).item())
    assert changes == pytest.approx([0.0, (1 - torch.sigmoid(-after) / slope).item()], abs=1e-6)
    assert model[0].weight.tolist() == [[1.0], [0.0]]
