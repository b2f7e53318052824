"""Real images that come with scikit-learn: no download, no network."""

import math

import torch
import torch.nn.functional as F

from bncourse.checks import whole_number
from bncourse.data.examples import DataSet, Examples, rng

__all__ = ["digits", "photo_digits", "photographs"]

DIGIT_COUNT = 1797
LARGEST_TURN = math.radians(15)
LARGEST_SHIFT = 3  # pixels of the 32


def digits(train: int = 1400, test: int = 397, seed: int = 0) -> DataSet:
    """Handwritten digits: scikit-learn's 1,797 scans of 8x8 pixels, scaled up to 28x28.

    The scaling is bilinear, so an image has MNIST's shape but still only 64 measured values. ``seed`` decides which
    digits go where; no digit is in both parts.

    Returns:
        images (train, 1, 28, 28) and (test, 1, 28, 28), ten classes.

    Raises:
        TypeError, ValueError: a size that is not whole, below one, or ``train + test`` above 1,797.
    """
    train, test = whole_number("train", train), whole_number("test", test)
    whole_number("train + test", train + test, at_most=DIGIT_COUNT)
    scans = _scans()
    order = torch.randperm(DIGIT_COUNT, generator=rng(seed))
    return DataSet("digits", scans.take(order[:train]), scans.take(order[train : train + test]))


def photo_digits(train: int = 4000, test: int = 1000, seed: int = 0) -> DataSet:
    """Handwritten digits on photographs: hard enough that normalization matters, and made in under a second.

    Each digit is turned by up to 15 degrees, shifted by up to 3 pixels and blended, as an absolute difference, onto a
    random 32x32 crop of a photograph (the recipe of MNIST-M, Ganin et al. 2016). Training images are made from the
    1,400 digits of ``digits(seed=seed).train``, test images from its 397 others; each digit is used about equally
    often, and differently each time.

    Returns:
        images (train, 3, 32, 32) and (test, 3, 32, 32), ten classes.

    Raises:
        TypeError, ValueError: a size that is not whole or below one.
    """
    train, test = whole_number("train", train), whole_number("test", test)
    random = rng(seed)
    scans = _scans()
    for_train, for_test = torch.randperm(DIGIT_COUNT, generator=random).split([1400, 397])
    return DataSet(
        "photo_digits",
        _blend(scans.take(_repeat(for_train, train)), random),
        _blend(scans.take(_repeat(for_test, test)), random),
    )


def photographs() -> torch.Tensor:
    """Scikit-learn's two photographs, a temple and a flower: shape (2, 3, 427, 640), float32 in [0, 1]."""
    from sklearn.datasets import load_sample_images

    pictures = torch.stack([torch.from_numpy(picture.copy()) for picture in load_sample_images().images])
    return pictures.permute(0, 3, 1, 2).float().div(255).contiguous()


def _scans() -> Examples:
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = torch.from_numpy(scans.images).float().unsqueeze(1).div(16)  # a scan's pixels count from 0 to 16
    images = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    return Examples(images, torch.from_numpy(scans.target).long())


def _repeat(positions: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` positions, each used equally often, give or take one."""
    return positions.repeat(math.ceil(count / len(positions)))[:count]


def _blend(digits: Examples, random: torch.Generator) -> Examples:
    """Turn, shift and blend each digit (N, 1, 28, 28) onto a crop of its own: (N, 3, 32, 32)."""
    count = len(digits.labels)
    moved = _move(F.pad(digits.images, (2, 2, 2, 2)), random)

    pictures = photographs()
    windows = pictures.unfold(2, 32, 1).unfold(3, 32, 1)  # (2, 3, rows, columns, 32, 32), a view: nothing is copied
    picture, row, column = (torch.randint(windows.shape[axis], (count,), generator=random) for axis in (0, 2, 3))
    return Examples((windows[picture, :, row, column] - moved).abs(), digits.labels)


def _move(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Turn and shift each image (N, 1, 32, 32) by random amounts of its own."""
    angle, right, down = (2 * torch.rand(3, len(images), generator=random) - 1).unbind()
    cos, sin = (LARGEST_TURN * angle).cos(), (LARGEST_TURN * angle).sin()
    unit = 2 * LARGEST_SHIFT / images.shape[-1]  # affine_grid measures an image from -1 to 1
    maps = torch.stack([cos, -sin, unit * right, sin, cos, unit * down], dim=1).view(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(maps, images.shape, align_corners=False), align_corners=False)
