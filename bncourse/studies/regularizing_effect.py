"""Chapter 4: the noise of batch statistics, and small training sets on which it can matter."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bncourse.data import DataSet, Examples
from bncourse.standardize import standardize

__all__ = ["normalized_in_batches", "small_sets", "thumbnails", "with_wrong_labels"]


def normalized_in_batches(
    z: Tensor, sample: int, batch_size: int, batches: int, generator: torch.Generator | None = None
) -> Tensor:
    """One sample's values, each time normalized together with other samples drawn at random: (batches, features).

    Args:
        z: the outputs of a layer for many samples, (N, features).
        sample: which of them to watch; it is in every batch.
        batch_size: the samples of a batch, the watched one included.

    Raises:
        ValueError: fewer than two samples in a batch.
    """
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}")
    others = torch.randint(len(z), (batches, batch_size - 1), generator=generator)
    together = torch.cat([z[sample].expand(batches, 1, -1), z[others]], dim=1)  # (batches, batch_size, features)
    return standardize(together, (1,))[0][:, 0]


def thumbnails(examples: Examples, side: int = 8) -> Tensor:
    """The images averaged down to ``side`` x ``side`` and flattened: (N, C * side * side)."""
    return functional.adaptive_avg_pool2d(examples.images, side).flatten(1)


def with_wrong_labels(
    labels: Tensor, share: float, classes: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """The labels (N,), each replaced with probability ``share`` by one of the other classes."""
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    shift[torch.rand(labels.shape, generator=generator) >= share] = 0
    return (labels + shift.to(labels.device)) % classes


def small_sets(
    split: Callable[[int], DataSet], seeds: Sequence[int], count: int, wrong: float = 0.0
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A small training set for each seed, some of its labels wrong, and a clean test set for each, as thumbnails.

    Args:
        split: the data as each seed divides them, such as ``bncourse.experiments.Splits``.
        count: the examples that each seed draws from its training images.
        wrong: the share of them (on average) whose label becomes one of the other classes, at random.

    Returns:
        train: images (seeds, count, features), standardized, and labels (seeds, count).
        test: images (seeds, M, features) and labels (seeds, M).

    Raises:
        ValueError: fewer training examples than ``count``.
    """
    train, test = [], []
    for seed in seeds:
        data = split(seed)
        images, labels = thumbnails(data.train), data.train.labels
        if count > len(labels):
            raise ValueError(f"count must be at most the {len(labels)} training examples of {data.name}, got {count}")
        mean, std, classes = images.mean(), images.std(), int(labels.max()) + 1
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(labels), generator=generator)[:count]
        train.append(((images[chosen] - mean) / std, with_wrong_labels(labels[chosen], wrong, classes, generator)))
        test.append(((thumbnails(data.test) - mean) / std, data.test.labels))
    (train_images, train_labels), (test_images, test_labels) = (
        tuple(map(torch.stack, zip(*part, strict=True))) for part in (train, test)
    )
    return (train_images, train_labels), (test_images, test_labels)
