"""The study of several devices, against one device by hand."""

import signal

import pytest
import torch
from torch import nn

from bncourse.studies.devices import on_devices, on_one_device


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_unsynchronized_devices_are_batches_of_their_own_and_synchronized_ones_are_one_batch():
    images, labels = torch.randn(8, 6), torch.randint(3, (8,))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    separate, together = on_devices(network(), images, labels, devices=2)

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    halves = [on_one_device(network(), images[part], labels[part]) for part in (slice(4), slice(4, 8))]
    torch.testing.assert_close(separate.scores, torch.cat([half.scores for half in halves]))
    for ours, first, second in zip(separate.gradients, *(half.gradients for half in halves), strict=True):
        torch.testing.assert_close(ours, (first + second) / 2)
    torch.testing.assert_close(separate.buffers, halves[0].buffers)

    for ours, whole in zip(together, on_one_device(network(), images, labels), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_the_network_is_left_as_it_was():
    model = network()
    before = [buffer.clone() for buffer in model.buffers()]
    on_one_device(model, torch.randn(8, 6), torch.randint(3, (8,)))
    torch.testing.assert_close(list(model.buffers()), before)
    assert all(p.grad is None for p in model.parameters())


def test_parts_must_be_equal():
    with pytest.raises(ValueError, match="8 examples; expected a multiple of devices=3"):
        on_devices(network(), torch.randn(8, 6), torch.randint(3, (8,)), devices=3)
