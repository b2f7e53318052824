"""What a data set is: images with labels, in two parts that share nothing."""

from typing import NamedTuple

import torch

from bncourse.checks import whole_number
from bncourse.moved import names_of

__all__ = ["DataSet", "Examples", "rng"]


class Examples(NamedTuple):
    """Images with their labels.

    Shapes: ``images`` (N, C, H, W) float32 in [0, 1]; ``labels`` (N,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def take(self, positions: torch.Tensor) -> "Examples":
        """The examples at ``positions`` (an int64 tensor), in that order."""
        return Examples(self.images[positions], self.labels[positions])

    def __repr__(self) -> str:  # a page needs no thousand lines of numbers
        shape = "×".join(map(str, self.images.shape[1:]))
        return f"Examples({len(self.images):,} images of {shape}, with labels)"


class DataSet(NamedTuple):
    """A training set and a test set."""

    name: str
    train: Examples
    test: Examples

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.train.images.shape[1:]))
        images = f"{len(self.train.images):,} training and {len(self.test.images):,} test images of {shape}"
        return f"DataSet({self.name}: {images})"

    def standardized(self) -> "DataSet":
        """A copy whose training images have zero mean and unit variance in each channel.

        The test images go through the same map: its two numbers per channel are the training set's, as they
        must be, since a deployed model never sees the statistics of its test set.
        """
        mean = self.train.images.mean(dim=(0, 2, 3), keepdim=True)
        std = self.train.images.std(dim=(0, 2, 3), correction=0, keepdim=True)
        std = torch.where(std > 0, std, 1)  # a constant channel becomes zero, not NaN

        def map_images(examples: Examples) -> Examples:
            return Examples((examples.images - mean) / std, examples.labels)

        return DataSet(self.name, map_images(self.train), map_images(self.test))


def rng(seed: int) -> torch.Generator:
    """A generator of its own, so that torch's global one is neither used nor moved.

    Raises:
        TypeError: ``seed`` is not a whole number.
        ValueError: ``seed`` has more than 64 bits.
    """
    return torch.Generator().manual_seed(whole_number("seed", seed, at_least=-(2**63), at_most=2**64 - 1))


__getattr__ = names_of(__name__)
