"""Is it the shift? The moving of a layer's inputs, measured, and a BatchNorm whose outputs are made to move.

After Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?", section 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from bncourse.layers import BatchNorm1d

__all__ = ["NoisyBatchNorm1d", "Shift", "add_noise", "track_shift"]


class NoisyBatchNorm1d(BatchNorm1d):
    """BatchNorm followed, in training, by noise whose distribution is drawn anew at every step.

    At every step each unit gets a shift of its own from U(-2, 2) and a scale of its own from U(0.5, 1.5), so the next
    layer's inputs never settle. With ``per_sample`` each sample adds to that a shift from U(-1, 1) and a scale from
    U(0.5, 1.5): then the noise also hides what the sample was. (N, C) to (N, C).
    """

    per_sample = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if not self.training:
            return y
        y = _scale(y[0]) * y + _shift(y[0], 2)
        return _scale(y) * y + _shift(y, 1) if self.per_sample else y


def _scale(like: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(like).uniform_(0.5, 1.5)


def _shift(like: torch.Tensor, reach: float) -> torch.Tensor:
    return torch.empty_like(like).uniform_(-reach, reach)


def add_noise(model: nn.Module, per_sample: bool = False) -> nn.Module:
    """Make every ``BatchNorm1d`` of the model noisy, in place; returns the model."""
    for module in model.modules():
        if type(module) is BatchNorm1d:
            module.__class__ = NoisyBatchNorm1d
            module.per_sample = per_sample
    return model


@dataclass
class Shift:
    """How the inputs of a layer moved; each list has one number for every training step after the first.

    A move is the root mean square, over units, of the change of a unit's batch mean.

    Attributes:
        from_start: the move since the first step, in units of the standard deviation that the inputs had then.
        each_step: the move since the step before, in units of the standard deviation that they had then.
    """

    from_start: list[float] = field(default_factory=list)
    each_step: list[float] = field(default_factory=list)


@contextmanager
def track_shift(layer: nn.Module) -> Iterator[Shift]:
    """Follow the inputs (N, C) of ``layer`` from one training step to the next, until the block ends."""
    shift, seen = Shift(), []

    @torch.no_grad()
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if not module.training:
            return
        mean, std = inputs[0].mean(0), inputs[0].var(0, correction=0).mean().sqrt()
        if seen:
            for moves, (then, scale) in ((shift.from_start, seen[0]), (shift.each_step, seen[-1])):
                moves.append(((mean - then).square().mean().sqrt() / scale).item())
        seen[1:] = [(mean, std)]

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield shift
    finally:
        handle.remove()
