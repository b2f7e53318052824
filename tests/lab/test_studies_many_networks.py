"""Many networks at once do what one network at a time does in torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bncourse.studies.many_networks import (
    Curves,
    ManyLinear,
    ManyNetworks,
    evaluate_many,
    learning_curves,
    train_many,
)

SIZES, SEEDS = [6, 32, 32, 3], [3, 4, 5]
NORMS = {
    "batch": nn.BatchNorm1d,
    "group": lambda features: nn.GroupNorm(8, features),
    "layer": nn.LayerNorm,
    "none": lambda features: nn.Identity(),
}


def alone(norm: str, seed: int) -> nn.Sequential:
    """One of the networks, made of torch's layers as torch starts them."""
    torch.manual_seed(seed)
    linear = [nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 3)]
    make = NORMS[norm]
    return nn.Sequential(linear[0], make(32), nn.ReLU(), linear[1], make(32), nn.ReLU(), linear[2])


def data(count=24, own=True):
    generator = torch.Generator().manual_seed(5)
    shape = (len(SEEDS), count) if own else (count,)
    return torch.randn(*shape, 6, generator=generator), torch.randint(0, 3, shape, generator=generator)


@pytest.mark.parametrize("norm", NORMS)
def test_each_network_is_torchs(norm):
    networks, (images, _) = ManyNetworks(SIZES, SEEDS, norm), data()
    scores = networks(images)
    for which, seed in enumerate(SEEDS):
        torch.testing.assert_close(scores[which], alone(norm, seed)(images[which]))
        torch.testing.assert_close(networks(images[:1])[which], alone(norm, seed)(images[0]))


@pytest.mark.parametrize("norm", NORMS)
def test_networks_trained_together_are_networks_trained_one_by_one(norm):
    images, labels = data(50, own=False)
    networks, rates = ManyNetworks(SIZES, SEEDS, norm), [0.1, 0.5, 0.2]
    losses = train_many(
        networks, (images.view(50, 2, 3), labels), epochs=2, batch_size=4, accumulate=3, learning_rate=rates
    )
    found = evaluate_many(networks, (images, labels))
    assert networks.training
    for which, seed in enumerate(SEEDS):
        model, random, expected = alone(norm, seed), torch.Generator().manual_seed(seed), []
        optimizer = torch.optim.SGD(model.parameters(), lr=rates[which])
        for _ in range(2):
            for step in torch.randperm(50, generator=random)[:48].split(12):
                optimizer.zero_grad()
                loss = sum(functional.cross_entropy(model(images[c]), labels[c]) for c in step.split(4)) / 3
                loss.backward()
                optimizer.step()
                expected.append(loss.detach())
        torch.testing.assert_close(losses[:, which], torch.stack(expected), rtol=1e-3, atol=1e-4)
        scores = model.eval()(images)  # running averages are torch's as well
        torch.testing.assert_close(found.loss[which], functional.cross_entropy(scores, labels), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.accuracy[which], (scores.argmax(1) == labels).float().mean())


def test_a_drawn_step_is_sgd_on_each_networks_own_examples():
    networks, (images, labels) = ManyNetworks(SIZES, SEEDS), data()
    train_many(networks, (images, labels), steps=1, batch_size=24, learning_rate=0.1)
    for which, seed in enumerate(SEEDS):
        model = alone("batch", seed)
        functional.cross_entropy(model(images[which]), labels[which]).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        torch.testing.assert_close(networks(images)[which], model(images[which]))


def test_annealed_rates_follow_half_a_cosine():
    networks, (images, labels) = ManyNetworks(SIZES, SEEDS), data()
    train_many(networks, (images, labels), steps=3, batch_size=24, learning_rate=0.4, anneal=True)
    for which, seed in enumerate(SEEDS):
        model = alone("batch", seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[which]), labels[which]).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(networks(images)[which], model(images[which]), rtol=1e-3, atol=1e-4)


def test_ghost_batches_are_normalized_alone():
    whole, ghosts = ManyNetworks(SIZES, SEEDS), ManyNetworks(SIZES, SEEDS, ghost_size=8)
    images = data()[0]
    parts = [whole(part) for part in images.split(8, dim=1)]
    torch.testing.assert_close(ghosts(images), torch.cat(parts, dim=1))


@pytest.mark.parametrize("ghost_size", [None, 8])
def test_curves_evaluate_with_the_statistics_of_all_training_images(ghost_size):
    networks, train, test = ManyNetworks(SIZES, SEEDS, ghost_size=ghost_size), data(), data(10, own=False)
    curves = learning_curves(networks, train, test, steps=5, every=2, batch_size=24, learning_rate=0.1)
    assert curves.steps.tolist() == [0, 2, 4, 5]
    assert curves.test_loss.shape == curves.train_accuracy.shape == (4, 3)
    for which, seed in enumerate(SEEDS):
        first = functional.cross_entropy(alone("batch", seed)(train[0][which]), train[1][which]).item()
        assert curves.train_loss[0, which] == pytest.approx(first, rel=1e-4)
    networks.eval()
    torch.testing.assert_close(networks(train[0])[:, :1], networks(train[0][:, :1]))  # no sample sees another


def test_initial_weights():
    sizes, seeds = [400, 300, 3], [7, 7, 8]
    networks = ManyNetworks(sizes, seeds).initialize(gain=[1.0, 3.0, 1.0])
    first = networks[0].weight
    assert first[0].std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)  # He et al. 2015
    torch.testing.assert_close(first[1], 3 * first[0])
    assert not torch.equal(first[0], first[2])
    smooth = ManyNetworks(sizes, seeds, activation=nn.Tanh).initialize()
    torch.testing.assert_close(first[0], 2**0.5 * smooth[0].weight[0])
    assert all(layer.bias.count_nonzero() == 0 for layer in networks if isinstance(layer, ManyLinear))


def test_a_quick_run_takes_two_steps(monkeypatch):
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    options = {"batch_size": 4, "learning_rate": 0.1}
    assert len(train_many(ManyNetworks(SIZES, SEEDS), data(), epochs=5, **options)) == 2
    curves = learning_curves(ManyNetworks(SIZES, SEEDS), data(), data(), steps=90, **options)
    assert curves.steps.tolist() == [0]


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"norm must be .* got 'bath'"):
        ManyNetworks(SIZES, SEEDS, norm="bath")


def test_loss_at_a_level_is_read_off_the_curve():
    train, test = np.array([[1.0, 1.0], [0.1, 0.9]]), np.array([[2.0, 2.0], [4.0, 3.0]])
    curves = Curves(np.array([0, 10]), train, train, test, test)
    found = curves.test_loss_at(10**-0.5)  # half way on the logarithmic scale
    assert found[0] == pytest.approx(3.0) and np.isnan(found[1])
