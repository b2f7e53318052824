"""Chapter 8's longer code: the closed form against batches that are drawn, and ghosts against accumulated passes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bncourse.layers import BatchNorm1d
from bncourse.models import small_cnn
from bncourse.studies.many_devices import Step
from bncourse.studies.many_networks import ManyNetworks
from bncourse.studies.small_batches import (
    ExpectedInBatch,
    cnn_with_ghosts,
    expecting_batches,
    largest_difference,
    mean_over_partners,
)


@pytest.mark.parametrize("size", [2, 3, 16])
def test_mean_and_variance_of_a_batch_with_a_given_value(size):
    """Simulated: 200,000 batches of independent normal values with one value set."""
    torch.manual_seed(0)
    mean, std, value = 3.0, 2.0, torch.tensor([[4.5]])
    batches = mean + std * torch.randn(200_000, size)
    batches[:, 0] = value
    norm = BatchNorm1d(1, eps=0.0).eval()
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(std**2)
    expected = (value - batches.mean()) / batches.var(1, correction=0).mean().sqrt()
    assert ExpectedInBatch(norm, size)(value).item() == pytest.approx(expected.item(), rel=0.01)


def test_in_large_batches_it_is_evaluation_and_in_pairs_a_soft_sign():
    norm, x = BatchNorm1d(3, eps=1e-9).eval(), torch.tensor([[-100.0, 1.0, 100.0]])
    torch.testing.assert_close(ExpectedInBatch(norm, 10**6)(x), norm(x), rtol=0.01, atol=0)
    torch.testing.assert_close(ExpectedInBatch(norm, 2)(x), torch.tensor([[-1.0, 0.5**0.5, 1.0]]), rtol=1e-3, atol=0)


def test_the_copy_expects_batches_and_the_networks_stay_as_they_are():
    networks = ManyNetworks([4, 6, 3], [0, 1], ghost_size=2)
    images = torch.randn(2, 8, 4)
    before = networks.eval()(images)
    twin = expecting_batches(networks, 2)
    assert not torch.allclose(twin(images), before)
    torch.testing.assert_close(networks(images), before)


def test_the_mean_over_partners_is_that_of_single_batches():
    networks = ManyNetworks([4, 6, 3], [0], ghost_size=2)
    image, others = torch.randn(1, 1, 4), torch.randn(1, 2, 4)
    state = {name: value.clone() for name, value in networks.state_dict().items()}
    found = mean_over_partners(networks, image, others, 2, draws=400)[0, 0]
    one_by_one = [networks(torch.cat([image, others[:, [k]]], dim=1)).softmax(-1)[0, 0] for k in range(2)]
    torch.testing.assert_close(found, sum(one_by_one) / 2, rtol=0.1, atol=0.02)
    for name, value in state.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(networks.state_dict()[name], value)


def test_a_pass_of_ghosts_has_the_gradient_of_accumulated_passes():
    torch.manual_seed(0)
    plain, ghosts = small_cnn("batch", 1, 2), cnn_with_ghosts(1, 2, 4)
    ghosts.load_state_dict(plain.state_dict())
    x, y = torch.randn(12, 1, 12, 12), torch.randint(10, (12,))
    cross_entropy(ghosts(x), y).backward()
    for part in torch.arange(12).split(4):
        (cross_entropy(plain(x[part]), y[part]) / 3).backward()
    for one, other in zip(plain.parameters(), ghosts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_the_largest_difference_is_relative_and_counts_what_is_nearly_zero_as_a_thousandth():
    one = Step(torch.tensor([3.0, 4.0]), [torch.zeros(2)], [torch.tensor(2.0)])
    other = Step(torch.tensor([3.0, 4.5]), [torch.tensor([0.0, 1e-5])], [torch.tensor(2.0)])
    assert largest_difference(other, one) == pytest.approx(0.1)
    assert largest_difference(other._replace(scores=one.scores), one) == pytest.approx(0.01)
