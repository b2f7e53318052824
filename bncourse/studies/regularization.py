"""What chapter 4 measures: the noise of batch statistics, and small training sets on which it can matter."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bncourse.data import DataSet, Examples
from bncourse.functional import standardize

__all__ = ["normalized_in_batches", "small_sets", "thumbnails"]


def normalized_in_batches(
    z: Tensor, sample: int, batch_size: int, batches: int, generator: torch.Generator | None = None
) -> Tensor:
    """One sample's values, each time normalized together with other samples drawn at random: (batches, features).

    Args:
        z: what a layer gives for many samples, (N, features).
        sample: which of them to watch; it is in every batch.
        batch_size: the samples of a batch, the watched one included.

    Raises:
        ValueError: fewer than two samples in a batch.
    """
    if batch_size < 2:
        raise ValueError(f"batch_size={batch_size} is too small; expected at least 2")
    others = torch.randint(len(z), (batches, batch_size - 1), generator=generator)
    together = torch.cat([z[sample].expand(batches, 1, -1), z[others]], dim=1)  # (batches, batch_size, features)
    return standardize(together, (1,))[0][:, 0]


def thumbnails(examples: Examples, side: int = 8) -> Tensor:
    """The images averaged down to ``side`` x ``side`` and flattened: (N, C * side * side)."""
    return functional.adaptive_avg_pool2d(examples.images, side).flatten(1)


def small_sets(
    data: DataSet, seeds: Sequence[int], count: int, wrong: float = 0.0
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A small training set for each seed, some of its labels wrong, and the one clean test set, as thumbnails.

    Args:
        count: the examples that each seed draws from ``data.train``.
        wrong: the share of them (on average) whose label becomes one of the other classes, at random.

    Returns:
        train: images (seeds, count, features), standardized, and labels (seeds, count).
        test: images (M, features) and labels (M,).

    Raises:
        ValueError: fewer training examples than ``count``.
    """
    images, labels = thumbnails(data.train), data.train.labels
    if count > len(labels):
        raise ValueError(f"count={count} is more than the {len(labels)} training examples of {data.name}")
    mean, std, classes = images.mean(), images.std(), int(labels.max()) + 1
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(labels), generator=generator)[:count]
        shift = torch.randint(1, classes, (count,), generator=generator)
        shift[torch.rand(count, generator=generator) >= wrong] = 0
        drawn.append(((images[chosen] - mean) / std, (labels[chosen] + shift) % classes))
    train_images, train_labels = (torch.stack(part) for part in zip(*drawn, strict=True))
    return (train_images, train_labels), ((thumbnails(data.test) - mean) / std, data.test.labels)
