"""Chapters 8 and 14: one training step on several devices, and a training script for them.

Each device is a process with its own part of the batch. ``launch`` starts them for experiments and tests; training
jobs are started with ``torchrun``, which starts one process for each device:

torchrun --standalone --nproc-per-node 2 -m bncourse.studies.many_devices
"""

import copy
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bncourse.data import load
from bncourse.layers import SyncBatchNorm
from bncourse.models import fc_network
from bncourse.studies.processes import start_method
from bncourse.training import quick

__all__ = [
    "Step",
    "buffers_copied",
    "exit_before_forward",
    "launch",
    "step_on_devices",
    "step_on_one_device",
    "train",
    "wait_for_a_missing_rank",
]


def launch(function: Callable, processes: int, *arguments, timeout: float = 60) -> list:
    """Run ``function(*arguments)`` in new processes that can talk to each other, with torchrun's machinery.

    Args:
        function: importable by name (not defined in a notebook or a prompt). ``torch.distributed`` is ready in it.
        processes: how many. They use the processor (gloo), one thread each.
        arguments: the same for every process.
        timeout: seconds after which a process that waits for another that never comes ends with an error.

    Returns:
        What the function returned, by rank.

    Raises:
        ValueError: fewer than one process.
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: a process failed; the others were ended.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    here = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    once = {"run_id": uuid.uuid4().hex, "max_restarts": 0, "monitor_interval": 0.1, "start_method": start_method()}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, **here, **once)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        results = elastic_launch(config, _in_group)(function, timeout, *arguments)
    finally:  # torch replaces handlers and leaves its own: a notebook could not be interrupted
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
    return [results[rank] for rank in range(processes)]


def _in_group(function: Callable, timeout: float, *arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()


class Step(NamedTuple):
    """What a training step computes: scores (N, classes), every parameter's gradient, every buffer afterwards."""

    scores: Tensor
    gradients: list[Tensor]
    buffers: list[Tensor]


def step_on_one_device(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Forward and backward pass on the whole batch; the network is left as it was."""
    return _step(copy.deepcopy(network), images, labels)


def step_on_devices(
    network: nn.Module, images: Tensor, labels: Tensor, sizes: Sequence[int]
) -> tuple[Step, Step, dict[str, int]]:
    """The same with the batch cut into parts of these ``sizes``, one for each process, and gradients averaged.

    Returns:
        the step with the network's norms as they are, where every process normalizes its own part; the step with
        every BatchNorm converted to SyncBatchNorm; and how often the latter called each collective in one process.
        Scores are those of all processes, gradients and buffers those of the first.

    Raises:
        ValueError: ``sizes`` that do not add up to the batch.
    """
    if sum(sizes) != len(labels):
        raise ValueError(f"sizes must add up to the batch's {len(labels)} examples, got {list(sizes)}")
    separate, synchronized, calls = zip(*launch(_both_steps, len(sizes), network, images, labels, sizes), strict=True)

    def joined(steps: Sequence[Step]) -> Step:
        return steps[0]._replace(scores=torch.cat([step.scores for step in steps]))

    return joined(separate), joined(synchronized), calls[0]


def _both_steps(network: nn.Module, images: Tensor, labels: Tensor, sizes: Sequence[int]):
    """In every process: the step on its part of the batch, without and with synchronized norms."""
    images, labels = (tensor.split(sizes)[dist.get_rank()] for tensor in (images, labels))
    # DistributedDataParallel takes the plain mean over the devices: a part's share of the batch is put back in
    weight = len(labels) * len(sizes) / sum(sizes)
    separate = copy.deepcopy(network)  # the processes were handed the same memory
    synchronized = SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    with (
        patch.object(dist, "all_gather", wraps=dist.all_gather) as gather,
        patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduce,
    ):
        steps = [_step(DistributedDataParallel(model), images, labels, weight) for model in (separate, synchronized)]
    return *steps, {"all_gather": gather.call_count, "all_reduce": reduce.call_count}


def _step(model: nn.Module, images: Tensor, labels: Tensor, weight: float = 1) -> Step:
    scores = model(images)
    (weight * functional.cross_entropy(scores, labels)).backward()
    return Step(scores.detach(), [p.grad for p in model.parameters()], list(model.buffers()))


def exit_before_forward(network: nn.Module, images: Tensor) -> None:
    """To be launched: the last process is gone before its forward pass, the others wait for it in the first norm."""
    if dist.get_rank() == dist.get_world_size() - 1:
        os._exit(1)  # like the OOM killer: no exception, no clean-up
    SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))(images)


def wait_for_a_missing_rank(network: nn.Module, images: Tensor, limit: float) -> tuple[float, str] | None:
    """To be launched: the last process lives and never calls the norm, where the others wait for it.

    Args:
        limit: seconds after which a message of the norms ends with an error.

    Returns:
        how many seconds the wait took and the error that ended it; None in the process that did not come.
    """
    dist.barrier()  # so that nobody waits for a process that is still starting
    group = dist.new_group(timeout=timedelta(seconds=limit))
    waited = None
    if dist.get_rank() < dist.get_world_size() - 1:
        start = time.monotonic()
        try:
            SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network), group)(images)
        except RuntimeError as error:
            waited = time.monotonic() - start, str(error)
    dist.barrier()  # alive until the others have given up
    return waited


def buffers_copied(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, bool]:
    """To be launched: whether DistributedDataParallel gave this process the buffers of rank 0, pass by pass.

    Each rank marks a buffer with its number before each pass; afterwards the mark is rank 0's, or still its own.
    """
    model = DistributedDataParallel(copy.deepcopy(network))
    counter = next(buffer for buffer in model.buffers() if buffer.dim() == 0)

    def copied(train: bool = True) -> bool:
        counter.fill_(100 * dist.get_rank())
        model.train(train)
        with nullcontext() if train else torch.no_grad():
            scores = model(images)
        if train:
            functional.cross_entropy(scores, labels).backward()
        return counter.item() < 100

    found = {"training": copied(), "evaluation, first batch": copied(train=False)}
    found |= {"evaluation, second batch": copied(train=False), "training, first batch after it": copied()}
    found["training, second batch"] = copied()
    with model.no_sync():
        found |= {"no_sync, first batch": copied(), "no_sync, second batch": copied()}
    return found


def train(epochs: int = 3, batch_size: int = 64) -> None:
    """Train on the digits; ``batch_size`` is that of all devices together."""
    on_gpus = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpus else "gloo")
    rank, devices = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)

    data = load("digits").standardized()
    torch.manual_seed(0)  # the same network everywhere
    network = fc_network([data.train.images[0].numel(), 64, 64, 10]).to(device)
    model = DistributedDataParallel(SyncBatchNorm.convert_sync_batchnorm(network))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(epoch))
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            # as many steps on every device
            images, labels = data.train.take(batch[rank::devices])
            optimizer.zero_grad()
            functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()

    model.eval()
    with torch.no_grad():
        right = network(data.test.images.to(device)).argmax(1).cpu() == data.test.labels
    accuracy = right.double().mean()
    line = f"rank {rank} of {devices}, {device}: test accuracy {accuracy:.4f}\n"
    print(line, end="", flush=True)  # in one piece: the ranks' lines must not mix
    dist.destroy_process_group()


if __name__ == "__main__":
    train(epochs=1 if quick() else 3)
