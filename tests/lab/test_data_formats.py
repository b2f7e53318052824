"""Readers of the classical data sets' files: right ones, damaged ones, and ones that are something else."""

import gzip
import pickle
import struct

import numpy as np
import pytest
from data_files import cifar_archive, idx

from bncourse.data.formats import read_cifar, read_idx


@pytest.mark.parametrize("shape", [(0,), (7,), (3, 28, 28), (0, 28, 28), (2, 3, 4, 5)])
def test_idx_gives_back_what_was_written(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape)
    (tmp_path / "a.gz").write_bytes(idx(array))
    read = read_idx(tmp_path / "a.gz")
    assert read.dtype == np.uint8 and read.shape == shape
    np.testing.assert_array_equal(read, array)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]


WHOLE = gzip.decompress(idx(np.zeros((3, 4))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must start"),
        (b"not gzip at all", "gzip file"),
        (gzip.compress(b"hello"), "got 68 65 6c 6c"),
        (gzip.compress(struct.pack(">HBBI", 0, 13, 1, 2) + bytes(8)), "must start"),
        (gzip.compress(WHOLE[:-1]), r"\(3, 4\).*11"),
        (gzip.compress(WHOLE + b"x"), r"\(3, 4\).*13"),
        (gzip.compress(WHOLE[:7]), "must start"),
        (idx(np.zeros((3, 4)))[:-6], "whole gzip"),
        (flipped(idx(np.arange(3000).reshape(3, 1000)), 30), "whole gzip"),
        (gzip.compress(pickle.dumps({"images": 1})), "must start"),
    ],
    ids=range(10),
)
def test_idx_names_what_is_wrong(tmp_path, content, words):
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        read_idx(tmp_path / "bad.gz")
    assert "bad.gz" in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none.gz")
    with pytest.raises(FileNotFoundError):
        read_cifar(tmp_path / "none.tar.gz")


PIXELS = bytes(3072)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "whole tar.gz archive"),
        (cifar_archive({"data_batch_1.bin": [(1, PIXELS)]}), "test part"),
        (cifar_archive({"test_batch.bin": [(1, PIXELS)]}), "train part"),
        (cifar_archive({"data_batch_1.bin": [(1, PIXELS[:-1])], "test_batch.bin": []}), "3073 bytes.*3072"),
        (cifar_archive({"data_batch_1.bin": [(1, PIXELS)] * 9, "test_batch.bin": [(1, PIXELS)]})[:60], "whole tar.gz"),
        (flipped(cifar_archive({"test_batch.bin": [(1, bytes(range(256)) * 12)] * 9}), 300), "whole tar.gz"),
        (gzip.compress(pickle.dumps({"data": 1})), "archive"),
    ],
    ids=range(7),
)
def test_cifar_names_what_is_wrong(tmp_path, content, words):
    (tmp_path / "bad.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_cifar(tmp_path / "bad.tar.gz")
