"""What a network costs to run, and a data set as another camera would have taken it."""

import torch
from torch import nn

from bncourse.data import DataSet, Examples
from bncourse.surgery import BATCH_NORMS

__all__ = ["another_camera", "multiply_adds"]


@torch.no_grad()
def multiply_adds(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass of ``images`` (N, ...): in linear and convolution layers, and in batch norms.

    An output of the first kind takes one for each weight that it reads; one of a batch norm in evaluation takes one.
    """
    counts = {"linear and convolution": 0, "batch norm": 0}

    def count(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, BATCH_NORMS):
            counts["batch norm"] += output.numel()
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            counts["linear and convolution"] += output.numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def another_camera(data: DataSet, seed: int = 0) -> DataSet:
    """The data set with half the contrast, a quarter brighter, and noise of standard deviation 0.1 in each pixel."""
    random = torch.Generator().manual_seed(seed)

    def photograph(examples: Examples) -> Examples:
        images = examples.images / 2 + 0.25
        return Examples(images + 0.1 * torch.randn(images.shape, generator=random), examples.labels)

    return DataSet(f"{data.name}, another camera", photograph(data.train), photograph(data.test))
