"""Ask a norm itself over which values it takes its statistics."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor, nn

__all__ = ["draw", "partners", "sharing"]


def partners(norm: nn.Module, shape: tuple[int, ...], at: tuple[int, ...] | None = None) -> Tensor:
    """Which values of an input help to normalize the one value at ``at``: bool, of shape ``shape``.

    Those are the values that the output at ``at`` changes with: its derivative with respect to them is not zero.

    Args:
        norm: any layer that keeps its input's shape, in the mode it is in.
        at: the position of the one value; None takes the first.
    """
    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random).requires_grad_()
    (derivative,) = torch.autograd.grad(norm(x)[at or (0,) * len(shape)], x)
    return derivative != 0


def sharing(norm: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """How far the first value's partners reach along each axis of ``shape``: [1, C, H, W] for LayerNorm."""
    mask = partners(norm, shape)
    axes = range(mask.dim())
    return [int(mask.any(dim=[a for a in axes if a != axis]).sum()) for axis in axes]


def draw(axes: Axes, mask: Tensor, colour: str, title: str = "") -> None:
    """Draw ``mask`` (N, C, H, W): samples downwards, channels to the right, each channel a map of H x W squares."""
    tiles = torch.nn.functional.pad(mask.float(), (0, 1, 0, 1), value=torch.nan)  # a gap after each map
    picture = np.concatenate(np.concatenate(tiles.numpy(), axis=1), axis=1)[:-1, :-1]
    axes.pcolormesh(picture[::-1], cmap=ListedColormap(["#E8E8E8", colour]), vmin=0, vmax=1, edgecolors="white", lw=0.5)
    axes.set(xticks=[], yticks=[], aspect="equal", title=title)
    axes.grid(False)
    axes.spines[:].set_visible(False)
