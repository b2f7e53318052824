"""Training and evaluation: what ``fit`` computes, what it refuses before anything happens, and on which device."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bncourse.data import Examples
from bncourse.experiments import compare
from bncourse.training import History, best_device, evaluate, fit

X, Y = torch.randn(20, 4), torch.arange(20) % 3


@pytest.fixture
def learnable():
    images = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return Examples(images, (images.sum(1) > 0).long())


def make_classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


@pytest.mark.parametrize(("count", "windows"), [(20, [4]), (35, [4, 3]), (37, [4, 3])])
def test_accumulated_batches_are_one_large_batch(count, windows):
    """Each window's step is that of its batches as one, the last window's too, though it has fewer of them."""
    images, labels = torch.randn(count, 4, dtype=torch.float64), torch.arange(count) % 3
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    ours, batches = copy.deepcopy(model), []
    ours.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].detach()))
    history = fit(ours, (images, labels), epochs=1, batch_size=5, accumulate=4, learning_rate=0.5)
    label_of = {image.numpy().tobytes(): label for image, label in zip(images, labels, strict=True)}
    batches, losses = iter(batches), []
    for window in windows:
        large = torch.cat([next(batches) for _ in range(window)])
        loss = nn.functional.cross_entropy(model(large), torch.stack([label_of[x.numpy().tobytes()] for x in large]))
        with torch.no_grad():
            for parameter, gradient in zip(
                model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True
            ):
                parameter -= 0.5 * gradient
        losses.append(loss.item())
    assert next(batches, None) is None and history.loss == pytest.approx(losses)
    torch.testing.assert_close(dict(ours.state_dict()), dict(model.state_dict()))


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(monkeypatch, learnable):
    monkeypatch.setenv("BNCOURSE_DEVICE", "cpu")
    model, seen = make_classifier(), set()
    model[0].register_forward_hook(lambda _, inputs, output: seen.add(output.dtype) if model.training else None)
    fit(model, learnable, epochs=20, mixed_precision=True)
    assert seen == {torch.bfloat16}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert {value.grad.dtype for value in model.parameters()} == {torch.float32}
    assert model.training and evaluate(model, learnable).accuracy > 0.95


def test_accuracy_needs_a_test_set(learnable):
    history = fit(make_classifier(), learnable, learnable, epochs=2)
    assert history.accuracy == history.test[1].accuracy
    with pytest.raises(ValueError, match="test set"):
        fit(make_classifier(), learnable, epochs=1).accuracy  # noqa: B018
    with pytest.raises(ValueError, match="test set"):
        History([0.5]).accuracy  # noqa: B018


def test_a_run_that_diverges_stops_and_says_so(learnable):
    images = learnable.images.clone()
    images[128] = float("nan")
    history = fit(make_classifier(), (images, learnable.labels), learnable, epochs=3)
    assert history.diverged and len(history.loss) <= 4 and len(history.test) == 1


def test_a_quick_run_only_shows_that_things_run(monkeypatch, learnable):
    runs = {"a": lambda seed: fit(make_classifier(), learnable, learnable, epochs=5, seed=seed).loss}
    assert np.shape(compare(runs, seeds=(3, 1, 2)).values["a"]) == (3, 5 * 4)
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    results = compare(runs, seeds=(3, 1, 2))
    assert results.seeds == (3, 1) and results.values["a"].shape == (2, 2 * 3)
    history = fit(make_classifier(), learnable, learnable, epochs=1, batch_size=128)
    assert len(history.loss) == 2 and len(history.test) == 1, "what is shorter stays as it is"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"train": (X, Y[:15])}, ValueError, ["train", "20 images", "15 labels"]),
        ({"train": (X[:15], Y)}, ValueError, ["train", "15 images", "20 labels"]),
        ({"test": (X, Y[:15])}, ValueError, ["test", "20 images", "15 labels"]),
        ({"train": (X, Y.int())}, TypeError, ["train", "labels of type int64", "torch.int32"]),
        ({"train": (X, Y[:, None])}, TypeError, ["train", "shape (N,)", "(20, 1)"]),
        ({"test": (X, Y.double())}, TypeError, ["test", "labels of type int64", "torch.float64"]),
        ({"test": (X[:0], Y[:0])}, ValueError, ["test", "at least one", "0 images"]),
        ({"test": X}, TypeError, ["test", "pair", "Tensor"]),
        ({"train": (X,)}, TypeError, ["train", "pair", "Tensor"]),
        ({"train": (X.numpy(), Y)}, TypeError, ["train", "pair", "ndarray, Tensor"]),
        ({"train": (X[:4], Y[:4])}, ValueError, ["batch_size", "at most 4", "8"]),
        ({"epochs": 0}, ValueError, ["epochs", "at least 1", "0"]),
        ({"epochs": 1.5}, TypeError, ["epochs", "whole number", "1.5"]),
        ({"epochs": True}, TypeError, ["epochs", "whole number", "True"]),
        ({"batch_size": 2.5}, TypeError, ["batch_size", "2.5"]),
        ({"accumulate": "2"}, TypeError, ["accumulate", "'2'"]),
        ({"seed": 1.7}, TypeError, ["seed", "1.7"]),
        ({"seed": 2**64}, ValueError, ["seed", "18446744073709551616"]),
        ({"optimizer": "rmsprop"}, ValueError, ["optimizer", "adamw", "'rmsprop'"]),
        ({"optimizer": None}, ValueError, ["optimizer", "None"]),
        ({"learning_rate": -1.0}, ValueError, ["learning rate", "-1"]),
    ],
)
def test_fit_refuses_before_it_touches_the_model(arguments, error, words):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error) as raised:
        fit(model, **({"train": (X, Y), "epochs": 1, "batch_size": 8} | arguments))
    assert all(word in str(raised.value) for word in words), str(raised.value)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert not model.training


@pytest.mark.parametrize(
    ("examples", "batch_size", "error", "named"),
    [
        ((X, Y[:15]), 6, ValueError, "examples.*20 images and 15 labels"),
        ((X, Y.short()), 6, TypeError, "examples must have labels of type int64"),
        ((X[:0], Y[:0]), 6, ValueError, "examples.*0 images"),
        (X, 6, TypeError, "examples.*Tensor"),
        ((X, Y), 0, ValueError, "batch_size.*0"),
        ((X, Y), 1.5, TypeError, "batch_size.*1.5"),
    ],
)
def test_evaluate_names_what_is_wrong(examples, batch_size, error, named):
    with pytest.raises(error, match=named):
        evaluate(nn.Linear(4, 3), examples, batch_size)


@pytest.mark.parametrize(
    ("kinds", "best"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
@pytest.mark.parametrize("variable", [None, "", "cpu"])
def test_the_best_device_is_taken_unless_one_is_chosen(monkeypatch, kinds, best, variable):
    """The machine's devices are made up."""
    monkeypatch.delenv("BNCOURSE_DEVICE", raising=False)
    if variable is not None:
        monkeypatch.setenv("BNCOURSE_DEVICE", variable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)
    assert best_device() == torch.device(variable or best)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        *((name, ValueError) for name in ("gpu", "CPU0", "cuda:x", "cuda:-1", "7", " cpu", "cpu,cuda")),
        *((name, RuntimeError) for name in ("cuda:99", "mps:5", "xpu", "meta", "hpu", "privateuseone", "vulkan")),
    ],
)
def test_a_device_that_torch_or_this_machine_lacks_is_named_in_a_sentence(monkeypatch, wanted, error):
    """Of some devices torch would list all that it was built with, in 7,000 characters."""
    monkeypatch.setenv("BNCOURSE_DEVICE", wanted)
    with pytest.raises(error, match="BNCOURSE_DEVICE") as raised:
        fit(nn.Linear(4, 3), (X, Y), batch_size=2)
    assert repr(wanted) in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_training_on_a_gpu_learns_and_puts_everything_back(monkeypatch, learnable, mixed_precision):
    """What else happens on a GPU is tried on a second device, by ``test_devices``."""
    monkeypatch.setenv("BNCOURSE_DEVICE", "cuda")
    model, trained_on = make_classifier(), set()
    model.register_forward_hook(lambda _, inputs, output: trained_on.add(output.device.type))
    fit(model, learnable, epochs=20, mixed_precision=mixed_precision)
    assert trained_on == {"cuda"} and not next(model.parameters()).is_cuda and not learnable.images.is_cuda
    assert evaluate(model, learnable).accuracy > 0.95
