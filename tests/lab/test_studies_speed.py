"""Bytes counted by hand."""

import torch

from bncourse.studies.speed import bytes_moved, kept_bytes, milliseconds

SIZE = 4000  # bytes of x


def x():
    return torch.randn(1000, requires_grad=True)


def test_bytes_moved_counts_reads_and_writes():
    a, b = x().detach(), x().detach()
    assert bytes_moved(lambda: a + b) == 3 * SIZE
    assert bytes_moved(lambda: a.add_(b)) == 3 * SIZE
    assert bytes_moved(lambda: torch.exp(a, out=b)) == 2 * SIZE
    assert bytes_moved(lambda: torch.empty_like(a).view(10, 100)) == 0


def test_bytes_moved_counts_the_backward_pass():
    a, dy = x(), torch.ones(1000)
    forward = bytes_moved(lambda: a.exp())
    assert forward == 2 * SIZE
    assert bytes_moved(lambda: torch.autograd.grad(a.exp(), a, dy)) == forward + 3 * SIZE  # dy * exp(a)


def test_kept_bytes():
    a = x()
    assert kept_bytes(lambda: a.exp()) == SIZE
    assert kept_bytes(lambda: a.exp() * a) == 2 * SIZE
    assert kept_bytes(lambda: a + 1) == 0


def test_milliseconds_gives_every_round_of_every_step():
    calls = []
    times = milliseconds({"one": lambda: calls.append(1), "two": lambda: calls.append(2)}, rounds=3)
    assert calls == [1, 2] + [1, 2] * 3
    assert [len(values) for values in times.values()] == [3, 3]
