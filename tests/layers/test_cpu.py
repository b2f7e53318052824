"""The compiled loops: which suits what, shared among threads, and what happens without them."""

import os
import subprocess
import sys
import threading
from itertools import chain

import numpy as np
import pytest
import torch
from norm_cases import gradients
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bncourse
from bncourse import cpu, kernels

SHAPE = (4, 8, 6, 5)
LAST = torch.channels_last


@pytest.fixture(autouse=True)
def two_threads_and_many_shares(monkeypatch):
    monkeypatch.setattr(cpu, "SHARE_BYTES", 200)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def step(layer=bncourse.BatchNorm2d, order=torch.contiguous_format):
    torch.manual_seed(0)
    x = torch.randn(SHAPE).to(memory_format=order).requires_grad_()
    return gradients(layer(8), x, torch.randn(SHAPE))


LAYERS = pytest.mark.parametrize(
    ("layer", "order"),
    [
        (bncourse.BatchNorm2d, torch.contiguous_format),
        (bncourse.BatchNorm2d, LAST),
        (lambda n: bncourse.GroupNorm(2, n), torch.contiguous_format),
        (lambda n: bncourse.GroupNorm(2, n), LAST),
        (bncourse.InstanceNorm2d, torch.contiguous_format),
        (lambda n: bncourse.LayerNorm(5), torch.contiguous_format),
        (lambda n: bncourse.RMSNorm(5), torch.contiguous_format),
    ],
)


@LAYERS
def test_any_number_of_threads_gives_the_same_to_the_bit(layer, order):
    found = step(layer, order)
    torch.set_num_threads(1)
    torch.testing.assert_close(found, step(layer, order), rtol=0, atol=0)


@LAYERS
def test_the_loops_run_and_compute_what_kernels_compute(layer, order, monkeypatch):
    seen = []
    original = cpu.forward
    monkeypatch.setattr(
        cpu, "forward", lambda form, *args, **kwargs: seen.append(form) or original(form, *args, **kwargs)
    )
    found = step(layer, order)
    assert len(seen) == 1
    monkeypatch.setattr(cpu, "loops", lambda: None)
    torch.testing.assert_close(found, step(layer, order))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("shape", "dims", "weight", "expected"),
    [
        ((4, 8, 6, 5), (0, 2, 3), (8, 1, 1), cpu.Runs(8, 4, 30, 240, 30, 1)),
        ((4, 8), (0,), (8,), cpu.Columns(8, 4)),
        ((4, 8, 1), (0, 2), (8, 1), cpu.Columns(8, 4)),
        ((4, 3, 8), (2,), (8,), cpu.Rows(12, 8)),
        ((4, 3, 8), (1, 2), (3, 8), cpu.Rows(4, 24)),
        ((4, 3, 1), (1, 2), (3, 1), cpu.Rows(4, 3)),
        ((4, 2, 4, 6, 5), (2, 3, 4), (2, 4, 1, 1), cpu.Runs(8, 4, 30, 30, 120, 4)),
        ((4, 8, 6, 5), (2, 3), (8, 1, 1), cpu.Runs(32, 1, 30, 30, 30, 1)),
        ((4, 8, 6, 5), (2, 3), None, cpu.Runs(32, 1, 30, 0, 30, 1)),
        ((4, 8, 6), (1,), None, None),  # neither the batch norm's axes nor the last ones
        ((4, 8, 6), (1, 2), (1, 6), None),  # a weight along the last axis only
        ((4, 8, 6), (2,), (4, 1, 1), None),  # a weight for each sample
        ((8,), (0,), None, None),
    ],
)
def test_layout(shape, dims, weight, expected):
    weight = None if weight is None else torch.ones(weight)
    assert cpu.layout(torch.empty(shape), dims, True, False, weight) == expected


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 6, 8)])
def test_an_input_of_another_order(shape):
    """Transposed: neither contiguous nor channels last."""
    x = torch.randn(6, 4, 8).permute(1, 2, 0) if shape == (4, 8, 6) else torch.randn(8, 6, 4).permute(2, 1, 0)
    for ours, theirs in (
        (bncourse.BatchNorm1d(shape[1]), nn.BatchNorm1d(shape[1])),
        (bncourse.GroupNorm(2, shape[1]), nn.GroupNorm(2, shape[1])),
        (bncourse.LayerNorm(shape[-1]), nn.LayerNorm(shape[-1])),
    ):
        a, b = (layer(x.requires_grad_()) for layer in (ours, theirs))
        torch.testing.assert_close(a, b)
        dy = torch.randn(shape)
        torch.testing.assert_close(torch.autograd.grad(a, x, dy), torch.autograd.grad(b, x, dy))


