"""Many small networks at once: an experiment over seeds in one run.

A comparison over seeds trains the same small network again and again, and most of its time is overhead. Here every
tensor has one axis more, in front: the networks. Each has its own weights, data, learning rate and initialization;
none sees another.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.functional import standardize

__all__ = ["Curves", "ManyNetworks", "train_many"]

EPS = 1e-5


class ManyNetworks(nn.Module):
    """Fully connected networks, one for each seed: (networks, N, sizes[0]) to (networks, N, sizes[-1]).

    A hidden layer is linear, norm, activation, dropout. In training the norm standardizes each ghost batch by itself;
    in evaluation it uses the statistics that ``measure`` found, so that no running average blurs a comparison.

    Args:
        sizes: the features of every layer, input and output included.
        seeds: one for each network; equal seeds give equal initial weights.
        norm: "batch" or "none".
        ghost_size: how many samples share statistics in training; None for the whole batch.
        dropout: the share of hidden activations set to zero in training.
        gain: the factor of the initial weights, one number or one for each network. 1 is He's initialization for
            ReLU, and unit variance divided by the number of inputs for other activations.

    Raises:
        ValueError: a norm that is neither "batch" nor "none".
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        *,
        norm: str = "batch",
        ghost_size: int | None = None,
        dropout: float = 0.0,
        gain: float | Sequence[float] = 1.0,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "none"):
            raise ValueError(f"norm={norm!r} is unknown; expected 'batch' or 'none'")
        self.norm, self.ghost_size, self.dropout, self.activation = norm, ghost_size, dropout, activation
        self.population: list[tuple[Tensor, Tensor]] = []  # mean and variance, (networks, 1, features), by layer
        self.weights, self.biases, self.scales = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        gain = torch.as_tensor(gain, dtype=torch.float32).expand(len(seeds)).view(-1, 1, 1)
        for features, out_features in pairwise(sizes):
            normal = torch.stack([torch.randn(features, out_features, generator=one) for one in generators])
            std = gain * ((2 if activation is torch.relu else 1) / features) ** 0.5
            self.weights.append(nn.Parameter(std * normal))
            self.biases.append(nn.Parameter(torch.zeros(len(seeds), 1, out_features)))  # beta, where there is a norm
            self.scales.append(nn.Parameter(torch.ones(len(seeds), 1, out_features)))  # gamma

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x, self._by_ghosts if self.training else self._by_population)[-1]

    def layers(self, x: Tensor, normalize: Callable[[Tensor, int], Tensor] | None = None) -> list[Tensor]:
        """What every layer gives, the scores last; ``normalize`` (x, layer) is by the whole batch if None."""
        normalize = normalize or (lambda x, layer: standardize(x, (1,), eps=EPS)[0])
        outputs, hidden = [], len(self.weights) - 1
        for layer, (weight, bias, scale) in enumerate(zip(self.weights, self.biases, self.scales, strict=True)):
            x = x @ weight
            if layer < hidden and self.norm == "batch":
                x = normalize(x, layer) * scale
            x = x + bias
            if layer < hidden:
                x = functional.dropout(self.activation(x), self.dropout, self.training)
            outputs.append(x)
        return outputs

    @torch.no_grad()
    def measure(self, x: Tensor) -> None:
        """Take the statistics for evaluation from ``x``, normally all the training images; go to eval mode."""

        def remember(x: Tensor, layer: int) -> Tensor:
            output, mean, variance = standardize(x, (1,), eps=EPS)
            self.population.append((mean, variance))
            return output

        self.population.clear()
        self.eval()
        self.layers(x, remember)

    def _by_ghosts(self, x: Tensor, layer: int) -> Tensor:
        ghosts = x.unflatten(1, (-1, self.ghost_size or x.shape[1]))  # (networks, ghosts, ghost_size, features)
        return standardize(ghosts, (2,), eps=EPS)[0].flatten(1, 2)

    def _by_population(self, x: Tensor, layer: int) -> Tensor:
        mean, variance = self.population[layer]
        return (x - mean) * (variance + EPS).rsqrt()


class Curves(NamedTuple):
    """What was measured at ``steps`` while the networks trained: arrays (times, networks), losses in nats."""

    steps: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray

    def test_loss_at(self, train_loss: float) -> np.ndarray:
        """Each network's test loss when its training loss first reached this value; NaN if it never did."""
        found = np.full(self.train_loss.shape[1], np.nan)
        for network, (train, test) in enumerate(zip(self.train_loss.T, self.test_loss.T, strict=True)):
            (below,) = np.nonzero(train <= train_loss)
            if len(below) and below[0] > 0:
                around = [below[0], below[0] - 1]
                found[network] = np.interp(np.log(train_loss), np.log(train[around]), test[around])
        return found


def train_many(
    networks: ManyNetworks,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float | Sequence[float],
    every: int | None = None,
) -> Curves:
    """Plain SGD on every network's cross-entropy, with both sets evaluated now and then.

    Args:
        train: images (networks, N, features) and labels (networks, N): each network has its own.
        test: images (M, features) and labels (M,), the same for all.
        batch_size: the samples that each network draws, without replacement, for a step.
        learning_rate: a number, or one for each network.
        every: the steps between evaluations; None evaluates at the start and at the end.
    """
    images, labels = train
    rate = torch.as_tensor(learning_rate, dtype=torch.float32).expand(len(images)).view(-1, 1, 1)
    test = [part.expand(len(images), *part.shape) for part in test]
    parameters = list(networks.parameters())
    times, measured = [], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step in range(steps + 1):
            if step in (0, steps) or (every and step % every == 0):
                networks.measure(images)
                times.append(step)
                measured.append([*_evaluate(networks, images, labels), *_evaluate(networks, *test)])
            if step == steps:
                break
            networks.train()
            chosen = torch.randperm(labels.shape[1])[:batch_size]
            loss = _losses(networks(images[:, chosen]), labels[:, chosen]).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        parameter.sub_(rate * gradient)
    return Curves(np.array(times), *(torch.stack(column).numpy() for column in zip(*measured, strict=True)))


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of each network."""
    return functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none").mean(1)


@torch.no_grad()
def _evaluate(networks: ManyNetworks, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss and the accuracy of each network, in the mode it is in."""
    scores = networks(images)
    return _losses(scores, labels), (scores.argmax(2) == labels).float().mean(1)
