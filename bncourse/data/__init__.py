"""The data sets of the course: each is a function of its sizes and a seed.

The default sets come with scikit-learn and need no network; the classical ones are downloaded once.
"""

import torch

from bncourse.data.bundled import digits, photo_digits, photographs
from bncourse.data.downloads import cifar10, data_folder, fashion_mnist, mnist
from bncourse.data.examples import DataSet, Examples

__all__ = [
    "DATA_SETS",
    "DataSet",
    "Examples",
    "cifar10",
    "data_folder",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "photo_digits",
    "photographs",
]

DATA_SETS = {
    "digits": digits,
    "photo_digits": photo_digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def load(name: str, **options) -> DataSet:
    """The data set called ``name``, so that an experiment can take its data set as a word; its tensors are on the CPU.

    Args:
        name: one of ``DATA_SETS``.
        options: passed on to the function of that name (``train``, ``test``, ``seed``).

    Raises:
        ValueError: there is no such data set.
    """
    if name not in DATA_SETS:
        raise ValueError(f"name must be one of {', '.join(DATA_SETS)}, got {name!r}")
    with torch.device("cpu"):  # also where a notebook has asked torch to make everything on a GPU
        return DATA_SETS[name](**options)
