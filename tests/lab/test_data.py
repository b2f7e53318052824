"""The bundled data sets: what comes out, from where, and that only the seed decides."""

import numpy as np
import pytest
import torch
from IPython.lib.pretty import pretty
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from bncourse import data
from bncourse.data import bundled


@pytest.mark.parametrize(
    ("make", "shape", "sizes"),
    [(data.digits, (1, 28, 28), (1400, 397)), (data.photo_digits, (3, 32, 32), (4000, 1000))],
)
def test_default_sets_have_their_promised_form(make, shape, sizes):
    made = make()
    assert made.name == make.__name__
    for examples, size in zip((made.train, made.test), sizes, strict=True):
        assert examples.images.shape == (size, *shape)
        assert examples.images.dtype == torch.float32
        assert examples.images.is_contiguous()
        assert examples.images.min() >= 0 and examples.images.max() <= 1
        assert examples.labels.shape == (size,) and examples.labels.dtype == torch.int64
        assert examples.labels.unique().tolist() == list(range(10))
        share = examples.labels.bincount() / size
        assert share.min() > 0.06 and share.max() < 0.15


def test_digits_are_scikit_learns_scaled_bilinearly():
    made, scans = data.digits(train=1, test=20), load_digits()
    scaled = np.stack(
        [Image.fromarray(scan.astype(np.float32)).resize((28, 28), Image.Resampling.BILINEAR) for scan in scans.images]
    )
    for image, label in zip(made.test.images, made.test.labels, strict=True):
        distance = np.abs(scaled / 16 - image.numpy()).max(axis=(1, 2))
        assert distance.min() < 1e-5 and scans.target[distance.argmin()] == label


def fingerprints(images: torch.Tensor) -> list[bytes]:
    return [image.mul(1000).round().to(torch.int16).numpy().tobytes() for image in images]


def test_no_digit_is_in_both_parts():
    made = data.digits(seed=3)
    train, test = fingerprints(made.train.images), fingerprints(made.test.images)
    assert len(set(train)) == 1400 and len(set(test)) == 397
    assert not set(train) & set(test)


def test_photo_digits_use_the_split_of_digits(monkeypatch):
    """On black photographs, unmoved, the underlying digits show; they come from digits' own two parts."""
    monkeypatch.setattr(bundled, "photographs", lambda: torch.zeros(2, 3, 427, 640))
    monkeypatch.setattr(bundled, "LARGEST_TURN", 0.0)
    monkeypatch.setattr(bundled, "LARGEST_SHIFT", 0)
    bare, split = data.photo_digits(train=3000, test=500, seed=5), data.digits(seed=5)
    for mixed, plain in ((bare.train, split.train), (bare.test, split.test)):
        label_of = dict(zip(fingerprints(plain.images[:, :, 1:-1, 1:-1]), plain.labels.tolist(), strict=True))
        visible = fingerprints(mixed.images[:, :1, 3:29, 3:29])
        assert [label_of[digit] for digit in visible] == mixed.labels.tolist()
        uses = np.unique([visible.count(digit) for digit in set(visible)])
        assert uses.max() - uses.min() <= 1 and len(set(visible)) == len(label_of)


def test_photo_digits_lie_on_the_photographs(monkeypatch):
    """Where there is no digit, an image is a piece of a photograph."""
    monkeypatch.setattr(
        bundled, "_scans", lambda scans=bundled._scans: scans()._replace(images=torch.zeros(1797, 1, 28, 28))
    )
    pictures = data.photographs()
    seen = data.photo_digits(train=40, test=1).train.images
    for image in seen:
        row, column = (pictures[:, :, : 427 - 31, : 640 - 31] == image[None, :, :1, :1]).all(dim=1).nonzero()[:, 1:].T
        crops = [pictures[p, :, r : r + 32, c : c + 32] for p in (0, 1) for r, c in zip(row, column, strict=True)]
        assert any(torch.equal(crop, image) for crop in crops)


def test_photographs_are_scikit_learns():
    pictures = data.photographs()
    assert pictures.shape == (2, 3, 427, 640) and pictures.dtype == torch.float32
    for picture, name in zip(pictures, ("china.jpg", "flower.jpg"), strict=True):
        expected = load_sample_image(name).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(picture.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("make", [data.digits, data.photo_digits])
def test_only_the_seed_decides(make):
    first = make(train=60, test=20, seed=7)
    torch.manual_seed(123)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again, other = make(train=60, test=20, seed=7), make(train=60, test=20, seed=8)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    for one, two, three in zip(first[1:], again[1:], other[1:], strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
        assert not torch.equal(one.images, three.images)


def test_photo_digits_can_be_more_than_there_are_digits():
    assert len(data.photo_digits(train=6000, test=1).train.labels) == 6000


def test_standardized_uses_the_training_statistics():
    made = data.photo_digits(train=500, test=100)
    standard = made.standardized()
    train = standard.train.images.double()
    torch.testing.assert_close(train.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.var(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-4, rtol=0)
    for channel in range(3):
        raw = made.train.images[:, channel].numpy().astype(float)
        expected = (made.test.images[:, channel].numpy() - raw.mean()) / raw.std()
        np.testing.assert_allclose(standard.test.images[:, channel].numpy(), expected, atol=1e-4)
    assert torch.equal(standard.test.labels, made.test.labels) and made.train.images.max() <= 1


def test_a_constant_channel_standardizes_to_zero():
    flat = data.Examples(torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64))
    assert (data.DataSet("flat", flat, flat).standardized().train.images == 0).all()


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (data.digits, {"train": 0}, ValueError, ["train", "at least 1", "0"]),
        (data.digits, {"test": -3}, ValueError, ["test", "at least 1", "-3"]),
        (data.digits, {"train": 1500, "test": 298}, ValueError, ["train + test", "1797", "1798"]),
        (data.digits, {"train": 10.5}, TypeError, ["train", "whole number", "10.5"]),
        (data.digits, {"train": True}, TypeError, ["train", "whole number", "True"]),
        (data.digits, {"seed": "one"}, TypeError, ["seed", "whole number", "'one'"]),
        (data.digits, {"seed": 2**64}, ValueError, ["seed", "at most", "18446744073709551616"]),
        (data.photo_digits, {"test": 0}, ValueError, ["test", "at least 1", "0"]),
        (data.photo_digits, {"train": None}, TypeError, ["train", "whole number", "None"]),
        (data.mnist, {"train": 0}, ValueError, ["train", "at least 1", "0"]),
        (data.cifar10, {"test": 1.0}, TypeError, ["test", "whole number", "1.0"]),
    ],
)
def test_bad_sizes_are_named(make, options, error, words):
    with pytest.raises(error) as raised:
        make(**options)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_sizes_may_be_numpys():
    assert len(data.digits(train=np.int64(5), test=2).train.labels) == 5


def test_load_takes_a_name():
    assert torch.equal(data.load("digits", train=9, test=3, seed=2).train.images, data.digits(9, 3, 2).train.images)
    assert set(data.DATA_SETS) == {"digits", "photo_digits", "mnist", "fashion_mnist", "cifar10"}
    with pytest.raises(ValueError, match=r"name must be one of digits.*cifar10, got 'imagenet'"):
        data.load("imagenet")


def test_a_set_typed_in_a_cell_says_what_it_is():
    """As the notebook prints it, not a thousand lines of numbers."""
    shown = pretty(data.digits(train=200, test=50))
    assert shown == "DataSet(digits: 200 training and 50 test images of 1×28×28)"
    assert pretty(data.digits(train=1200, test=50).train) == "Examples(1,200 images of 1×28×28, with labels)"
