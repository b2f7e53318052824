"""The layers that torch has too, each with options and an input: what several test files run over."""

import inspect
from typing import NamedTuple

import pytest
import torch

import bncourse

RECENT = "bias" in inspect.signature(torch.nn.BatchNorm2d).parameters
recent = pytest.mark.skipif(not RECENT, reason="compares with the arguments and messages of a more recent torch")


class Case(NamedTuple):
    """One layer, by name, with constructor arguments and the shape of an input."""

    name: str
    arguments: tuple
    options: dict
    shape: tuple

    def build(self, module=bncourse, dtype=torch.float64, device="cpu"):
        """The layer of ``module``, with weight and bias away from their starting values."""
        layer = getattr(module, self.name)(*self.arguments, **self.options, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in layer.parameters():
                if not parameter.is_meta:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return layer

    def pair(self, dtype=torch.float64):
        """Our layer and torch's, with the same state."""
        return self.build(dtype=dtype), self.build(torch.nn, dtype=dtype)

    def input(self, dtype=torch.float64, seed=0, **options):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.shape, generator=generator, dtype=torch.float64) * 2 + 1
        return x.to(dtype).requires_grad_()

    def __str__(self):
        options = "-".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}{'x'.join(map(str, self.shape))}{'-' if options else ''}{options}"


BATCH = [
    Case("BatchNorm1d", (3,), {}, (8, 3)),
    Case("BatchNorm1d", (3,), {"momentum": None}, (4, 3, 5)),
    Case("BatchNorm2d", (3,), {}, (4, 3, 5, 5)),
    Case("BatchNorm2d", (3,), {"affine": False}, (4, 3, 5, 5)),
    Case("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 2, 2)),
    Case("BatchNorm2d", (3,), {"momentum": 0.8, "eps": 1e-2, "bias": False}, (4, 3, 2, 2)),
    Case("BatchNorm3d", (3,), {"momentum": None}, (2, 3, 2, 3, 3)),
    Case("SyncBatchNorm", (3,), {}, (4, 3, 2, 2)),
]
INSTANCE = [
    Case("InstanceNorm1d", (3,), {}, (4, 3, 5)),
    Case("InstanceNorm1d", (3,), {"affine": True}, (3, 5)),
    Case("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (4, 3, 5, 5)),
    Case("InstanceNorm2d", (3,), {"affine": True, "bias": False}, (3, 5, 5)),
    Case("InstanceNorm3d", (3,), {"track_running_stats": True, "momentum": 0.7}, (2, 3, 2, 3, 3)),
]
SAMPLE = [
    Case("LayerNorm", (6,), {}, (4, 3, 6)),
    Case("LayerNorm", ((3, 6),), {"bias": False}, (4, 2, 3, 6)),
    Case("LayerNorm", ([6],), {"elementwise_affine": False, "eps": 1e-2}, (4, 6)),
    Case("GroupNorm", (2, 6), {}, (4, 6, 3, 3)),
    Case("GroupNorm", (3, 6), {"affine": False}, (4, 6)),
    Case("GroupNorm", (1, 6), {"bias": False}, (2, 6, 5)),
    Case("RMSNorm", (6,), {}, (4, 3, 6)),
    Case("RMSNorm", ((3, 6),), {"eps": 1e-2}, (4, 3, 6)),
    Case("RMSNorm", (6,), {"elementwise_affine": False}, (4, 6)),
]
if not RECENT:  # torch's LayerNorm has had the argument for longer
    BATCH, INSTANCE, SAMPLE = (
        [case for case in cases if "bias" not in case.options or case.name == "LayerNorm"]
        for cases in (BATCH, INSTANCE, SAMPLE)
    )
ALL = BATCH + INSTANCE + SAMPLE
ONE_EACH = [next(case for case in ALL if case.name == name) for name in dict.fromkeys(case.name for case in ALL)]


def gradients(layer, x, dy=None):
    """Output, and the gradients of the input and all parameters."""
    y = layer(x)
    dy = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) if dy is None else dy
    wanted = [t for t in (x, *layer.parameters()) if t.requires_grad]
    return y, torch.autograd.grad(y, wanted, dy)
