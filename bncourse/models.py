"""The source's networks and blocks, and the same with another normalization.

``FCNetworkWithBatchNorm`` and ``CNNWithBatchNorm`` are the source's, parameter for parameter. The functions below them
build the narrow networks that the book's comparisons train, with ``norm=`` as the only difference.
"""

from itertools import pairwise

import torch
from torch import nn

from bncourse.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    RMSNorm,
)

__all__ = [
    "NORMS",
    "CNNWithBatchNorm",
    "FCNetworkWithBatchNorm",
    "conv_block",
    "fc_block",
    "fc_network",
    "initialize",
    "norm_layer",
    "small_cnn",
]

NORMS = ("none", "batch", "layer", "instance", "group", "rms", "ghost", "renorm")
GHOST_SIZE = 16


def norm_layer(norm: str, num_features: int, dimensions: int = 0) -> nn.Module:
    """The normalization called ``norm`` for inputs (N, num_features) or (N, num_features, *space).

    Args:
        norm: one of ``NORMS``. "layer" and "rms" act on all that belongs to one sample; for maps that is
            ``GroupNorm(1, C)``, whose statistics are LayerNorm's and whose scale is per channel.
        dimensions: how many space dimensions follow the features: 0 to 3.

    Raises:
        ValueError: an unknown ``norm``, or one that has no meaning for these ``dimensions``.
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} is unknown; expected one of {', '.join(NORMS)}")
    if dimensions not in (0, 1, 2, 3):
        raise ValueError(f"dimensions={dimensions!r} is out of range; expected 0, 1, 2 or 3")
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return (BatchNorm1d, BatchNorm1d, BatchNorm2d, BatchNorm3d)[dimensions](num_features)
    if norm == "ghost":
        return GhostBatchNorm(num_features, GHOST_SIZE)
    if norm == "renorm":
        return BatchRenorm(num_features)
    if norm == "layer":
        return GroupNorm(1, num_features)
    if norm == "group":
        return GroupNorm(_groups(num_features), num_features)
    if norm == "instance" and dimensions > 0:
        return (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)[dimensions - 1](num_features, affine=True)
    if norm == "rms" and dimensions == 0:
        return RMSNorm(num_features)
    raise ValueError(
        f"norm={norm!r} is not defined for dimensions={dimensions}: instance needs space, rms has none here"
    )


def _groups(num_features: int) -> int:
    """The most groups, 8 at the most, that divide the features and leave at least two in each."""
    return max(g for g in range(1, 9) if num_features % g == 0 and (g == 1 or num_features // g >= 2))


def fc_block(in_features: int, out_features: int, dropout: float = 0.0, norm: str = "batch") -> nn.Sequential:
    """Linear, norm, ReLU, and dropout if there is any: (N, in_features) to (N, out_features)."""
    layers = [nn.Linear(in_features, out_features), norm_layer(norm, out_features), nn.ReLU()]
    if dropout != 0:  # nn.Dropout refuses what is no probability
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def conv_block(
    in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 1, norm: str = "batch"
) -> nn.Sequential:
    """Convolution, norm, ReLU: (N, in_channels, H, W) to (N, out_channels, H, W) with the default kernel."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding),
        norm_layer(norm, out_channels, dimensions=2),
        nn.ReLU(),
    )


class FCNetworkWithBatchNorm(nn.Module):
    """The source's fully connected network: (N, 784) to 10 class scores (N, 10)."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(784, 256),
            BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 128),
            BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


class CNNWithBatchNorm(nn.Module):
    """The source's convolutional network: (N, 3, 32, 32) to 10 class scores (N, 10)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            BatchNorm2d(128),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * 8 * 8, 256),
            BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def fc_network(
    sizes: list[int], norm: str = "batch", activation: type[nn.Module] = nn.ReLU, bias: bool = True
) -> nn.Sequential:
    """Linear, norm, activation for each hidden size, then a linear layer: (N, ...) to (N, sizes[-1]).

    Args:
        sizes: the features of every layer, input and output included: ``[784, 100, 100, 10]``.
        bias: whether the hidden linear layers have one; a norm's own bias makes it redundant.

    Raises:
        ValueError: fewer than two sizes, or an unknown norm.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes={sizes!r} is too short; expected at least an input and an output size")
    layers: list[nn.Module] = [nn.Flatten()]
    for features, out_features in pairwise(sizes[:-1]):
        layers += [nn.Linear(features, out_features, bias=bias), norm_layer(norm, out_features), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def small_cnn(norm: str = "batch", channels: int = 3, width: int = 16) -> nn.Sequential:
    """The source's CNN made narrow, so that comparisons over seeds are cheap: (N, channels, H, W) to (N, 10).

    Two convolution blocks of ``width`` and ``2 * width`` channels, each halving the map; then the mean over space and a
    linear layer (the source has two linear layers and a norm there).
    """
    return nn.Sequential(
        conv_block(channels, width, norm=norm),
        nn.MaxPool2d(2),
        conv_block(width, 2 * width, norm=norm),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 10),
    )


@torch.no_grad()
def initialize(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw every linear and convolution weight from N(0, gain² · 2 / fan_in), set their biases to 0; return the model.

    With ``gain=1`` this is the initialization of He et al. 2015 (``torch.nn.init.kaiming_normal_``), under which the
    signal neither grows nor shrinks, in the mean, through layers with ReLU. Torch's default is smaller.

    Raises:
        ValueError: a gain that is not positive.
    """
    if not gain > 0:
        raise ValueError(f"gain={gain} is out of range; expected a positive number")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu").mul_(gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
