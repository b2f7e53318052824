"""Many small networks trained as one, each with its own seed: what makes comparisons over seeds cheap.

BatchNorm treats every feature by itself. So the batch norm of S networks with F features each, side by side, is one
batch norm with S * F features; the linear layers stay apart by a batched matrix product. Nothing passes from one
network to another.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.layers import BatchNorm1d, GroupNorm

__all__ = ["SideBySide", "errors", "train"]

GROUPS = 8


class SideBySide(nn.Module):
    """Fully connected networks of one shape, one for each seed: linear, norm, ReLU for every hidden size.

    Args:
        sizes: features of every layer, input and output included.
        norm: "batch", "group" (8 groups), "layer" or "none".
        seeds: network s starts from PyTorch's default initialization after ``manual_seed(seeds[s])``.

    Shapes: input (N, S, sizes[0]), or (N, 1, sizes[0]) for all networks alike; output (N, S, sizes[-1]).

    Raises:
        ValueError: an unknown ``norm``.
    """

    def __init__(self, sizes: list[int], norm: str, seeds: Iterable[int]) -> None:
        super().__init__()
        self.seeds = tuple(seeds)
        count = len(self.seeds)
        makers = {
            "batch": lambda features: BatchNorm1d(count * features),
            "group": lambda features: GroupNorm(count * GROUPS, count * features),
            "layer": lambda features: GroupNorm(count, count * features),
            "none": lambda features: nn.Identity(),
        }
        if norm not in makers:
            raise ValueError(f"norm={norm!r} is unknown; expected one of {', '.join(makers)}")
        self.norms = nn.ModuleList(makers[norm](features) for features in sizes[1:-1])
        networks = [_linear_layers(sizes, seed) for seed in self.seeds]
        layers = list(zip(*networks, strict=True))  # the same layer of every network together
        self.weights = nn.ParameterList(torch.stack([layer.weight.mT for layer in same]).detach() for same in layers)
        self.biases = nn.ParameterList(torch.stack([layer.bias for layer in same]).detach() for same in layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, len(self.seeds), -1).transpose(0, 1)  # (S, N, features)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), x, weight)
            if index < len(self.norms):
                together = x.transpose(0, 1).flatten(1)  # (N, S * features)
                x = self.norms[index](together).unflatten(1, (len(self.seeds), -1)).transpose(0, 1).relu()
        return x.transpose(0, 1)


def _linear_layers(sizes: list[int], seed: int) -> list[nn.Linear]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [nn.Linear(a, b) for a, b in pairwise(sizes)]


def train(
    networks: SideBySide, examples, *, epochs: int, batch_size: int, learning_rate: float, accumulate: int = 1
) -> Tensor:
    """Train every network by plain SGD on its own random order of the examples.

    Args:
        examples: images (N, ...) and labels (N,).
        batch_size: examples of each network in one forward pass, and so in its batch statistics.
        accumulate: forward passes whose gradients are averaged into one step. What does not fill a step is left out.

    Returns:
        each network's training loss at every step, in nats: (steps, S).
    """
    networks.train()
    images, labels = examples.images.flatten(1), examples.labels
    optimizer = torch.optim.SGD(networks.parameters(), lr=learning_rate)
    random = [torch.Generator().manual_seed(seed) for seed in networks.seeds]
    losses = []
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(labels), generator=r) for r in random], dim=1)  # (N, S)
        for step in orders.split(batch_size * accumulate):
            if len(step) < batch_size * accumulate:
                break
            optimizer.zero_grad()
            losses.append(torch.zeros(len(networks.seeds)))
            for chosen in step.split(batch_size):
                scores = networks(images[chosen])
                loss = functional.cross_entropy(scores.transpose(1, 2), labels[chosen], reduction="none").sum(0)
                (loss / len(step)).sum().backward()  # a sum over the networks: none sees another's loss
                losses[-1] += loss.detach() / len(step)
            optimizer.step()
    return torch.stack(losses)


@torch.no_grad()
def errors(networks: SideBySide, examples) -> Tensor:
    """The share that each network gets wrong in evaluation mode, in percent: (S,)."""
    networks.eval()
    scores = networks(examples.images.flatten(1).unsqueeze(1))
    return 100 * (scores.argmax(-1) != examples.labels.unsqueeze(1)).float().mean(0)
