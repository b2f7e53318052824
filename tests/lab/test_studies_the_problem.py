"""The experiments of chapter 1 measure what they say they do."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn
from torch.nn import functional

import bncourse
from bncourse.models import fc_network
from bncourse.studies.many_networks import ManyNetworks, evaluate_many, train_many
from bncourse.studies.the_problem import (
    AtLoss,
    GradientShift,
    InputMoves,
    NoisyBatchNorm1d,
    add_noise,
    likeness,
    walk,
)

SEEDS = [3, 4]


def data(count=40):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, count, 6, generator=generator), torch.randint(0, 3, (2, count), generator=generator)


def test_noise_moves_the_outputs_in_training_only():
    torch.manual_seed(0)
    model = add_noise(fc_network([4, 8, 2]), reach=2)
    noisy = next(m for m in model.modules() if isinstance(m, NoisyBatchNorm1d))
    x = torch.randn(64, 8)
    assert 0.5 < noisy(x).mean(0).abs().max() < 2  # BatchNorm alone would give 0
    assert not torch.equal(noisy(x), noisy(x))
    noisy.eval()
    expected = bncourse.BatchNorm1d(8).eval()
    expected.load_state_dict(noisy.state_dict())
    torch.testing.assert_close(noisy(x), expected(x))


def test_noise_of_the_batch_keeps_the_samples_apart_and_noise_of_the_sample_does_not():
    """A shift and scale common to the batch keep the order of the samples in a unit, and their correlation at 1."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for per_sample, low, high in ((False, 0.999, 1.001), (True, 0.5, 0.95)):
        norm = add_noise(nn.Sequential(bncourse.BatchNorm1d(8)), 2, per_sample)
        correlation = torch.corrcoef(torch.stack([x[:, 0], norm(x)[:, 0].detach()]))[0, 1]
        assert low < correlation < high


def test_moves_are_in_standard_deviations_of_the_images():
    networks, (images, _) = ManyNetworks([6, 8, 3], SEEDS, "none", activation=nn.Tanh), data()
    moves = InputMoves(networks, images, layer=1)
    then = moves.first
    moves(1)  # nothing has happened
    with torch.no_grad():
        networks[0].bias += 1
    moves(2)
    now = torch.tanh(torch.atanh(then.double()) + 1)
    expected = ((now - then).square().mean((1, 2)) / then.double().var(1, correction=0).mean(1)).sqrt().float()
    assert moves.steps[0].tolist() == [0, 0]
    torch.testing.assert_close(moves.steps[1], expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(moves.from_start, moves.steps[1])


def test_a_distribution_moves_as_scipy_says_and_not_where_images_trade_places():
    networks, (images, _) = ManyNetworks([6, 8, 3], SEEDS, "none", activation=nn.Tanh), data()
    moves = InputMoves(networks, images, layer=1)
    moves.last = moves.first.flip(1)
    assert moves.from_start.min() > 1 and moves.distribution.tolist() == [0] * len(SEEDS)
    with torch.no_grad():
        networks[0].bias += torch.linspace(-1, 1, 8)
        networks[0].weight *= 2
    moves(1)
    pairs = [zip(then.T, now.T, strict=True) for then, now in zip(moves.first, moves.last, strict=True)]
    distances = torch.tensor([[wasserstein_distance(*pair) for pair in network] for network in pairs])
    expected = distances.square().mean(1).sqrt() / moves.first.double().var(1, correction=0).mean(1).sqrt()
    torch.testing.assert_close(moves.distribution, expected.float(), rtol=1e-4, atol=0)


def test_looking_at_the_inputs_leaves_the_networks():
    networks = ManyNetworks([6, 8, 8, 3], SEEDS)
    before = [value.clone() for value in networks.state_dict().values()]
    InputMoves(networks, data()[0], layer=1)(1)
    GradientShift(networks, data(), rate=0.5, layer=1)(5)
    AtLoss(networks, data(), level=9.0)(1)
    walk(networks, data(), [0.1])
    likeness(networks, *data())
    assert all(map(torch.equal, before, networks.state_dict().values()))


def test_the_gradients_shift_as_it_does_in_torch():
    """Definition 2.1 of Santurkar et al. 2018, with torch's layers, one network at a time."""
    (images, labels), rate = data(), 0.5
    networks = ManyNetworks([6, 8, 8, 3], SEEDS)
    shift = GradientShift(networks, (images, labels), rate, layer=1)
    shift(4)  # not one of the steps
    assert shift.mean.isnan().all() and shift.length.isnan().all()
    shift(5)
    assert len(shift.cosines) == 1
    for which, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        first, second, third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        norm = nn.BatchNorm1d(8)
        model = nn.Sequential(first, norm, nn.ReLU(), second, nn.BatchNorm1d(8), nn.ReLU(), third)
        gradients = []
        for _ in range(2):
            model.zero_grad()
            functional.cross_entropy(model(images[which]), labels[which]).backward()
            gradients.append(second.weight.grad.clone())
            torch.optim.SGD([*first.parameters(), *norm.parameters()], lr=rate).step()
        expected = functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0)
        assert shift.cosines[0][which].item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_gradients_shift_for_a_step_of_a_given_share_of_the_weights():
    """The same with torch: the first layer's weights move by a tenth of their length, nothing else does."""
    images, labels = data()
    shift = GradientShift(ManyNetworks([6, 8, 8, 3], SEEDS), (images, labels), share=0.1, layer=1)
    shift(5)
    assert shift.length.tolist() == pytest.approx([0.1, 0.1], rel=1e-4)
    for which, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        first, second, third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        model = nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), second, nn.BatchNorm1d(8), nn.ReLU(), third)
        gradients = []
        for _ in range(2):
            model.zero_grad()
            functional.cross_entropy(model(images[which]), labels[which]).backward()
            gradients.append(second.weight.grad.clone())
            first.weight.data -= 0.1 * first.weight.norm() * first.weight.grad / first.weight.grad.norm()
        expected = functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0)
        assert shift.cosines[0][which].item() == pytest.approx(expected.item(), abs=1e-4)


