"""The study of several devices, against one device by hand."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from bncourse.studies.many_devices import (
    exit_before_forward,
    launch,
    step_on_devices,
    step_on_one_device,
    wait_for_a_missing_rank,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_unsynchronized_devices_are_batches_of_their_own_and_synchronized_ones_are_one_batch():
    images, labels = torch.randn(8, 6), torch.randint(3, (8,))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    separate, together, _ = step_on_devices(network(), images, labels, [4, 4])

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    halves = [step_on_one_device(network(), images[part], labels[part]) for part in (slice(4), slice(4, 8))]
    torch.testing.assert_close(separate.scores, torch.cat([half.scores for half in halves]))
    for ours, first, second in zip(separate.gradients, *(half.gradients for half in halves), strict=True):
        torch.testing.assert_close(ours, (first + second) / 2)
    torch.testing.assert_close(separate.buffers, halves[0].buffers)

    for ours, whole in zip(together, step_on_one_device(network(), images, labels), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_the_network_is_left_as_it_was():
    model = network()
    before = [buffer.clone() for buffer in model.buffers()]
    step_on_one_device(model, torch.randn(8, 6), torch.randint(3, (8,)))
    torch.testing.assert_close(list(model.buffers()), before)
    assert all(p.grad is None for p in model.parameters())


def test_uneven_parts_are_one_batch_with_one_collective_each_way():
    images, labels = torch.randn(8, 6), torch.randint(3, (8,))
    separate, together, calls = step_on_devices(network(), images, labels, [5, 3])
    first, last = (step_on_one_device(network(), images[part], labels[part]) for part in (slice(5), slice(5, 8)))
    torch.testing.assert_close(separate.scores, torch.cat([first.scores, last.scores]))
    for ours, a, b in zip(separate.gradients, first.gradients, last.gradients, strict=True):
        torch.testing.assert_close(ours, (5 * a + 3 * b) / 8)
    for ours, whole in zip(together, step_on_one_device(network(), images, labels), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)
    assert calls == {"all_gather": 1, "all_reduce": 1}
    with pytest.raises(ValueError, match=r"sizes must add up to the batch's 8 examples, got \[5, 2\]"):
        step_on_devices(network(), images, labels, [5, 2])


@pytest.mark.timeout(60)
def test_a_process_that_is_gone_ends_the_run():
    with pytest.raises(ChildFailedError, match="_in_group"):
        launch(exit_before_forward, 2, network(), torch.randn(4, 6), timeout=30)


@pytest.mark.timeout(60)
def test_a_rank_that_lives_and_does_not_come_is_waited_for_until_the_limit():
    first, last = launch(wait_for_a_missing_rank, 2, network(), torch.randn(4, 6), 1)
    assert last is None
    seconds, error = first
    assert 1 <= seconds < 10 and "Timed out" in error


@pytest.mark.timeout(120)
def test_torchrun_trains_the_same_network_on_every_device():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, "-m", "bncourse.studies.many_devices"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    first, second = sorted(re.findall(r"rank (\d) of 2, cpu: test accuracy ([\d.]+)", run.stdout))
    assert (first[0], second[0]) == ("0", "1")
    assert first[1] == second[1] and float(first[1]) > 0.8
