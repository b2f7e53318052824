"""What the specimens share: small digits, three small networks, a training loop, and what can be measured of them."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from bncourse.data import Examples, digits
from bncourse.devices import seeded
from bncourse.museum.specimen import Patient
from bncourse.surgery import recalibrate
from bncourse.training import in_evaluation

__all__ = [
    "accuracy",
    "accuracy_as_left",
    "batches_of",
    "cnn",
    "disagreement",
    "excess_variance",
    "images_and_labels",
    "kept_and_right",
    "mean_loss",
    "mlp",
    "offset",
    "residual",
    "share_right",
    "shuffled",
    "sorted_by_class",
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
    for inputs, labels in islice(batches or shuffled(), steps):
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
def share_right(model: Callable[[Any], Tensor], batches: Iterable[tuple[Any, Tensor]]) -> float:
    """Share of the examples that the model gets right, in the mode that it is in, in %."""
    right = [model(inputs).argmax(1) == labels for inputs, labels in batches]
    return 100 * torch.cat(right).float().mean().item()


def accuracy(patient: Patient) -> float:
    """Accuracy of the patient's model on the test digits in evaluation mode, in %."""
    with in_evaluation(patient.model):
        return share_right(patient.model, [images_and_labels("test")])


def sorted_by_class(size: int = 4) -> list[tuple[Tensor, Tensor]]:
    """The test digits sorted by class, in batches of ``size``, as a folder for each class gives them."""
    images, labels = images_and_labels("test")
    order = labels.argsort(stable=True)
    return list(zip(images[order].split(size), labels[order].split(size), strict=True))[:-1]


def accuracy_as_left(patient: Patient) -> float:
    """Accuracy on the sorted test digits in %, in whatever mode the model is: as its owner runs it."""
    return share_right(copy.deepcopy(patient.model), sorted_by_class())


def disagreement(one: nn.Module, other: nn.Module) -> float:
    """Share of the test digits for which two models give different answers in evaluation mode, in %."""
    images, _ = images_and_labels("test")
    with in_evaluation(one), in_evaluation(other), torch.no_grad():
        return 100 * (one(images).argmax(1) != other(images).argmax(1)).float().mean().item()


@torch.no_grad()
def mean_loss(patient: Patient) -> float:
    """Cross-entropy of the test digits in evaluation mode, in nats."""
    images, labels = images_and_labels("test")
    with in_evaluation(patient.model):
        return functional.cross_entropy(patient.model(images), labels).item()


def kept_and_right(patient: Patient) -> list[tuple[nn.Module, nn.Module]]:
    """Each batch norm of the patient, with one whose statistics are taken anew from the patient's batches."""
    right = copy.deepcopy(patient.model)
    recalibrate(right, [inputs for inputs, _ in patient.batches])
    pairs = zip(patient.model.modules(), right.modules(), strict=True)
    return [(one, two) for one, two in pairs if getattr(one, "running_mean", None) is not None]


def offset(patient: Patient) -> float:
    """How far the running mean of any channel is from the mean over the patient's batches, in standard deviations."""
    pairs = kept_and_right(patient)
    return max(
        ((one.running_mean - two.running_mean) / two.running_var.sqrt()).abs().max().item() for one, two in pairs
    )


def excess_variance(patient: Patient) -> float:
    """The running variance over that of the patient's batches in evaluation: the median channel of the worst norm."""
    return max((one.running_var / two.running_var).median().item() for one, two in kept_and_right(patient))
