"""The kernels' chunks, computed side by side by several threads."""

import os
import threading

import pytest
import torch
from norm_cases import gradients
from torch.utils._python_dispatch import TorchDispatchMode

import bncourse
from bncourse import kernels

SHAPE = (4, 8, 6, 5)


@pytest.fixture(autouse=True)
def two_threads_and_many_chunks(monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 800)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def step(layer=bncourse.BatchNorm2d):
    torch.manual_seed(0)
    return gradients(layer(8), torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE))


@pytest.mark.parametrize("layer", [bncourse.BatchNorm2d, lambda n: bncourse.GroupNorm(2, n), bncourse.InstanceNorm2d])
def test_as_one_after_the_other_to_the_bit(layer):
    found = step(layer)
    torch.set_num_threads(1)
    torch.testing.assert_close(found, step(layer), rtol=0, atol=0)


def test_several_threads_work_and_torch_keeps_its_number(monkeypatch):
    names = set()
    original = kernels.mean_square

    def seen(*arguments):
        names.add((threading.current_thread().name[:8], torch.get_num_threads()))
        return original(*arguments)

    monkeypatch.setattr(kernels, "mean_square", seen)
    step()
    assert names == {("bncourse", 1)}
    assert torch.get_num_threads() == 2
    numbers = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start(), thread.join()
    assert numbers == [2]  # also in threads that start later


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

    with Count() as in_chunks:
        step()
    kernels.CHUNK_BYTES = 2**30  # the fixture puts it back
    with Count() as whole:
        step()
    assert in_chunks.calls > 2 * whole.calls


def test_an_error_arrives():
    with pytest.raises(ZeroDivisionError):
        kernels.side_by_side(lambda x: (1 / x,), [(1,), (0,)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="for systems that fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_process_starts_threads_of_its_own():
    step()
    child = os.fork()
    if child == 0:
        step()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
