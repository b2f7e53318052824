"""Chapter 13: what a network costs to run, and a data set as another camera would have taken it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bncourse.data import DataSet, Examples
from bncourse.moved import names_of
from bncourse.probes import outputs_of
from bncourse.surgery import BATCH_NORMS

__all__ = ["macs", "shifted_domain"]


@torch.no_grad()
def macs(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass of ``images`` (N, ...): in linear and convolution layers, and in batch norms.

    An output of the first kind takes one for each weight that it reads; one of a batch norm in evaluation takes one.
    """
    with outputs_of(model) as calls, FlopCounterMode(display=False) as counter:
        model(images)
    norms = sum(call.output.numel() for call in calls if isinstance(call.layer, BATCH_NORMS))
    return {"linear and convolution": counter.get_total_flops() // 2, "batch norm": norms}


def shifted_domain(data: DataSet, seed: int = 0) -> DataSet:
    """The data set with half the contrast, a quarter brighter, and noise of standard deviation 0.1 in each pixel."""
    rng = torch.Generator().manual_seed(seed)

    def photograph(examples: Examples) -> Examples:
        images = examples.images / 2 + 0.25
        noise = 0.1 * torch.randn(images.shape, generator=rng)
        return Examples(images + noise.to(images.device), examples.labels)

    return DataSet(f"{data.name}, another camera", photograph(data.train), photograph(data.test))


__getattr__ = names_of(__name__)
