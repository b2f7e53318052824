"""Where models, data and random numbers are: on the CPU here, then all of it on a second device."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.utils.backend_registration
from torch import nn

from bncourse.devices import device_of, seeded, training_device
from bncourse.explorers.figures import activations, batch_size, variance_shift
from bncourse.models import Dropout
from bncourse.studies.many_networks import ManyNetworks, train_many
from bncourse.training import fit

TESTS = Path(__file__).resolve().parents[1]
DATA = torch.randn(8, 4), torch.arange(8) % 2
LINEAR = nn.Linear(4, 2)
WORK = {
    "fit": lambda path: fit(LINEAR, DATA, epochs=1, batch_size=4, checkpoint=path),
    "train_many": lambda path: train_many(ManyNetworks([4, 2], [0]), DATA, steps=1, batch_size=4, learning_rate=0.1),
    "activations": lambda path: activations._trained.__wrapped__("none", "ReLU"),
    "batch_size": lambda path: batch_size._mean_errors.__wrapped__("fully connected", 2),
    "variance_shift": lambda path: variance_shift.draw("linear, BatchNorm, dropout", "zero mean", 0.1),
}


@pytest.mark.parametrize("work", WORK)
def test_no_gpu_is_woken_or_seeded_that_is_not_used(monkeypatch, tmp_path, work):
    """Torch is told of two GPUs; the work is on the CPU. A warning would fail the build of the book."""
    asked = []
    monkeypatch.setenv("BNCOURSE_DEVICE", "cpu")
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "manual_seed", "manual_seed_all"):
        answer = torch.get_rng_state() if name == "get_rng_state" else None
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, answer=answer: asked.append(name) or answer)
    torch.manual_seed(0)
    asked.clear()
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WORK[work](tmp_path / "run.pt")
    assert not asked and torch.equal(torch.get_rng_state(), before)


def test_seeded_gives_torchs_numbers_and_puts_the_old_ones_back():
    expected = torch.Generator().manual_seed(-3)
    torch.manual_seed(1)
    before = torch.rand(2)
    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError), seeded(-3):
        assert torch.equal(torch.randn(3), torch.randn(3, generator=expected))
        raise ZeroDivisionError
    assert torch.equal(torch.rand(2), before)


@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_dropout_is_torchs(p):
    x, results = torch.randn(40, 7, requires_grad=True), []
    for layer in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(0)
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), x), layer.eval()(x), torch.rand(1)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_a_models_device_is_that_of_what_it_holds():
    assert device_of(nn.ReLU()).type == "cpu"
    assert device_of(nn.BatchNorm1d(3, affine=False, device="meta")).type == "meta"


def test_a_model_in_double_precision_is_not_sent_to_apples_gpu(monkeypatch):
    monkeypatch.delenv("BNCOURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert training_device(nn.Linear(4, 2)).type == "mps"
    model = nn.Linear(4, 2).double()
    assert training_device(model).type == "cpu"
    fit(model, (DATA[0].double(), DATA[1]), epochs=1, batch_size=4)


@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot make a device in Python",
)
@pytest.mark.parametrize(
    "names",
    [("training", "layers", "exercises"), pytest.param(("chapters",), marks=pytest.mark.second_device)],
    ids=" ".join,
)
def test_all_of_it_on_a_second_device(names):
    """In a process of its own: the device stays for as long as its process."""
    files = [str(TESTS / "second_device" / f"check_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-p", "second_device", "-p", "no:cacheprovider", "-q", *files]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)])}
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
