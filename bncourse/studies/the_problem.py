"""Chapter 1: is it the shift, or a smoother landscape?

After Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?": how far a layer's inputs move while the
network trains, a BatchNorm whose outputs are made to move (section 2), and a walk along the gradient (figure 4).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from bncourse.layers import BatchNorm1d
from bncourse.probes import Call, watch

__all__ = ["NoisyBatchNorm1d", "Shift", "add_noise", "track_shift", "walk_along_gradient"]


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
    return torch.empty_like(like, device="cpu").uniform_(0.5, 1.5).to(like.device)


def _shift(like: torch.Tensor, reach: float) -> torch.Tensor:
    return torch.empty_like(like, device="cpu").uniform_(-reach, reach).to(like.device)


def add_noise(model: nn.Module, per_sample: bool = False) -> nn.Module:
    """Make every ``BatchNorm1d`` of the model noisy, in place; returns the model."""
    for module in model.modules():
        if type(module) is BatchNorm1d:
            module.__class__ = NoisyBatchNorm1d
            module.per_sample = per_sample
    return model


class Shift(NamedTuple):
    """How the inputs of a layer moved; each list has one number for every training step after the first.

    A move is the root mean square, over units, of the change of a unit's batch mean.

    Attributes:
        from_start: the move since the first step, in units of the standard deviation that the inputs had then.
        each_step: the move since the step before, in units of the standard deviation that they had then.
    """

    from_start: list[float]
    each_step: list[float]


@contextmanager
def track_shift(layer: nn.Module) -> Iterator[Shift]:
    """Follow the inputs (N, C) of ``layer`` from one training step to the next, until the block ends."""
    shift, seen = Shift([], []), []

    @torch.no_grad()
    def note(call: Call) -> None:
        if not layer.training:
            return
        mean, std = call.input.mean(0), call.input.var(0, correction=0).mean().sqrt()
        if seen:
            for moves, (then, scale) in ((shift.from_start, seen[0]), (shift.each_step, seen[-1])):
                moves.append(((mean - then).square().mean().sqrt() / scale).item())
        seen[1:] = [(mean, std)]

    with watch(layer, type(layer), note):
        yield shift


def walk_along_gradient(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, step_sizes: list[float]
) -> tuple[list[float], list[float]]:
    """The loss, and the gradient's relative change, after one step of each size; the model stays as it is.

    Args:
        images, labels: one batch, (N, ...) and (N,); the model runs in training mode.
        step_sizes: learning rates; each step starts at the model's present weights.

    Returns:
        the loss after each step, in nats, and ||gradient after - gradient before|| / ||gradient before||.
    """
    losses, changes = [], []
    _, before = _loss_and_gradient(model, images, labels)
    for size in step_sizes:
        loss, after = _loss_and_gradient(model, images, labels, before, size)
        losses.append(loss)
        changes.append(((after - before).norm() / before.norm()).item())
    return losses, changes


def _loss_and_gradient(model, images, labels, direction=0.0, size: float = 0.0) -> tuple[float, torch.Tensor]:
    walker = copy.deepcopy(model).train()
    parameters = list(walker.parameters())
    flat = nn.utils.parameters_to_vector(parameters).detach()
    nn.utils.vector_to_parameters(flat - size * direction, parameters)
    loss = functional.cross_entropy(walker(images), labels)
    gradients = torch.autograd.grad(loss, parameters)
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])
