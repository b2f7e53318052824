"""Chapters 1, 2, 4 and 7 to 9: many small networks trained at once, an experiment over seeds in one run.

A comparison over seeds trains the same small network again and again, and most of its time is overhead. Here every
tensor has one extra axis, in front: the networks, (S, N, F). None sees another.

BatchNorm treats every feature by itself. So the batch norm of S networks with F features each is one batch norm of
S * F features; the linear layers stay apart by a batched matrix product. (``torch.func.vmap`` over a stack of ordinary
networks does the same in fewer lines; networks as small as these take between 1.3 and 4 times as long with it.)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.devices import device_of, moved, seeded, training_device
from bncourse.experiments import one_thread
from bncourse.layers import BatchNorm1d, GhostBatchNorm, GroupNorm
from bncourse.models import Dropout
from bncourse.standardize import standardize
from bncourse.surgery import recalibrate
from bncourse.training import Evaluation, quick

__all__ = ["Curves", "ManyNetworks", "evaluate_many", "learning_curves", "train_many"]

GROUPS = 8


class ManyNetworks(nn.Sequential):
    """Fully connected networks of one shape, one for each seed: (S, N, sizes[0]) to (S, N, sizes[-1]).

    A hidden layer is linear, then what ``order`` says. Network s starts as PyTorch starts a network after
    ``manual_seed(seeds[s])``. An input (1, N, sizes[0]) is for all networks alike.

    Args:
        sizes: the features of every layer, input and output included.
        seeds: one for each network; equal seeds give equal initial weights.
        norm: "batch", "group" (8 groups), "layer" or "none".
        ghost_size: for "batch": how many samples share statistics in training; None for the whole batch.
        dropout: the share of hidden activations set to zero in training.
        order: of the norm, the activation and dropout after a hidden linear layer.

    Raises:
        ValueError: an unknown ``norm``.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        norm: str = "batch",
        *,
        ghost_size: int | None = None,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
        order: str = "norm activation dropout",
    ) -> None:
        super().__init__()
        self.seeds, self.norm, self.activation, count = tuple(seeds), norm, activation, len(seeds)
        batch_norm = BatchNorm1d if ghost_size is None else partial(ParallelGhostBatchNorm, ghost_size=ghost_size)
        makers = {
            "batch": lambda features: batch_norm(count * features),
            "group": lambda features: GroupNorm(count * GROUPS, count * features),
            "layer": lambda features: GroupNorm(count, count * features),
            "none": lambda features: nn.Identity(),
        }
        if norm not in makers:
            raise ValueError(f"norm must be one of {', '.join(makers)}, got {norm!r}")
        networks = [_linear_layers(sizes, seed) for seed in seeds]
        *hidden, last = (ManyLinear(same) for same in zip(*networks, strict=True))
        for layer, features in zip(hidden, sizes[1:], strict=False):
            follow = {
                "norm": SideBySide(makers[norm](features)),
                "activation": activation(),
                "dropout": Dropout(dropout),
            }
            self.extend([layer, *(follow[word] for word in order.split())])
        self.append(last)

    @torch.no_grad()
    def initialize(self, gain: float | Sequence[float] = 1.0) -> "ManyNetworks":
        """Start from normal weights of variance gain² / fan_in, twice that before ReLU (He et al. 2015), and biases 0.

        Args:
            gain: one number, or one for each network.
        """
        gain = torch.as_tensor(gain, dtype=torch.float32).expand(len(self.seeds)).view(-1, 1, 1)
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        for layer in self:
            if isinstance(layer, ManyLinear):
                shape = layer.weight.shape[1:]
                normal = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
                std = gain * ((2 if self.activation is nn.ReLU else 1) / shape[0]) ** 0.5
                layer.weight.copy_(std * normal)
                layer.bias.zero_()
        return self


class ManyLinear(nn.Module):
    """The same linear layer of every network: (S, N, in) to (S, N, out)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.mT for layer in layers]).detach())  # (S, in, out)
        self.bias = nn.Parameter(torch.stack([layer.bias for layer in layers]).detach().unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


class SideBySide(nn.Module):
    """A ``norm`` of (N, S * F), given the networks' features side by side: (S, N, F) to (S, N, F)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        together = x.transpose(0, 1).flatten(1)  # (N, S * F)
        return self.norm(together).unflatten(1, (len(x), -1)).transpose(0, 1)


