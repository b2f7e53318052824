"""One training step on several devices, each a process with its own part of the batch."""

import copy
import os
from collections import Counter
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bncourse.distributed import launch
from bncourse.layers import SyncBatchNorm

__all__ = ["Step", "die_before_the_batch", "on_devices", "on_one_device", "on_uneven_devices"]


class Step(NamedTuple):
    """What a training step computes: scores (N, classes), every parameter's gradient, every buffer afterwards."""

    scores: Tensor
    gradients: list[Tensor]
    buffers: list[Tensor]


def on_one_device(network: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Forward and backward pass on the whole batch; the network is left as it was."""
    return _step(copy.deepcopy(network), images, labels)


def on_devices(network: nn.Module, images: Tensor, labels: Tensor, *, devices: int) -> tuple[Step, Step]:
    """The same with the batch cut into equal parts, one for each process, and gradients averaged over them.

    Returns:
        what happens with the network's norms as they are, where every process normalizes its own part (buffers are
        those of the first process), and with every BatchNorm converted to SyncBatchNorm.

    Raises:
        ValueError: a batch that ``devices`` does not divide.
    """
    if len(labels) % devices:
        raise ValueError(f"the batch has {len(labels)} examples; expected a multiple of devices={devices}")
    parts = launch(_both, devices, network, images, labels)
    return tuple(_joined([steps[kind] for steps in parts]) for kind in (0, 1))


def _both(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Step, Step]:
    """Run in every process: its part of the batch, without and with synchronized norms."""
    rank, devices = dist.get_rank(), dist.get_world_size()
    return _both_ways(network, images.chunk(devices)[rank], labels.chunk(devices)[rank])


def _both_ways(network: nn.Module, images: Tensor, labels: Tensor, weight: float = 1) -> tuple[Step, Step]:
    separate = copy.deepcopy(network)  # the processes were handed the same memory
    synchronized = SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    return tuple(_step(DistributedDataParallel(model), images, labels, weight) for model in (separate, synchronized))


def _joined(steps: list[Step]) -> Step:
    """All scores; gradients and buffers of the first process."""
    return Step(torch.cat([step.scores for step in steps]), steps[0].gradients, steps[0].buffers)


def _step(model: nn.Module, images: Tensor, labels: Tensor, weight: float = 1) -> Step:
    scores = model(images)
    (weight * functional.cross_entropy(scores, labels)).backward()
    return Step(scores.detach(), [p.grad for p in model.parameters()], list(model.buffers()))


def on_uneven_devices(
    network: nn.Module, images: Tensor, labels: Tensor, *, sizes: list[int]
) -> tuple[Step, Step, Counter]:
    """As ``on_devices``, with the batch cut into parts of these ``sizes``, each loss weighted by its part's size.

    Returns:
        the steps without and with synchronized norms, and how often the latter called each collective in one process.

    Raises:
        ValueError: sizes that do not add up to the batch.
    """
    if sum(sizes) != len(labels):
        raise ValueError(f"sizes={sizes} add up to {sum(sizes)}; expected the batch's {len(labels)} examples")
    parts = launch(_uneven, len(sizes), network, images, labels, sizes)
    separate, synchronized = (_joined([part[kind] for part in parts]) for kind in (0, 1))
    return separate, synchronized, parts[0][2]


def _uneven(network: nn.Module, images: Tensor, labels: Tensor, sizes: list[int]) -> tuple[Step, Step, Counter]:
    rank, calls = dist.get_rank(), Counter()
    images, labels = images.split(sizes)[rank], labels.split(sizes)[rank]
    for name in ("all_gather", "all_reduce"):
        setattr(dist, name, _counted(getattr(dist, name), calls))
    # DistributedDataParallel takes the plain mean over the devices: a part's share of the batch is put back in
    return *_both_ways(network, images, labels, weight=len(labels) * len(sizes) / sum(sizes)), calls


def _counted(collective, calls: Counter):
    def counted(*arguments, **options):
        calls[collective.__name__] += 1
        return collective(*arguments, **options)

    return counted


def die_before_the_batch(network: nn.Module, images: Tensor) -> None:
    """To be launched: the last process is gone before its forward pass, the others wait for it in the first norm."""
    if dist.get_rank() == dist.get_world_size() - 1:
        os._exit(1)  # as when the memory runs out: no exception, no farewell
    SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))(images)
