"""Nine small networks of known kinds, with torch's norms or ours: what a layer's speed means in a whole step.

Each is built with ``norms``, the module that the norms are taken from (``torch.nn`` or ``bncourse``).
"""

from collections.abc import Callable

import torch
from torch import nn


class Residual(nn.Module):
    """x + inside(x), through ``skip`` where the shape changes."""

    def __init__(self, inside: nn.Module, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.inside, self.skip = inside, skip or nn.Identity()

    def forward(self, x):
        return self.skip(x) + self.inside(x)


class Dense(nn.Module):
    """x, and inside(x) beside it as further channels."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return torch.cat([x, self.inside(x)], 1)


class Gated(nn.Module):
    """x times a gate for each channel, made from the channels' means (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.SiLU()),
            *(nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()),
        )

    def forward(self, x):
        return x * self.gate(x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.project, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class Longest(nn.Module):
    """The largest value along the last axis."""

    def forward(self, x):
        return x.amax(-1)


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def block(norms, wide: int, out: int, stride: int = 1, groups: int = 1, act=nn.ReLU, kernel: int = 3) -> list:
    conv = nn.Conv2d(wide, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, norms.BatchNorm2d(out), act()]


def resnet(norms, norm: Callable | None = None) -> nn.Module:
    norm = norm or norms.BatchNorm2d
    layers, wide = [nn.Conv2d(3, 32, 3, padding=1, bias=False), norm(32), nn.ReLU()], 32
    for out, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        inside = nn.Sequential(
            *(nn.Conv2d(wide, out, 3, stride, 1, bias=False), norm(out), nn.ReLU()),
            *(nn.Conv2d(out, out, 3, padding=1, bias=False), norm(out)),
        )
        same = stride == 1 and wide == out
        skip = None if same else nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), norm(out))
        layers += [Residual(inside, skip), nn.ReLU()]
        wide = out
    return nn.Sequential(*layers, *head(wide))


def group_resnet(norms) -> nn.Module:
    return resnet(norms, lambda channels: norms.GroupNorm(16, channels))


def mobilenet(norms, act=nn.ReLU6, gated: bool = False) -> nn.Module:
    layers, wide = block(norms, 3, 16, 2, act=act), 16
    for out, stride in ((24, 1), (24, 1), (40, 2), (40, 1), (40, 1), (80, 2), (80, 1), (80, 1), (160, 2), (160, 1)):
        inner = 4 * wide
        inside = [*block(norms, wide, inner, act=act, kernel=1), *block(norms, inner, inner, stride, inner, act)]
        inside += [Gated(inner)] if gated else []
        inside = nn.Sequential(*inside, nn.Conv2d(inner, out, 1, bias=False), norms.BatchNorm2d(out))
        layers.append(Residual(inside) if stride == 1 and wide == out else inside)
        wide = out
    return nn.Sequential(*layers, *block(norms, wide, 640, act=act, kernel=1), *head(640))


def efficientnet(norms) -> nn.Module:
    return mobilenet(norms, nn.SiLU, gated=True)


def densenet(norms) -> nn.Module:
    layers, wide = block(norms, 3, 32), 32
    for stage in range(3):
        for _ in range(8):
            narrow = [norms.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, 64, 1, bias=False)]
            spread = [norms.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 16, 3, padding=1, bias=False)]
            layers.append(Dense(nn.Sequential(*narrow, *spread)))
            wide += 16
        if stage < 2:
            layers += [norms.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, wide // 2, 1), nn.AvgPool2d(2)]
            wide //= 2
    return nn.Sequential(*layers, norms.BatchNorm2d(wide), nn.ReLU(), *head(wide))


def unet3d(norms) -> nn.Module:
    """Two levels down and up, for volumes; instance norms."""

    def double(wide: int, out: int) -> list[nn.Module]:
        convs = [nn.Conv3d(wide, out, 3, padding=1), nn.Conv3d(out, out, 3, padding=1)]
        return [layer for conv in convs for layer in (conv, norms.InstanceNorm3d(out, affine=True), nn.LeakyReLU())]

    deep = nn.Sequential(nn.MaxPool3d(2), *double(16, 32), nn.ConvTranspose3d(32, 16, 2, 2))
    return nn.Sequential(*double(1, 16), Dense(deep), *double(32, 16), nn.Conv3d(16, 3, 1))


def transformer(norm: Callable, act=nn.GELU, width: int = 256, heads: int = 4, depth: int = 4) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(Residual(nn.Sequential(norm(width), Attention(width, heads))))
        mlp = nn.Linear(width, 4 * width), act(), nn.Linear(4 * width, width)
        layers.append(Residual(nn.Sequential(norm(width), *mlp)))
    return nn.Sequential(*layers, norm(width), nn.Linear(width, 10))


def bert(norms) -> nn.Module:
    return transformer(norms.LayerNorm)


def llama(norms) -> nn.Module:
    return transformer(norms.RMSNorm, nn.SiLU)


def pointnet(norms) -> nn.Module:
    def shared(wide: int, out: int) -> list[nn.Module]:
        return [nn.Conv1d(wide, out, 1), norms.BatchNorm1d(out), nn.ReLU()]

    points = [*shared(3, 64), *shared(64, 128), *shared(128, 512), Longest()]
    return nn.Sequential(*points, nn.Linear(512, 128), norms.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))


IMAGES = (16, 3, 64, 64)
NETWORKS = {  # how it is built, its input
    "ResNet": (resnet, IMAGES),
    "MobileNet": (mobilenet, IMAGES),
    "EfficientNet": (efficientnet, IMAGES),
    "DenseNet": (densenet, (8, 3, 64, 64)),
    "ResNet, group norm": (group_resnet, IMAGES),
    "U-Net 3d, instance norm": (unet3d, (2, 1, 32, 32, 32)),
    "BERT": (bert, (8, 128, 256)),
    "Llama": (llama, (8, 128, 256)),
    "PointNet": (pointnet, (64, 3, 256)),
}
