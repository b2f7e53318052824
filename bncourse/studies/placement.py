"""BatchNorm before or after the activation: the same network in both orders, and what passes through it."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from bncourse.layers import BatchNorm1d, BatchNorm2d

__all__ = ["ORDERS", "block", "fc_network", "small_cnn", "through"]

ORDERS = ("before", "after", "none")


def block(layer: nn.Module, norm: nn.Module, order: str) -> list[nn.Module]:
    """A linear layer or convolution with its norm and ReLU.

    Args:
        order: "before" the activation (layer, norm, ReLU), "after" it (layer, ReLU, norm), or "none" (layer, ReLU).

    Raises:
        ValueError: an unknown ``order``.
    """
    if order == "before":
        return [layer, norm, nn.ReLU()]
    if order == "after":
        return [layer, nn.ReLU(), norm]
    if order == "none":
        return [layer, nn.ReLU()]
    raise ValueError(f"order={order!r} is unknown; expected one of {', '.join(ORDERS)}")


def fc_network(sizes: list[int], order: str) -> nn.Sequential:
    """A block for each hidden size, then a linear layer: (N, ...) to (N, sizes[-1])."""
    layers: list[nn.Module] = [nn.Flatten()]
    for features, out_features in pairwise(sizes[:-1]):
        layers += block(nn.Linear(features, out_features), BatchNorm1d(out_features), order)
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def small_cnn(order: str, channels: int = 3, width: int = 8, classes: int = 10) -> nn.Sequential:
    """Two convolution blocks, each followed by pooling, then a linear layer: (N, channels, H, W) to (N, classes)."""
    layers: list[nn.Module] = []
    for features, out_features in pairwise([channels, width, 2 * width]):
        convolution = nn.Conv2d(features, out_features, 3, padding=1)
        layers += [*block(convolution, BatchNorm2d(out_features), order), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2 * width * 16, classes))


@torch.no_grad()
def through(network: nn.Sequential, x: Tensor) -> list[tuple[str, Tensor]]:
    """What each layer of ``network`` gives for ``x``, with the layer's name; the network's mode decides how."""
    seen = []
    for layer in network:
        x = layer(x)
        seen.append((type(layer).__name__, x))
    return seen
