"""Chapter 15: what a training step costs: the bytes it moves, the bytes it keeps, and its time beside others."""

import ctypes
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
from joblib import wrap_non_picklable_objects
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bncourse.studies.processes import start_method
from bncourse.training import quick

__all__ = [
    "OneProcessEach",
    "TrafficCounter",
    "keep_freed_memory",
    "milliseconds",
    "page_faults",
    "saved_bytes",
    "traffic",
]


class TrafficCounter(TorchDispatchMode):
    """Adds up the tensors that torch's operations read and write.

    Views and fresh memory cost nothing.
    """

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


class OneStep(NamedTuple):
    """The time of one call, and the pages that the operating system had to bring in for it."""

    milliseconds: float
    page_faults: int


class OneProcessEach:
    """A process of its own for each step, with one thread, so that none uses the memory that another has warmed.

    Args:
        steps: for each name a function without arguments; a process gets a copy of all that it refers to.
    """

    def __init__(self, steps: dict[str, Callable[[], object]]) -> None:
        self.steps = steps
        context = multiprocessing.get_context(start_method())
        self.processes = {name: ProcessPoolExecutor(1, context) for name in steps}

    def __enter__(self) -> "OneProcessEach":
        for name, step in self.steps.items():
            self.processes[name].submit(_keep_step, wrap_non_picklable_objects(step)).result()
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes.values():
            process.shutdown()

    def run(self, rounds: int = 9) -> dict[str, list[OneStep]]:
        """Each step once in each round, one process after another, in random order."""
        found: dict[str, list[OneStep]] = {name: [] for name in self.steps}
        for _ in range(2 if quick() else rounds):
            for name in random.sample(list(self.steps), len(self.steps)):
                found[name].append(self.processes[name].submit(_time_step).result())
        return found

    def keep_freed_memory(self) -> None:
        """From now on each process keeps what it frees (see the function of that name)."""
        for process in self.processes.values():
            process.submit(keep_freed_memory).result()
        self.run(1)  # brings the pages in that are kept from now on


_kept: list[Callable[[], object]] = []  # in a process of OneProcessEach: its step


def _keep_step(step: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    step()  # what only the first call does
    _kept.append(step)


def _time_step() -> OneStep:
    faults, start = page_faults(), time.perf_counter()
    _kept[0]()
    return OneStep(1000 * (time.perf_counter() - start), page_faults() - faults)


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
