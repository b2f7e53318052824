"""What a step of training costs: the bytes it moves, the bytes it keeps, the time it takes beside others."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["bytes_moved", "kept_bytes", "milliseconds"]


class _Ledger(TorchDispatchMode):
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


def bytes_moved(step: Callable[[], object]) -> int:
    """Bytes that ``step`` reads and writes, backward included, with each operation of torch seen from outside.

    An operation that goes over its input twice counts once, and data that is still in the cache counts as well.
    """
    with _Ledger() as ledger:
        step()
    return ledger.bytes


def kept_bytes(forward: Callable[[], object]) -> int:
    """Memory that ``forward`` keeps for the backward pass; what shares memory counts once."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()  # held until all is counted: nothing that is freed lends its address to another
    del output
    return sum(kept.values())


def milliseconds(steps: dict[str, Callable[[], object]], rounds: int = 9) -> dict[str, list[float]]:
    """The time of each step in each round. Every round runs all of them, so that a disturbance meets all of them."""
    for step in steps.values():
        step()  # warm up
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return times
