"""Ask a norm itself over which values it takes its statistics."""

import torch
from torch import Tensor, nn

__all__ = ["partners", "sharing"]


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
