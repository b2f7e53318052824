"""The classical data sets against a local server: right, broken, slow and absent; and bad places to keep them."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import requests
import torch
from data_files import FAULTS, cifar_archive, idx, mnist_arrays, serve, sha256
from tqdm import tqdm

from bncourse import data
from bncourse.data import downloads

MNIST_FILES = {name: idx(array) for name, array in mnist_arrays().items()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BNCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(downloads, "TIMEOUT", (1, 1))
    return tmp_path / "data"


def use(monkeypatch, name, files, *mirrors):
    """Let ``name`` come from ``mirrors``, with the hashes of ``files``."""
    hashes = {file: sha256(content) for file, content in files.items()}
    monkeypatch.setitem(downloads.SOURCES, name, downloads.Source(tuple(f"{m}/" for m in mirrors), hashes))


def check_mnist(made):
    """Every image is one of the file's, with its label."""
    arrays = mnist_arrays()
    for examples, part in ((made.train, "train"), (made.test, "t10k")):
        images, labels = arrays[f"{part}-images-idx3-ubyte.gz"], arrays[f"{part}-labels-idx1-ubyte.gz"]
        label_of = {image.astype(np.uint8).tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert examples.images.shape == (len(labels), 1, 28, 28) and examples.images.dtype == torch.float32
        assert examples.images.max() <= 1 and examples.labels.dtype == torch.int64
        bytes_again = examples.images.mul(255).round().to(torch.uint8).numpy()
        assert [label_of[image.tobytes()] for image in bytes_again] == examples.labels.tolist()


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("manner", ["right", "slow", "marked"])
def test_a_server_that_works(place, monkeypatch, name, manner):
    with serve(MNIST_FILES) as (address, asked):
        use(monkeypatch, name, MNIST_FILES, f"{address}/{manner}")
        check_mnist(data.load(name))
        assert len(asked) == 4 and names(place / name) == sorted(MNIST_FILES)
        check_mnist(data.load(name))
        assert len(asked) == 4, "the second time nothing is downloaded"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_mirror_makes_up_for_a_fault(place, monkeypatch, fault):
    with serve(MNIST_FILES) as (address, asked):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/{fault}", f"{address}/right")
        check_mnist(data.mnist())
    assert len(asked) == 8 and names(place) == sorted(MNIST_FILES)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_nothing_and_a_retry_is_clean(place, monkeypatch, fault):
    with serve(MNIST_FILES) as (address, _):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/{fault}")
        with pytest.raises(ConnectionError) as raised:
            data.mnist()
        assert names(place) == []
        reason = {"missing": "404", "failing": "503", "stalled": "timed out", "truncated": "IncompleteRead"}
        for word in ("could not be downloaded", f"{address}/{fault}/", reason.get(fault, "hash")):
            assert word in str(raised.value)
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        check_mnist(data.mnist())


def test_with_no_server_the_error_says_what_to_do(place, monkeypatch):
    with serve(MNIST_FILES) as (address, _):
        pass  # the port is free again
    use(monkeypatch, "mnist", MNIST_FILES, f"{address}/a", f"{address}/b")
    with pytest.raises(ConnectionError) as raised:
        data.mnist()
    name = "train-images-idx3-ubyte.gz"
    wanted = [name, f"{address}/a/", f"{address}/b/", sha256(MNIST_FILES[name]), str(place / "mnist" / name)]
    for word in [*wanted, "BNCOURSE_DATA", 'load("digits")']:
        assert word in str(raised.value)
    assert len(data.load("digits").train.labels) == 1400


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.exceptions.SSLError("unable to get local issuer"), "the certificate was refused"),
        (requests.exceptions.ProxyError("Tunnel connection failed: 403 Forbidden"), "the proxy refused"),
        (requests.exceptions.ConnectionError("Failed to resolve 'example.org'"), "the host's name was not found"),
        (requests.exceptions.ReadTimeout("timed out"), "/ timed out"),
    ],
)
def test_what_stood_in_the_way_is_named(place, monkeypatch, error, words):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(ConnectionError) as raised:
        data.fashion_mnist()
    lines = [line for line in str(raised.value).splitlines() if "https://" in line]
    assert len(lines) == 2 and all(words in line and str(error) in line for line in lines)


