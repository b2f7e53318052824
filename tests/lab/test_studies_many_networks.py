"""Many networks at once do what one network at a time does in torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bncourse.studies.many_networks import Curves, ManyNetworks, train_many

SIZES, SEEDS = [6, 5, 4, 3], [0, 1, 2]


def alone(networks: ManyNetworks, which: int) -> nn.Sequential:
    """One of the networks, made of torch's layers."""
    layers = []
    for layer, (weight, bias, scale) in enumerate(zip(networks.weights, networks.biases, networks.scales, strict=True)):
        linear = nn.Linear(*weight.shape[1:], bias=layer == len(SIZES) - 2 or networks.norm == "none")
        linear.weight.data = weight[which].detach().T.clone()
        if linear.bias is not None:
            linear.bias.data = bias[which, 0].detach().clone()
        layers.append(linear)
        if layer < len(SIZES) - 2:
            if networks.norm == "batch":
                norm = nn.BatchNorm1d(weight.shape[-1], momentum=1.0)
                norm.weight.data, norm.bias.data = scale[which, 0].detach().clone(), bias[which, 0].detach().clone()
                layers.append(norm)
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def data(count=24):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(len(SEEDS), count, SIZES[0], generator=generator)
    return images, torch.randint(0, 3, (len(SEEDS), count), generator=generator)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_each_network_is_torchs(norm):
    networks, (images, _) = ManyNetworks(SIZES, SEEDS, norm=norm), data()
    scores = networks(images)
    for which in range(len(SEEDS)):
        torch.testing.assert_close(scores[which], alone(networks, which)(images[which]))


def test_evaluation_uses_the_measured_statistics():
    networks, (images, _) = ManyNetworks(SIZES, SEEDS), data()
    networks.measure(images)
    torch.testing.assert_close(networks(images), networks.train()(images))
    networks.eval()
    torch.testing.assert_close(networks(images)[:, :1], networks(images[:, :1]))  # no sample sees another


def test_ghost_batches_are_normalized_alone():
    whole = ManyNetworks(SIZES, SEEDS)
    ghosts = ManyNetworks(SIZES, SEEDS, ghost_size=8)
    images = data()[0]
    parts = [whole(part) for part in images.split(8, dim=1)]
    torch.testing.assert_close(ghosts(images), torch.cat(parts, dim=1))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_step_is_sgd_with_each_networks_own_rate(norm):
    networks, (images, labels) = ManyNetworks(SIZES, SEEDS, norm=norm), data()
    expected, rates = [alone(networks, which) for which in range(len(SEEDS))], [0.1, 1.0, 0.5]
    for which, model in enumerate(expected):
        optimizer = torch.optim.SGD(model.parameters(), lr=rates[which])
        functional.cross_entropy(model(images[which]), labels[which]).backward()
        optimizer.step()
    train_many(
        networks, (images, labels), (images[0], labels[0]), steps=1, batch_size=labels.shape[1], learning_rate=rates
    )
    for which, model in enumerate(expected):
        torch.testing.assert_close(alone(networks, which)(images[which]), model(images[which]))


def test_gain_and_seeds():
    one, other = ManyNetworks(SIZES, [7, 7], gain=[1.0, 3.0]), ManyNetworks(SIZES, [7])
    torch.testing.assert_close(one.weights[0][1], 3 * one.weights[0][0])
    torch.testing.assert_close(one.weights[1][:1], other.weights[1])


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm='layer' is unknown"):
        ManyNetworks(SIZES, SEEDS, norm="layer")


def test_loss_at_a_level_is_read_off_the_curve():
    train, test = np.array([[1.0, 1.0], [0.1, 0.9]]), np.array([[2.0, 2.0], [4.0, 3.0]])
    curves = Curves(np.array([0, 10]), train, train, test, test)
    found = curves.test_loss_at(10**-0.5)  # half way on the logarithmic scale
    assert found[0] == pytest.approx(3.0) and np.isnan(found[1])