def test_a_broadcast_gradient():
    """The gradient of a sum is one number, repeated: no order that the loops know."""
    x = torch.randn(SHAPE, requires_grad=True)
    ours, theirs = bncourse.BatchNorm2d(8), nn.BatchNorm2d(8)
    for layer in (ours, theirs):
        nn.init.constant_(layer.weight, 2)
    grads = [torch.autograd.grad((layer(x) * x).sum() + layer(x).sum(), x)[0] for layer in (ours, theirs)]
    torch.testing.assert_close(*grads)


def test_several_threads_work():
    """Each share waits until another thread does one, too."""
    together, shares = threading.Barrier(2), [(0, 2), (2, 4)]

    def work(first, last):
        together.wait(timeout=60)
        return first, last

    assert cpu.share(work, 4, 2 * cpu.SHARE_BYTES) == shares
    assert torch.get_num_threads() == 2


def test_what_fails_in_another_thread_is_raised():
    together, here = threading.Barrier(2), threading.current_thread()

    def work(first, last):
        together.wait(timeout=60)
        if threading.current_thread() is not here:
            raise MemoryError(f"share from {first}")

    with pytest.raises(MemoryError, match="share from"):
        cpu.share(work, 4, 2 * cpu.SHARE_BYTES)


def test_inference_mode():
    torch.manual_seed(0)
    layer, x = bncourse.InstanceNorm2d(8), torch.randn(SHAPE)
    with torch.inference_mode():
        y = layer(x)
        assert y.is_inference()
    torch.testing.assert_close(y.clone(), layer(x))


def test_a_mode_sees_every_step():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.calls += 1
            return operation(*args, **(kwargs or {}))

    with Count() as mode:
        step()
    assert mode.calls > 20


def test_a_subclass_of_tensor_is_left_to_torch():
    class Loud(torch.Tensor):
        pass

    x = torch.randn(4, 3).as_subclass(Loud)
    assert cpu.layout(x, (0,), True, False, None) is None
    assert isinstance(bncourse.BatchNorm1d(3)(x), Loud)


def test_an_error_in_a_share_arrives():
    with pytest.raises(ZeroDivisionError):
        cpu.share(lambda first, last: 1 / (first - first), 10, 10_000)


@pytest.mark.parametrize("count", [1, 5, 16, 100])
def test_shares_cover_the_whole_once(count):
    for threads in (1, 2):
        torch.set_num_threads(threads)
        shares = cpu.share(lambda first, last: list(range(first, last)), count, 10**9, reproducible=True)
        assert list(chain(*shares)) == list(range(count))
        assert len(shares) == min(count, cpu.SHARES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="for systems that fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_process_starts_threads_of_its_own():
    step()
    child = os.fork()
    if child == 0:
        step()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_without_numba():
    script = "import sys; sys.modules['numba'] = None; import torch, bncourse\n"
    script += "x = torch.randn(6, 3, requires_grad=True); y = bncourse.BatchNorm1d(3)(x); y.square().sum().backward()\n"
    script += "torch.testing.assert_close(y, torch.nn.BatchNorm1d(3)(x)); print(x.grad.shape)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "torch.Size([6, 3])\n", result.stderr


def test_import_does_not_load_numba():
    script = "import sys, bncourse; print('numba' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


@pytest.mark.parametrize("dims", [(0, 2), (1, 2)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e15])
def test_as_exact_as_float32_allows(dims, scale):
    """An outlier as the pivot, a large offset, large values: compared with float64."""
    x = scale * (np.random.default_rng(0).standard_normal((16, 4, 1000)) + 100)
    x[0, :, 0] *= 50
    x = torch.tensor(x, dtype=torch.float32)
    expected, mean, variance = kernels.forward(x.double(), dims, None, None, 0.0, statistics=None, center=True)
    y, found_mean, found = kernels.forward(x, dims, None, None, 0.0, statistics=None, center=True)
    torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=2e-5)
    torch.testing.assert_close(found_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.double(), variance, rtol=1e-6, atol=0)
