"""The device: CUDA, then MPS, then the CPU; BNCOURSE_DEVICE overrides, and says clearly when it cannot be had."""

import pytest
import torch

from bncourse.data import Examples
from bncourse.device import best_device
from bncourse.training import evaluate, fit


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has these kinds of devices."""

    def has(*kinds):
        monkeypatch.delenv("BNCOURSE_DEVICE", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return has


@pytest.mark.parametrize(
    ("kinds", "best"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
def test_the_best_there_is(machine, kinds, best):
    machine(*kinds)
    assert best_device() == torch.device(best)


def test_an_empty_variable_counts_as_unset(machine, monkeypatch):
    machine("mps")
    monkeypatch.setenv("BNCOURSE_DEVICE", "")
    assert best_device() == torch.device("mps")


def test_the_variable_overrides(machine, monkeypatch):
    machine("cuda")
    monkeypatch.setenv("BNCOURSE_DEVICE", "cpu")
    assert best_device() == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["gpu", "CPU0", "cuda:x", "cuda:-1", "7", " cpu", "cpu,cuda"])
def test_no_device_of_torch(monkeypatch, wanted):
    monkeypatch.setenv("BNCOURSE_DEVICE", wanted)
    with pytest.raises(ValueError, match=r"BNCOURSE_DEVICE=.*expected for example 'cpu'") as raised:
        best_device()
    assert repr(wanted) in str(raised.value)


@pytest.mark.parametrize("wanted", ["cuda:99", "mps:5", "xpu", "meta"])
def test_a_device_that_is_not_there(monkeypatch, wanted):
    monkeypatch.setenv("BNCOURSE_DEVICE", wanted)
    with pytest.raises(RuntimeError, match=f"BNCOURSE_DEVICE='{wanted}' is not available here"):
        best_device()
    with pytest.raises(RuntimeError, match="BNCOURSE_DEVICE"):
        fit(torch.nn.Linear(2, 2), Examples(torch.randn(4, 2), torch.zeros(4).long()), batch_size=2)


@pytest.mark.parametrize("wanted", ["mps", "hpu", "privateuseone", "vulkan"])
def test_what_torch_says_of_a_missing_device_is_cut_to_a_sentence(monkeypatch, wanted):
    """torch lists all that it was built with, in 7,000 characters, or fails to import a module."""
    if wanted == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    monkeypatch.setenv("BNCOURSE_DEVICE", wanted)
    with pytest.raises(RuntimeError, match=f"BNCOURSE_DEVICE='{wanted}' is not available here") as raised:
        best_device()
    assert len(str(raised.value)) < 250


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_training_on_a_gpu_learns_and_keeps_the_data_where_it_was(monkeypatch):
    monkeypatch.setenv("BNCOURSE_DEVICE", "cuda")
    images = torch.randn(256, 8)
    examples = Examples(images, (images.sum(1) > 0).long())
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )
    fit(model, examples, epochs=20, mixed_precision=True)
    assert evaluate(model, examples).accuracy > 0.95
    assert next(model.parameters()).is_cuda and not images.is_cuda
