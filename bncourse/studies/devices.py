"""One training step on several devices, each a process with its own part of the batch."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bncourse.distributed import launch
from bncourse.layers import SyncBatchNorm

__all__ = ["Step", "on_devices", "on_one_device"]


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
    return tuple(
        Step(torch.cat([steps[kind].scores for steps in parts]), parts[0][kind].gradients, parts[0][kind].buffers)
        for kind in (0, 1)
    )


def _both(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Step, Step]:
    """Run in every process: its part of the batch, without and with synchronized norms."""
    rank, devices = torch.distributed.get_rank(), torch.distributed.get_world_size()
    images, labels = images.chunk(devices)[rank], labels.chunk(devices)[rank]
    separate = copy.deepcopy(network)  # the processes were handed the same memory
    synchronized = SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    return tuple(_step(DistributedDataParallel(model), images, labels) for model in (separate, synchronized))


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    scores = model(images)
    functional.cross_entropy(scores, labels).backward()
    return Step(scores.detach(), [p.grad for p in model.parameters()], list(model.buffers()))
