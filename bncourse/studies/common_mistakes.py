"""Chapter 10: what weight decay does to weights whose length does not matter."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from bncourse.training import fit

__all__ = ["Run", "train_with_lengths"]


class Run(NamedTuple):
    """What happened to the weight of a layer before a norm.

    Attributes:
        lengths: of each unit's weights, before the first step and after each, (steps + 1, units).
        turns: by how much each step turned them, in radians, (steps, units).
        losses: of each step, in nats, (steps,).
    """

    lengths: Tensor
    turns: Tensor
    losses: Tensor


def train_with_lengths(
    model: nn.Module,
    weight: nn.Parameter,
    train,
    *,
    weight_decay: float = 0.0,
    lengths: Tensor | None = None,
    **options,
) -> Run:
    """Train ``model`` by plain SGD, and record what happens to ``weight`` (units, in), one of its parameters.

    Args:
        weight_decay: of ``weight`` alone.
        lengths: those of another run: after each step every unit's weights are brought to its length.
        options: further arguments of ``fit``.
    """

    def sgd(parameters, lr):
        others = [parameter for parameter in parameters if parameter is not weight]
        return torch.optim.SGD([{"params": [weight], "weight_decay": weight_decay}, {"params": others}], lr=lr)

    before = weight.detach().clone()
    seen, turns = [before.norm(dim=1)], []

    @torch.no_grad()
    def note(step: int) -> None:
        if lengths is not None:
            weight.mul_((lengths[step] / weight.norm(dim=1)).unsqueeze(1))
        seen.append(weight.norm(dim=1))
        turns.append(cosine_similarity(weight.double(), before.double(), dim=1).clamp(max=1).acos())
        before.copy_(weight)

    history = fit(model, train, optimizer=sgd, on_step=note, **options)
    return Run(torch.stack(seen), torch.stack(turns), torch.tensor(history.loss))
