"""Bytes counted by hand."""

import os
import time
from functools import partial

import torch

from bncourse.studies.fast_layers import OneProcessEach, milliseconds, saved_bytes, traffic

SIZE = 4000  # bytes of x


def x():
    return torch.randn(1000, requires_grad=True)


def test_traffic_counts_reads_and_writes():
    a, b = x().detach(), x().detach()
    assert traffic(lambda: a + b) == 3 * SIZE
    assert traffic(lambda: a.add_(b)) == 3 * SIZE
    assert traffic(lambda: torch.exp(a, out=b)) == 2 * SIZE
    assert traffic(lambda: torch.empty_like(a).view(10, 100)) == 0


def test_traffic_counts_the_backward_pass():
    a, dy = x(), torch.ones(1000)
    forward = traffic(lambda: a.exp())
    assert forward == 2 * SIZE
    assert traffic(lambda: torch.autograd.grad(a.exp(), a, dy)) == forward + 3 * SIZE  # dy * exp(a)


def test_saved_bytes():
    a = x()
    assert saved_bytes(lambda: a.exp()) == SIZE
    assert saved_bytes(lambda: a.exp() * a) == 2 * SIZE
    assert saved_bytes(lambda: a + 1) == 0


def test_milliseconds_has_every_round_of_every_step():
    calls = []
    times = milliseconds({"one": lambda: calls.append(1), "two": lambda: calls.append(2)}, rounds=3)
    last = calls[-6:]
    assert all(sorted(last[start : start + 2]) == [1, 2] for start in (0, 2, 4))  # in random order
    assert [len(values) for values in times.values()] == [3, 3]


def test_milliseconds_of_one_call_among_many():
    calls = []
    times = milliseconds({"nap": lambda: calls.append(time.sleep(0.002))}, rounds=2, round_seconds=0.02)
    assert len(calls) > 6 and all(2 <= value < 20 for value in times["nap"])


def nap(path):
    time.sleep(0.002)
    path.write_text(str(os.getpid()))


def test_each_step_has_a_process_of_its_own(tmp_path):
    files = {name: tmp_path / name for name in ("one", "two")}
    with OneProcessEach({name: partial(nap, path) for name, path in files.items()}) as processes:
        steps = processes.run(rounds=2)
        processes.keep_freed_memory()
    assert {name: len(found) for name, found in steps.items()} == {"one": 2, "two": 2}
    assert all(one.milliseconds >= 2 and one.page_faults >= 0 for found in steps.values() for one in found)
    assert len({path.read_text() for path in files.values()} | {str(os.getpid())}) == 3
