"""Chapter 15: what a training step costs: the bytes it moves, the bytes it keeps, and its time beside others."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bncourse.training import quick

__all__ = ["TrafficCounter", "milliseconds", "saved_bytes", "traffic"]


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
    """The time of one call of each step, for each round. Every round runs all steps, one after the other.

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
        for name, step in steps.items():
            times[name].append(1000 * seconds(step, calls[name]))
    return times
