"""Chapter 15: what a training step costs: the bytes it moves, the bytes it keeps, and its time beside others."""

import ctypes
import random
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bncourse.training import quick

__all__ = ["TrafficCounter", "keep_freed_memory", "milliseconds", "page_faults", "saved_bytes", "traffic"]


class TrafficCounter(TorchDispatchMode):
    """Adds up the tensors that torch's operations read and write. Views and fresh memory cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if not operation.is_view and "empty" not in operation.name():
            read = args, {name: value for name, value in kwargs.items() if name != "out"}
            self.bytes += sum(tensor.nbytes for tensor in tree_leaves((read, result)) if isinstance(tensor, Tensor))
        return result


def traffic(step: Callable[[], object]) -> int:
    """Bytes that ``step`` reads and writes, backward included, with each operation of torch seen from outside.

    An operation that goes over its input twice counts once, and data that is still in the cache counts as well.
    """
    with TrafficCounter() as counter:
        step()
    return counter.bytes


def saved_bytes(forward: Callable[[], object]) -> int:
    """Memory that ``forward`` saves for the backward pass; what shares memory counts once."""
    saved = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()  # held until all is counted: nothing that is freed lends its address to another
    del output
    return sum(saved.values())


def milliseconds(
    steps: dict[str, Callable[[], object]], rounds: int = 9, round_seconds: float = 0.0
) -> dict[str, list[float]]:
    """The time of one call of each step, for each round. Every round runs all steps, in random order.

    Args:
        round_seconds: how long a step runs in a round: it is called as often as that takes, and at least once.
    """

    def seconds(step: Callable[[], object], calls: int = 1) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            step()
        synchronize()
        return (time.perf_counter() - start) / calls

    def synchronize() -> None:
        if torch.cuda.is_initialized():  # else nothing runs there, and asking would wake it
            torch.cuda.synchronize()

    calls, times = {}, {name: [] for name in steps}
    for name, step in steps.items():
        seconds(step)  # warm up; compile
        calls[name] = max(1, round(round_seconds / seconds(step)))
    for _ in range(2 if quick() else rounds):
        for name in random.sample(list(steps), len(steps)):
            times[name].append(1000 * seconds(steps[name], calls[name]))
    return times


def page_faults() -> int:
    """How many pages the operating system has had to bring in for this process so far; 0 where it does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def keep_freed_memory() -> None:
    """From now on freed memory stays with this process, so that no step pays for new pages (Linux with glibc only)."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_max = -1, -4  # the names of malloc.h
            mallopt(trim_threshold, 2**31 - 1)
            mallopt(mmap_max, 0)