class ParallelGhostBatchNorm(GhostBatchNorm):
    """``GhostBatchNorm`` with all ghost batches in one operation.

    Its input is (N, C, ...), with N a multiple of ``ghost_size``.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        ghosts = x.unflatten(0, (-1, self.ghost_size))  # (ghosts, ghost_size, C, ...)
        dims = (1, *range(3, ghosts.dim()))
        x_hat, mean, variance = standardize(ghosts, dims, eps=self.eps)
        count = ghosts[0, :, 0].numel()
        self._follow(mean.detach().flatten(1), variance.detach().flatten(1) * count / (count - 1))
        weight, bias = (each.view(-1, *[1] * (x.dim() - 2)) for each in (self.weight, self.bias))
        return x_hat.flatten(0, 1) * weight + bias

    def _follow(self, means: Tensor, variances: Tensor) -> None:
        """Move the running averages as if one ghost batch had come after the other."""
        keep = 1 - self.momentum
        weights = self.momentum * keep ** torch.arange(len(means) - 1, -1, -1, dtype=means.dtype, device=means.device)
        self.running_mean.mul_(keep ** len(means)).add_(weights @ means)
        self.running_var.mul_(keep ** len(means)).add_(weights @ variances)
        self.num_batches_tracked.add_(len(means))


def _linear_layers(sizes: Sequence[int], seed: int) -> list[nn.Linear]:
    with seeded(seed):
        return [nn.Linear(features, out_features) for features, out_features in pairwise(sizes)]


@one_thread()
def train_many(
    networks: ManyNetworks,
    examples: tuple[Tensor, Tensor],
    *,
    batch_size: int,
    learning_rate: float | Sequence[float],
    steps: int | None = None,
    epochs: int | None = None,
    accumulate: int = 1,
    anneal: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Train every network by plain SGD on its cross-entropy, on the device where ``training.fit`` would.

    Args:
        examples: images (N, ...) and labels (N,) for all networks alike, or (S, N, ...) and (S, N).
        batch_size: examples of each network in one forward pass, and so in its batch statistics.
        learning_rate: a number, or one for each network.
        steps: so many steps, each with a batch that each network draws anew.
        epochs: instead of ``steps``: each network goes through the examples in random orders of its own. What does not
            fill a step is left out.
        accumulate: forward passes whose gradients are averaged into one step.
        anneal: let the rates fall to zero over the ``steps`` along half a cosine.
        on_step: called with the number of steps so far after every step, with the networks where they were.

    Returns:
        each network's training loss at every step, in nats: (steps, S).
    """
    home, losses = device_of(networks), []
    with moved(networks, training_device(networks)) as device, seeded(0, device):
        images, labels = _for_each(networks, examples)
        which = torch.arange(len(images), device=device).unsqueeze(1)
        rate = torch.as_tensor(learning_rate, device=device)
        optimizer = torch.optim.SGD(networks.parameters(), lr=1.0)  # each network's rate is a factor of its loss
        draws = _draws(networks.seeds, labels.shape[1], accumulate * batch_size, steps, epochs)
        for number, drawn in enumerate(islice(draws, 2 if quick() else None)):
            share = (1 + math.cos(math.pi * number / steps)) / 2 if anneal else 1.0
            networks.train()
            optimizer.zero_grad()
            losses.append(torch.zeros(len(images), device=device))
            for chosen in drawn.to(device).split(batch_size, dim=1):
                loss = _losses(networks(images[which, chosen]), labels[which, chosen]) / accumulate
                (share * rate * loss).sum().backward()  # a sum over the networks: none sees another's loss
                losses[-1] += loss.detach()
            optimizer.step()
            if on_step is not None:
                with moved(networks, home):
                    on_step(len(losses))
        return torch.stack(losses).cpu()


def _draws(seeds: Sequence[int], count: int, size: int, steps: int | None, epochs: int | None) -> Iterator[Tensor]:
    """The examples of each step, (S, size), from generators of their own: dropout does not change them."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def orders() -> Tensor:
        return torch.stack([torch.randperm(count, generator=generator, device="cpu") for generator in generators])

    if steps is not None:
        yield from (orders()[:, :size] for _ in range(steps))
    else:
        for _ in range(epochs):
            yield from orders()[:, : count // size * size].split(size, dim=1)


@one_thread()
@torch.no_grad()
def evaluate_many(networks: ManyNetworks, examples: tuple[Tensor, Tensor]) -> Evaluation:
    """The loss in nats and the accuracy of each network in eval mode, (S,) each and on the CPU.

    The networks run where they are; their mode is left as it was found.
    """
    images, labels = _for_each(networks, examples)
    training = networks.training
    scores = networks.eval()(images)
    networks.train(training)
    return Evaluation(_losses(scores, labels).cpu(), (scores.argmax(2) == labels).float().mean(1).cpu())


def _for_each(networks: ManyNetworks, examples: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Images (S, N, F) and labels (S, N) where the networks are, also of examples that are for all networks alike."""
    images, labels = (part.to(device_of(networks)) for part in examples)
    images = images.flatten(labels.dim())
    return images.expand(len(networks.seeds), -1, -1), labels.expand(len(networks.seeds), -1)


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of each network."""
    return functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none").mean(1)


class Curves(NamedTuple):
    """What was measured at ``steps`` while the networks trained: arrays (times, S), losses in nats."""

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


def learning_curves(
    networks: ManyNetworks,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    steps: int,
    every: int | None = None,
    evaluate: Callable[..., Evaluation] = evaluate_many,
    **options,
) -> Curves:
    """Train the networks for some ``steps``, with both sets evaluated before, after, and ``every`` so many steps.

    Batch norms are recalibrated with ``train`` before each evaluation, so that no running average blurs a comparison.

    Args:
        evaluate: called with the networks and a set.
        options: further arguments of ``train_many``.
    """
    times, measured = [], []

    def measure(step: int) -> None:
        if step % (every or steps) == 0 or step == steps:
            if networks.norm == "batch":
                recalibrate(networks, [_for_each(networks, train)[0]])
            times.append(step)
            measured.append([*evaluate(networks, train), *evaluate(networks, test)])

    with moved(networks, training_device(networks)) as device:
        train, test = ([part.to(device) for part in examples] for examples in (train, test))
        measure(0)
        train_many(networks, train, steps=steps, on_step=measure, **options)
    return Curves(np.array(times), *(torch.stack(column).numpy() for column in zip(*measured, strict=True)))
