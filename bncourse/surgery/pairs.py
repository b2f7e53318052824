"""A layer and the batch norm after it: what folding the second into the first is."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from bncourse.layers.replace import replace_layers
from bncourse.standardize import at_least_float32
from bncourse.surgery.norms import scale_and_shift

__all__ = ["Pair", "fold_pairs"]


class Pair(NamedTuple):
    """A linear or convolution layer whose output a batch norm reads, and nothing else, by their names in a model.

    ``transposed`` and ``groups`` are those of the convolution; ``parts`` names what the norm does after normalizing.
    """

    layer: str
    norm: str
    transposed: bool = False
    groups: int = 1
    parts: tuple[str, ...] = ()


@torch.no_grad()
def fold_pairs(model: nn.Module, pairs: Iterable[Pair]) -> nn.Module:
    """Scale each layer's weight and shift its bias, so that it does what its norm did.

    In the norm's place stand its parts, if it has any (an activation), else an
    ``nn.Identity``.
    """
    places = {}
    for pair in pairs:
        layer, norm = model.get_submodule(pair.layer), model.get_submodule(pair.norm)
        scale, shift = scale_and_shift(norm)
        weight = at_least_float32(layer.weight)
        bias = shift if layer.bias is None else shift + scale * layer.bias
        if pair.transposed:
            # (C_in, C / groups, ...): the output's channels, group after group
            in_groups = weight.unflatten(0, (pair.groups, -1))
            scaled = (in_groups * scale.view(pair.groups, 1, -1, *[1] * (weight.dim() - 2))).flatten(0, 1)
        else:
            scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        dtype, trained = layer.weight.dtype, layer.weight.requires_grad
        layer.weight = nn.Parameter(scaled.to(dtype), trained)
        layer.bias = nn.Parameter(bias.to(dtype), trained)
        places[norm] = _rest(model, pair, isinstance(layer, nn.Linear)).train(norm.training)
    return replace_layers(model, places)


def _rest(model: nn.Module, pair: Pair, linear: bool) -> nn.Module:
    rest = nn.Sequential()
    if linear:
        rest.append(Rows())
    for name in pair.parts:
        rest.add_module(name.rpartition(".")[2], model.get_submodule(name))
    return rest if len(rest) > 1 else rest[0] if len(rest) else nn.Identity()


class Rows(nn.Identity):
    """What stays of a norm that was folded into a linear layer: the channels of such a layer are the last axis."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        torch._assert(input.dim() == 2, "input must be (N, C): its norm was folded into a linear layer")
        return input
