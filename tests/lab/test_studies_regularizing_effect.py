"""The noise of batch statistics against its formula, and the small sets."""

import pytest
import torch

from bncourse.data import DataSet, Examples
from bncourse.studies.many_networks import ManyNetworks, evaluate_many
from bncourse.studies.regularizing_effect import (
    Rotation,
    at_best_temperature,
    dropout_by_layer,
    noise_by_layer,
    normalized_in_batches,
    predicted_noise,
    small_sets,
    with_wrong_labels,
)


def test_noise_of_a_normal_distribution_follows_the_formula():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 1, generator=generator)
    for wanted in (0.0, 1.5):
        sample = (z[:, 0] - wanted).abs().argmin().item()
        values = normalized_in_batches(z, sample, 64, 20_000, generator)
        assert values.var().item() == pytest.approx((1 + wanted**2 / 2) / 64, rel=0.1)
        assert values.mean().item() == pytest.approx(wanted, abs=0.03)
        assert predicted_noise(z, sample, 64) == pytest.approx((1 + wanted**2 / 2) / 64, rel=0.05)


def test_the_formula_knows_skewed_features():
    """An exponential variable has skewness 2 and kurtosis 9."""
    generator = torch.Generator().manual_seed(0)
    z = torch.empty(200_000, 1).exponential_(generator=generator)
    for wanted in (-0.5, 1.0):
        sample = (z[:, 0] - (1 + wanted)).abs().argmin().item()
        expected = (1 + 2 * wanted + 2 * wanted**2) / 64
        assert predicted_noise(z, sample, 64) == pytest.approx(expected, rel=0.05)


def test_a_value_is_bounded_by_its_batch():
    z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    values = normalized_in_batches(z, 0, 4, 2000)
    assert values.abs().max() <= 3**0.5


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        normalized_in_batches(torch.randn(5, 2), 0, 1, 3)


def toy(seed: int = 0) -> DataSet:
    labels = torch.arange(2000) % 10
    images = labels.view(-1, 1, 1, 1).expand(-1, 1, 16, 16).float() / 10  # an image tells its true label
    return DataSet("toy", Examples(images, labels), Examples(images[:50], labels[:50]))


def test_small_sets():
    (images, labels), (test_images, test_labels) = small_sets(toy, [3, 3, 4], 1000, wrong=0.2)
    assert images.shape == (3, 1000, 64) and labels.shape == (3, 1000)
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    pixels = toy().train.images
    true = (10 * (images[..., 0] * pixels.std() + pixels.mean())).round().long()
    assert (labels != true).float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert torch.equal(small_sets(toy, [3, 3, 4], 1000)[0][1], true)  # none wrong unless asked for
    assert labels.min() >= 0 and labels.max() <= 9
    assert test_images.shape == (3, 50, 64)
    order = test_images[0, :, 0].argsort(stable=True)
    assert test_labels[0, order].diff().min() >= 0  # test labels are the true ones


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match=r"count must be at most the 2000 .* got 2001"):
        small_sets(toy, [0], 2001)


def test_wrong_labels_are_wrong_and_about_as_many_as_asked_for():
    labels = torch.arange(10).repeat(300)
    changed = with_wrong_labels(labels, 0.2, generator=torch.Generator().manual_seed(3))
    assert (changed != labels).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert set(changed.tolist()) == set(range(10))
    assert torch.equal(changed, with_wrong_labels(labels, 0.2, generator=torch.Generator().manual_seed(3)))


def test_noise_by_layer_is_that_of_many_batches_and_grows():
    """In the first layer it follows the formula (1 + u²/2) / m for a normal distribution; γ does not count."""
    images = torch.randn(2, 4000, 6, generator=torch.Generator().manual_seed(1))
    networks = ManyNetworks([6, 64, 64, 64, 3], [0, 1], ghost_size=32).initialize()
    found = noise_by_layer(networks, images, samples=4, batches=200)
    with torch.no_grad():
        z = networks[0](images)
        u = ((z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True))[:, :4]
        networks[1].norm.weight *= 3
    torch.testing.assert_close(found[0], (1 + u.square() / 2).mean((1, 2)) / 32, rtol=0.1, atol=0)
    assert (found.diff(dim=0) > 0).all()
    torch.testing.assert_close(noise_by_layer(networks, images, samples=4, batches=200)[0], found[0])


def test_the_noise_of_dropout_is_that_of_the_next_layers_sum():
    """In the second layer, p / (1 - p) times the sum of (weight * activation)², over the variance of that sum."""
    images = torch.randn(2, 4000, 6, generator=torch.Generator().manual_seed(1))
    networks = ManyNetworks([6, 64, 64, 64, 3], [0, 1], dropout=0.1).initialize()
    found = dropout_by_layer(networks, images, draws=64)
    with torch.no_grad():
        active = torch.relu(networks[1](networks[0](images)))  # (S, N, 64)
        weight = networks[4].weight  # (S, 64, 64)
        noise = active[:, :4].square() @ weight.square() * 0.1 / 0.9  # (S, 4, 64)
        spread = (active @ weight).var(1, keepdim=True) + (active.square() @ weight.square()).mean(1, True) * 0.1 / 0.9
    torch.testing.assert_close(found[1], (noise / spread).mean((1, 2)), rtol=0.07, atol=0)
    assert found[0].max() < 1e-9
    assert (found.diff(dim=0) > 0).all()


def test_the_best_temperature_undoes_a_scale_of_the_scores():
    networks = ManyNetworks([6, 16, 3], [0, 1])
    images = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(1))
    labels = networks(images).argmax(2)
    labels[:, :20] = 0
    before, plain = at_best_temperature(networks, (images, labels)), evaluate_many(networks, (images, labels))
    with torch.no_grad():
        networks[-1].weight *= 2
        networks[-1].bias *= 2
    after = at_best_temperature(networks, (images, labels))
    assert (before.loss <= plain.loss).all() and torch.equal(before.accuracy, plain.accuracy)
    torch.testing.assert_close(after.loss, before.loss, rtol=1e-4, atol=1e-5)
    assert networks.training


def test_rotation_decays_and_measures_the_angle():
    networks = ManyNetworks([2, 2, 2], [0, 1])
    weight = networks[0].weight
    with torch.no_grad():
        weight.copy_(torch.eye(2).expand(2, 2, 2))
    turning = Rotation(networks, rate=[0.5, 1.0], decay=[0.2, 0.0])
    angle = torch.tensor(0.3)
    with torch.no_grad():  # the second network's weights turn; the first one's grow, which is no turn
        weight[0] *= 4
        weight[1].copy_(torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]]))
    turning(1)
    torch.testing.assert_close(turning.angles[0], torch.tensor([0.0, 0.3]), atol=1e-3, rtol=0)
    torch.testing.assert_close(weight[0], 4 * 0.9 * torch.eye(2))