def test_networks_are_kept_as_they_were_when_their_loss_came_to_the_level():
    networks, examples = ManyNetworks([6, 16, 3], SEEDS), data()
    kept, losses = AtLoss(networks, examples, level=0.9), []
    train_many(
        networks,
        examples,
        steps=60,
        batch_size=40,
        learning_rate=[0.2, 1e-9],
        on_step=lambda step: (kept(step), losses.append(evaluate_many(networks, examples).loss)),
    )
    path = torch.stack(losses)[:, 0]
    crossing = int((path <= 0.9).nonzero()[0])
    assert 0 < crossing < len(path) - 1
    assert kept.reached.tolist() == [True, False]
    assert evaluate_many(kept.networks, examples).loss[0].item() == pytest.approx(path[crossing].item())
    assert walk(kept.networks, examples, [0.1])[1].isnan().tolist() == [[False, True]], "not measured where not reached"


def test_a_walk_for_one_weight_has_known_losses():
    """For the weights (1, 0) and the loss log(1 + exp(w1 - w0)) everything is known in closed form."""
    networks = ManyNetworks([1, 2], [0], "none")
    with torch.no_grad():
        networks[0].weight.copy_(torch.tensor([[[1.0, 0.0]]]))
        networks[0].bias.zero_()
    losses, changes = walk(networks, (torch.ones(1, 1, 1), torch.tensor([[0]])), [0.0, 0.5])
    slopes = torch.sigmoid(-torch.tensor([1.0, 1 + 0.5 * 2**0.5]))
    torch.testing.assert_close(losses[:, 0], -torch.log(1 - slopes))
    torch.testing.assert_close(changes[:, 0], 1 - slopes / slopes[0], atol=1e-6, rtol=1e-5)


def test_a_walk_does_not_depend_on_the_scale_of_weights_before_a_norm():
    curves = []
    for scale in (1, 3):
        networks = ManyNetworks([6, 16, 16, 3], SEEDS)
        with torch.no_grad():
            for layer in (networks[0], networks[4]):
                layer.weight *= scale
                layer.bias *= scale
        curves.append(walk(networks, data(), [0.01, 0.1]))
    for one, other in zip(*curves, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-4)


def test_likeness_is_the_mean_cosine_over_pairs():
    networks, (images, labels) = ManyNetworks([6, 16, 3], SEEDS, "none"), data(12)
    same, different = likeness(networks, images, labels)
    for which in range(2):
        hidden = networks[2](networks[0](images))[which].detach().numpy()
        found: dict[bool, list[float]] = {True: [], False: []}
        for i in range(12):
            for j in set(range(12)) - {i}:
                cosine = hidden[i] @ hidden[j] / np.linalg.norm(hidden[i]) / np.linalg.norm(hidden[j])
                found[bool(labels[which, i] == labels[which, j])].append(cosine)
        assert same[0, which].item() == pytest.approx(np.mean(found[True]), abs=1e-5)
        assert different[0, which].item() == pytest.approx(np.mean(found[False]), abs=1e-5)
