"""Fold batch norms into the layers before them, and drop the biases that they cancel."""

import torch
from torch import Tensor, nn

from bncourse.layers.replace import replace_layers
from bncourse.standardize import at_least_float32, inverse_std
from bncourse.surgery.norms import BATCH_NORMS, copy_of, is_frozen, tracks_statistics
from bncourse.surgery.pairs import TRANSPOSED, traced_pairs
from bncourse.surgery.report import Report

__all__ = ["drop_redundant_biases", "fold"]


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose batch norms are folded (fused) into the linear or convolution layer before them.

    In evaluation a batch norm is a fixed scale and shift of each channel, s = gamma / sqrt(variance + eps) and
    beta - s * mean. Both go into the weight and the bias before it; an ``nn.Identity`` takes its place. The output is
    the same up to rounding. ``torch.fx`` finds what stands before a norm. A norm stays if that is another layer (one
    that computes its weight, say), if something else reads the layer's output, if either is used twice, if either has
    hooks, or if it may do more than a batch norm.

    Args:
        model: with its batch norms in evaluation mode. A norm after a linear layer must get (N, C). The copy of a
            compiled or parallel model is neither.

    Returns:
        the copy; ``report`` of it says what was folded, and why the rest was not.

    Raises:
        ValueError: a batch norm in training mode, nothing to fold, or a forward pass that ``torch.fx`` cannot follow.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS) and module.training:
            raise ValueError(f"model must be in evaluation mode, got {name!r} in training: call model.eval() first")
    folded = copy_of(model)
    pairs, reasons = traced_pairs(folded)
    done = Report("batch norms folded", folded, left=reasons)
    places = {}
    for name, (layer, norm) in pairs.items():
        if tracks_statistics(norm):
            fold_pair(layer, norm)
            places[norm] = Rows() if isinstance(layer, nn.Linear) else nn.Identity()
            done.changed[name] = f"{type(norm).__name__} into {type(layer).__name__}"
        else:
            done.left[name] = "it keeps no running averages"
    if not places:
        why = "; ".join(dict.fromkeys(done.left.values())) or "no batch norm"
        raise ValueError(
            "model must have a linear or convolution layer directly before a batch norm, got none: nothing to fold "
            f"({why})"
        )
    replace_layers(folded, places)
    return done.keep().model


class Rows(nn.Identity):
    """What stays of a norm that was folded into a linear layer: the channels of such a layer are the last axis."""

    def forward(self, input: Tensor) -> Tensor:
        torch._assert(input.dim() == 2, "input must be (N, C): its norm was folded into a linear layer")
        return input


def fold_pair(layer: nn.Module, norm: nn.Module) -> None:
    """Scale the weight of ``layer`` and shift its bias, so that it does what ``norm`` did to its output."""
    scale, shift = scale_and_shift(norm)
    weight = at_least_float32(layer.weight)
    bias = shift if layer.bias is None else shift + scale * layer.bias
    if isinstance(layer, TRANSPOSED):  # (C_in, C / groups, ...); the output's channels go through the groups in turn
        groups = weight.unflatten(0, (layer.groups, -1))
        scaled = (groups * scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))).flatten(0, 1)
    else:
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    dtype, trained = layer.weight.dtype, layer.weight.requires_grad
    layer.weight = nn.Parameter(scaled.to(dtype), trained)
    layer.bias = nn.Parameter(bias.to(dtype), trained)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What ``norm`` does in evaluation: output = scale * input + shift in each channel."""
    scale = inverse_std(at_least_float32(norm.running_var), getattr(norm, "eps", 1e-5))
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


@torch.no_grad()
def drop_redundant_biases(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without the biases that a batch norm right after them cancels.

    The running mean loses what the bias added, so that the model stays the same in both modes. The layers are found as
    in ``fold``; a bias before a frozen batch norm stays, which would not cancel it in training. Make the optimizer
    afterwards, for the copy's parameters.

    Returns:
        the copy; ``report`` of it says which biases were dropped, and why others were not.

    Raises:
        ValueError: a forward pass that ``torch.fx`` cannot follow.
    """
    slim = copy_of(model)
    pairs, reasons = traced_pairs(slim)
    done = Report("redundant biases dropped", slim, left=reasons)
    for name, (layer, norm) in pairs.items():
        if layer.bias is None:
            done.left[name] = "no bias before it"
        elif is_frozen(norm):
            done.left[name] = "frozen: it does not cancel a bias"
        else:
            if norm.running_mean is not None:
                norm.running_mean -= layer.bias
            layer.bias = None
            done.changed[name] = f"{type(layer).__name__} before {type(norm).__name__}"
    return done.keep().model
