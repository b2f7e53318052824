"""Read the classical data sets' files with numpy alone: nothing is unpickled, so a file cannot run code."""

import gzip
import re
import tarfile
import zlib
from pathlib import Path

import numpy as np

__all__ = ["read_cifar", "read_idx"]

UNSIGNED_BYTE = 8  # idx's code for the type of its elements
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in a gzipped idx file, the format of MNIST.

    An idx file starts with two zero bytes, the type of its elements and the number of its axes, then the length of each
    axis as a big-endian 32-bit number; the elements follow in C order.

    Raises:
        ValueError: the file is damaged or holds something else.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file: {error}") from error
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if len(content) < start or content[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise ValueError(f"{path} must start as an idx file does, 00 00 08, got {content[:4].hex(' ')}")
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != np.prod(shape, dtype=int):
        raise ValueError(f"{path} must have elements of shape {shape}, as its header says, got {len(content) - start}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The parts "train" and "test" of CIFAR-10's binary archive, each as images (N, 3, 32, 32) and labels (N,), bytes.

    The archive is read in place: nothing is unpacked to disk.

    Raises:
        ValueError: the archive is damaged or lacks a part.
    """
    batches: dict[str, dict] = {"train": {}, "test": {}}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = re.fullmatch(r"(?:.*/)?(data|test)_batch(?:_\d+)?\.bin", member.name)
                if name and member.isfile():
                    part = "train" if name[1] == "data" else "test"
                    batches[part][member.name] = _cifar_records(archive.extractfile(member).read(), member.name)  # type: ignore[union-attr]
    except (EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole tar.gz archive: {error}") from error
    for part, found in batches.items():
        if not found:
            raise ValueError(f"{path} must hold data_batch_*.bin and test_batch.bin, got no file for the {part} part")
    records = {part: np.concatenate([found[name] for name in sorted(found)]) for part, found in batches.items()}
    return {part: (rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]) for part, rows in records.items()}


def _cifar_records(content: bytes, name: str) -> np.ndarray:
    if not content or len(content) % CIFAR_RECORD:
        raise ValueError(f"{name} must have {CIFAR_RECORD} bytes for each image, got {len(content)} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, CIFAR_RECORD)
