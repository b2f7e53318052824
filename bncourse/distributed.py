"""What the course needs of ``torch.distributed``: a few processes on one machine, and SyncBatchNorm's collectives.

``launch`` is for experiments and tests; training jobs are started with ``torchrun``.
"""

import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size(group: Any | None = None) -> int:
    """How many processes work together in ``group`` (None: all of them); 1 where none were started."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def gather(values: Tensor, group: Any | None = None) -> Tensor:
    """``values`` of every process, stacked: (processes, ...). One collective; all processes must call it."""
    received = [torch.empty_like(values) for _ in range(world_size(group))]
    dist.all_gather(received, values.contiguous(), group=group)
    return torch.stack(received)


def total(values: Tensor, group: Any | None = None) -> Tensor:
    """The sum of ``values`` over the processes, in place. One collective; all processes must call it."""
    dist.all_reduce(values, group=group)
    return values


def launch(function: Callable, processes: int, *arguments, timeout: float = 60) -> list:
    """Run ``function(*arguments)`` in new processes that can talk to each other, with torchrun's machinery.

    Args:
        function: importable by name (not defined in a notebook or a prompt). ``torch.distributed`` is ready in it.
        processes: how many. They use the processor (gloo), one thread each.
        arguments: the same for every process.
        timeout: seconds after which a process that waits in vain for another ends with an error.

    Returns:
        What the function returned, by rank.

    Raises:
        ValueError: fewer than one process.
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: a process failed; the others were ended.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if processes < 1:
        raise ValueError(f"processes must be at least 1, but got {processes}")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
    )
    with _own_signal_handlers():
        results = elastic_launch(config, _in_group)(function, timeout, *arguments)
    return [results[rank] for rank in range(processes)]


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Put the signal handlers back afterwards: torch replaces them, and a notebook could not be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _in_group(function: Callable, timeout: float, *arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()