def test_files_put_there_by_hand_need_no_server(place, monkeypatch):
    use(monkeypatch, "mnist", MNIST_FILES, "http://127.0.0.1:9/nothing")
    (place / "mnist").mkdir(parents=True)
    for name, content in MNIST_FILES.items():
        (place / "mnist" / name).write_bytes(content)
    check_mnist(data.mnist())


def test_a_damaged_file_is_replaced_or_named(place, monkeypatch):
    (place / "mnist").mkdir(parents=True)
    damaged = place / "mnist" / "train-images-idx3-ubyte.gz"
    damaged.write_bytes(MNIST_FILES[damaged.name][:-5])
    use(monkeypatch, "mnist", MNIST_FILES, "http://127.0.0.1:9/nothing")
    with pytest.raises(ConnectionError, match=damaged.name):
        data.mnist()
    with serve(MNIST_FILES) as (address, _):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        check_mnist(data.mnist())


def test_sizes_and_seed_choose_among_the_images(place, monkeypatch):
    with serve(MNIST_FILES) as (address, asked):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        with pytest.raises(ValueError, match="train must be at least 1, got 0"):
            data.mnist(train=0)
        with pytest.raises(TypeError, match=r"seed must be a whole number, got 1\.5"):
            data.mnist(seed=1.5)
        assert asked == [], "a bad size or seed is said before the download"
        one, same, other = data.mnist(8, 4, seed=1), data.mnist(8, 4, seed=1), data.mnist(8, 4, seed=2)
        assert one.train.images.shape[0] == 8 and one.test.images.shape[0] == 4
        assert torch.equal(one.train.images, same.train.images)
        assert not torch.equal(one.train.images, other.train.images)
        with pytest.raises(ValueError, match=r"test must be at most 10, got 11"):
            data.mnist(test=11)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file, where a folder is needed")
    monkeypatch.setenv("BNCOURSE_DATA", str(tmp_path / "file"))
    with serve(MNIST_FILES) as (address, _):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        with pytest.raises(OSError, match=r"could not be kept in .*BNCOURSE_DATA.*load\(\"digits\"\)"):
            data.mnist()


@pytest.mark.parametrize("call", ["makedirs", "mkdir"])
def test_a_folder_without_permission(place, monkeypatch, call):
    """The system's refusal is imitated, because to an administrator nothing is refused."""

    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, call, refuse)
    with serve(MNIST_FILES) as (address, _):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        with pytest.raises(OSError, match=r"could not be kept in .*Permission denied.*BNCOURSE_DATA"):
            data.mnist()


def test_a_full_disk(place, monkeypatch):
    """A limit on the size of files stands in for a full disk: the write fails half way."""
    resource = pytest.importorskip("resource")
    with serve(MNIST_FILES) as (address, _):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"could not be kept in .*BNCOURSE_DATA"):
                data.mnist()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert names(place) == []
        check_mnist(data.mnist())


def _load_in_a_process(source, folder, barrier, answers):
    os.environ["BNCOURSE_DATA"] = folder
    downloads.SOURCES["mnist"] = source
    barrier.wait(60)
    answers.put(data.mnist().train.images.sum().item())


