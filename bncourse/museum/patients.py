"""What the specimens share: small digits, four small networks, a training loop, and what can be measured of them."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from bncourse.data import Examples, digits
from bncourse.devices import seeded
from bncourse.training import in_evaluation

__all__ = [
    "accuracy",
    "batches_of",
    "cnn",
    "images_and_labels",
    "mean_loss",
    "mlp",
    "residual",
    "train",
    "trained",
]


@cache
def images_and_labels(part: str = "train") -> Examples:
    """The digits as standardized 14x14 images: (1400, 1, 14, 14) to train on, (397, 1, 14, 14) to test."""
    examples = getattr(digits().standardized(), part)
    return Examples(functional.avg_pool2d(examples.images, 2), examples.labels)


def batches_of(part: str = "train", size: int = 64, count: int = 4) -> list[tuple[Tensor, Tensor]]:
    """The first ``count`` batches of ``size`` examples."""
    images, labels = images_and_labels(part)
    return [(images[start : start + size], labels[start : start + size]) for start in range(0, size * count, size)]


def cnn(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, width: int = 8) -> nn.Sequential:
    """Two convolutions with norms: (N, 1, 14, 14) to (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
        norm(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        norm(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


def mlp(norm: Callable[[int], nn.Module] = nn.BatchNorm1d, width: int = 64) -> nn.Sequential:
    """Two hidden layers with norms: (N, 1, 14, 14) to (N, 10)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(196, width, bias=False),
        norm(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        norm(width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


class Residual(nn.Module):
    """A residual block of two convolutions that keeps the shape."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(x + branch)


def residual(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, width: int = 8) -> nn.Sequential:
    """A convolution and two residual blocks: (N, 1, 14, 14) to (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
        norm(width),
        nn.ReLU(),
        Residual(width, norm),
        Residual(width, norm),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def shuffled(size: int = 64, images: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the training digits (or of other ``images`` of the same ones) in random order, epoch after epoch."""
    examples = images_and_labels()
    images = examples.images if images is None else images
    while True:
        for chosen in torch.randperm(len(images)).split(size):
            if len(chosen) == size:
                yield images[chosen], examples.labels[chosen]


def train(
    model: nn.Module,
    steps: int = 100,
    *,
    optimizer: Optimizer | None = None,
    batches: Iterable[tuple[Any, Tensor]] | None = None,
    after_step: Callable[[], Any] = lambda: None,
) -> nn.Module:
    """Train in whatever mode the model is in; returns the model. Adam at 0.003 unless another optimizer is given."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.003)
    for _, (inputs, labels) in zip(range(steps), batches or shuffled()):  # noqa: B905
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        after_step()
    return model


def trained(network: Callable[[], nn.Module] = cnn) -> nn.Module:
    """A healthy network in training mode, trained for 150 steps; a copy, since it is made once for each seed."""
    return copy.deepcopy(_trained(network, torch.initial_seed()))


@cache
def _trained(network: Callable[[], nn.Module], seed: int) -> nn.Module:
    with seeded(seed):  # the same whether or not it was made before
        return train(network(), 150)


@torch.no_grad()
def accuracy(patient_or_model: Any, batches: Iterable[tuple[Any, Tensor]] | None = None) -> float:
    """Share of the test digits that the model gets right in evaluation mode, in %."""
    model = getattr(patient_or_model, "model", patient_or_model)
    with in_evaluation(model):
        right = [model(inputs).argmax(1) == labels for inputs, labels in batches or [images_and_labels("test")]]
    return 100 * torch.cat(right).float().mean().item()


@torch.no_grad()
def mean_loss(patient_or_model: Any) -> float:
    """Cross-entropy of the test digits in evaluation mode, in nats."""
    model = getattr(patient_or_model, "model", patient_or_model)
    images, labels = images_and_labels("test")
    with in_evaluation(model):
        return functional.cross_entropy(model(images), labels).item()
