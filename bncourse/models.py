"""The source's networks and blocks, and the narrow networks that the book's comparisons train.

``FCNetworkWithBatchNorm`` and ``CNNWithBatchNorm`` are the source's, parameter for parameter. ``fc_network`` and
``small_cnn`` say in words what follows each hidden layer, such as "batch relu", so that nothing else can differ.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from bncourse import layers

__all__ = [
    "NORMS",
    "CNNWithBatchNorm",
    "Dropout",
    "FCNetworkWithBatchNorm",
    "conv_block",
    "fc_block",
    "fc_network",
    "initialize",
    "layer_block",
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
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if dimensions not in (0, 1, 2, 3):
        raise ValueError(f"dimensions must be 0, 1, 2 or 3, got {dimensions!r}")
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return getattr(layers, f"BatchNorm{max(dimensions, 1)}d")(num_features)
    if norm == "ghost":
        return layers.GhostBatchNorm(num_features, GHOST_SIZE)
    if norm == "renorm":
        return layers.BatchRenorm(num_features)
    if norm == "layer":
        return layers.GroupNorm(1, num_features)
    if norm == "group":
        return layers.GroupNorm(_groups(num_features), num_features)
    if norm == "instance" and dimensions > 0:
        return getattr(layers, f"InstanceNorm{dimensions}d")(num_features, affine=True)
    if norm == "rms" and dimensions == 0:
        return layers.RMSNorm(num_features)
    wanted = "0" if norm == "rms" else "at least 1"
    raise ValueError(f"dimensions must be {wanted} for norm={norm!r}, got {dimensions}")


def _groups(num_features: int) -> int:
    """The most groups, 8 at the most, that divide the features and leave at least two in each."""
    return max(g for g in range(1, 9) if num_features % g == 0 and (g == 1 or num_features // g >= 2))


def layer_block(layer: nn.Linear | nn.Conv2d, words: str, drop: float = 0.3) -> list[nn.Module]:
    """``layer`` and what ``words`` let follow it: "batch relu" is BatchNorm, then ReLU.

    Args:
        words: names among ``NORMS``, "relu", "sigmoid" and "dropout", in their order.
        drop: dropout's probability to set a value to zero in training.

    Raises:
        ValueError: another word.
    """
    features, dimensions = len(layer.weight), layer.weight.dim() - 2
    make = {norm: lambda norm=norm: norm_layer(norm, features, dimensions) for norm in NORMS}
    make |= {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "dropout": lambda: Dropout(drop)}
    if unknown := [word for word in words.split() if word not in make]:
        raise ValueError(f"words must be among {', '.join(make)}, got {' '.join(unknown)!r}")
    return [layer, *(make[word]() for word in words.split())]


class Dropout(nn.Dropout):
    """``nn.Dropout`` whose mask is drawn on the CPU: with the same seed the same values become 0 on every device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        mask = functional.dropout(torch.ones_like(x, device="cpu"), self.p)  # 0, or 1 / (1 - p)
        return x * mask.to(x.device)


def fc_block(in_features: int, out_features: int, dropout: float = 0.0, norm: str = "batch") -> nn.Sequential:
    """Linear, norm, ReLU, dropout if any: (N, in_features) to (N, out_features)."""
    words = f"{norm} relu dropout" if dropout else f"{norm} relu"
    return nn.Sequential(*layer_block(nn.Linear(in_features, out_features), words, dropout))


def conv_block(
    in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 1, norm: str = "batch"
) -> nn.Sequential:
    """Convolution, norm, ReLU; the default kernel and padding keep the map's size."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
    return nn.Sequential(*layer_block(convolution, f"{norm} relu"))


class FCNetworkWithBatchNorm(nn.Module):
    """The source's fully connected network: (N, 784) to 10 class scores (N, 10).

    Args:
        norms: the module that has the norms, here ``bncourse.layers``; the source's is
            ``torch.nn``.
    """

    def __init__(self, norms=layers):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(784, 256),
            norms.BatchNorm1d(256),  # BatchNorm1d for FC layers
            nn.ReLU(),
            nn.Linear(256, 128),
            norms.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


class CNNWithBatchNorm(nn.Module):
    """The source's convolutional network: (N, 3, 32, 32) to 10 class scores (N, 10).

    ``norms``: as in ``FCNetworkWithBatchNorm``.
    """

    def __init__(self, norms=layers):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            norms.BatchNorm2d(64),  # BatchNorm2d for conv layers
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            norms.BatchNorm2d(128),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * 8 * 8, 256),
            norms.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def fc_network(
    sizes: list[int], block: str = "batch relu", *, norm: str | None = None, drop: float = 0.3, bias: bool = True
) -> nn.Sequential:
    """Linear and ``block`` for each hidden size, then a linear layer: (N, ...) to (N, sizes[-1]).

    Args:
        sizes: the features of every layer, input and output included: ``[784, 100, 100, 10]``.
        block: the words of ``layer_block``. A norm alone is followed by ReLU: "layer" is "layer relu".
        norm: another name of ``block``.
        drop: the probability of dropout.
        bias: whether the hidden linear layers have one; a norm's own bias makes it redundant.

    Raises:
        ValueError: fewer than two sizes, or an unknown word.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must have an input and an output at least, got {sizes!r}")
    block = _with_relu(norm or block)
    modules: list[nn.Module] = [nn.Flatten()]
    for features, out_features in pairwise(sizes[:-1]):
        modules += layer_block(nn.Linear(features, out_features, bias=bias), block, drop)
    return nn.Sequential(*modules, nn.Linear(sizes[-2], sizes[-1]))


def small_cnn(
    block: str = "batch relu", channels: int = 3, width: int = 16, *, norm: str | None = None
) -> nn.Sequential:
    """The source's CNN made narrow, so that comparisons over seeds are cheap.

    Two convolutions of ``width`` and ``2 * width`` channels, each with its ``block``
    (as in ``fc_network``) and a pooling that halves the map; then the mean over 4 x 4
    fields and a linear layer (the source has two linear layers and a norm there).
    It takes (N, channels, H, W) to (N, 10).
    """
    block = _with_relu(norm or block)
    modules: list[nn.Module] = []
    for features, out_channels in pairwise([channels, width, 2 * width]):
        convolution = nn.Conv2d(features, out_channels, 3, padding=1)
        modules += [nn.Sequential(*layer_block(convolution, block)), nn.MaxPool2d(2)]
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2 * width * 16, 10))


def _with_relu(block: str) -> str:
    return f"{block} relu" if block in NORMS else block


@torch.no_grad()
def initialize(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw every linear and convolution weight from N(0, gain² · 2 / fan_in), set their biases to 0; return the model.

    With ``gain=1`` this is the initialization of He et al. 2015 (``torch.nn.init.kaiming_normal_``), under which the
    signal neither grows nor shrinks, in the mean, through layers with ReLU. Torch's default is smaller.

    Raises:
        ValueError: a gain that is not positive.
    """
    if not gain > 0:
        raise ValueError(f"gain must be positive, got {gain}")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu").mul_(gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