def test_two_processes_download_at_once(place, monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    with serve(MNIST_FILES) as (address, asked):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/slow")
        work = (downloads.SOURCES["mnist"], str(place), barrier, answers)
        processes = [spawn.Process(target=_load_in_a_process, args=work) for _ in range(2)]
        for process in processes:
            process.start()
        sums = [answers.get(timeout=90) for _ in processes]
        for process in processes:
            process.join(30)
        assert len(asked) > 4, "both downloaded"
    assert sums[0] == sums[1] and names(place) == sorted(MNIST_FILES)


def test_a_killed_download_leaves_no_file_by_that_name(place, monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(downloads, "TIMEOUT", (5, 30))
    with serve(MNIST_FILES) as (address, asked):
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/stalled")
        work = (downloads.SOURCES["mnist"], str(place), spawn.Barrier(1), spawn.Queue())
        process = spawn.Process(target=_load_in_a_process, args=work)
        process.start()
        until = time.monotonic() + 60
        while not asked and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.3)
        process.kill()
        process.join(30)
        assert not set(names(place)) & set(MNIST_FILES)
        use(monkeypatch, "mnist", MNIST_FILES, f"{address}/right")
        check_mnist(data.mnist())


CIFAR_PIXELS = np.random.default_rng(2).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
CIFAR_RECORDS = {
    "test_batch.bin": [(7, CIFAR_PIXELS[6].tobytes()), (8, CIFAR_PIXELS[7].tobytes())],
    "data_batch_2.bin": [(label, CIFAR_PIXELS[label].tobytes()) for label in (3, 4, 5)],
    "data_batch_1.bin": [(label, CIFAR_PIXELS[label].tobytes()) for label in (0, 1, 2)],
    "batches.meta.txt": [],
}


def test_cifar10_is_read_without_unpacking(place, monkeypatch):
    files = {"cifar-10-binary.tar.gz": cifar_archive(CIFAR_RECORDS)}
    with serve(files) as (address, _):
        use(monkeypatch, "cifar10", files, f"{address}/truncated", f"{address}/right")
        made = data.cifar10()
    assert names(place) == ["cifar-10-binary.tar.gz"]
    assert sorted(made.train.labels.tolist()) == [0, 1, 2, 3, 4, 5]
    for image, label in zip(made.train.images, made.train.labels, strict=True):
        np.testing.assert_allclose(image.numpy(), CIFAR_PIXELS[label] / 255, atol=1e-6)
    for image, label in zip(made.test.images, made.test.labels, strict=True):
        np.testing.assert_allclose(image.numpy(), CIFAR_PIXELS[label - 1] / 255, atol=1e-6)


@pytest.mark.parametrize("manner", ["right", "slow", "unannounced"])
def test_a_download_shows_its_bytes(place, monkeypatch, capsys, manner):
    files = {"cifar-10-binary.tar.gz": cifar_archive(CIFAR_RECORDS)}
    monkeypatch.setattr(downloads, "watched", lambda: True)
    with serve(files) as (address, _), suppress(ConnectionError):
        use(monkeypatch, "cifar10", files, f"{address}/{manner}")
        data.cifar10()
    size = tqdm.format_sizeof(len(files["cifar-10-binary.tar.gz"]))
    shown = capsys.readouterr().err
    assert f"{size}/{size}" in shown if manner != "unannounced" else "B/s" in shown


def test_a_log_stays_quiet(place, tmp_path):
    """In a process of its own: pooch keeps the stderr that it finds when it is imported."""
    with serve(MNIST_FILES) as (address, _):
        hashes = {name: sha256(content) for name, content in MNIST_FILES.items()}
        code = f"""
from bncourse.data import downloads, mnist
downloads.SOURCES["mnist"] = downloads.Source(({address + "/truncated/"!r}, {address + "/right/"!r}), {hashes})
mnist()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_hashes_and_mirrors_are_well_formed():
    for source in downloads.SOURCES.values():
        assert len(source.mirrors) >= 2
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in source.mirrors)
        assert all(len(bytes.fromhex(value)) == 32 for value in source.files.values())


def test_the_folder_is_the_systems_cache_unless_chosen(monkeypatch):
    monkeypatch.delenv("BNCOURSE_DATA", raising=False)
    assert data.data_folder().name == "bncourse"
    monkeypatch.setenv("BNCOURSE_DATA", "~/elsewhere")
    assert data.data_folder().parts[-1] == "elsewhere" and "~" not in str(data.data_folder())
