"""Fold batch norms into the layers before them, and drop the biases that they cancel."""

import warnings
from typing import Any

import torch
from torch import nn

from bncourse.surgery.inputs import Call, call_with
from bncourse.surgery.norms import BATCH_NORMS, copy_of, is_frozen, tracks_statistics
from bncourse.surgery.pairs import fold_pairs
from bncourse.surgery.report import Report
from bncourse.surgery.tracing import traced_pairs
from bncourse.surgery.trial import difference, tried_pairs

__all__ = ["drop_redundant_biases", "fold"]


@torch.no_grad()
def fold(model: nn.Module, example: Any = None, *, call: Call = call_with) -> nn.Module:
    """A copy of ``model`` whose batch norms are folded (fused) into the linear or convolution layer before them.

    In evaluation a batch norm is a fixed scale and shift of each channel, s = gamma / sqrt(variance + eps) and
    beta - s * mean. Both go into the weight and the bias before it; an ``nn.Identity`` takes its place. The output is
    the same up to rounding.

    What stands before a norm is found by running the model on an ``example``, if there is one, else by ``torch.fx``,
    which cannot follow every forward pass and knows the classes of torch and of this package only. A norm stays if
    that is another layer (one that computes its weight, say), if something else reads the layer's output, if either is
    used twice or has hooks, or if it may do more than a batch norm. With an example, the activation that is part of a
    norm is found and stays, and the folded model's output was compared with the model's.

    Args:
        model: with its batch norms in evaluation mode. The copy of a compiled or parallel model is neither.
        example: a batch, as for ``recalibrate``. The model must always go the way that it goes with this one.
        call: how to call the model with it, as for ``recalibrate``.

    Returns:
        the copy; ``report`` of it says what was folded, and why the rest was not.

    Raises:
        TypeError: an example that the model cannot be called with.
        ValueError: a batch norm in training mode, nothing to fold, a forward pass that ``torch.fx`` cannot follow, or a
            model that gives another output every time.

    Warns:
        UserWarning: the output differs by more than 1% of its size, although the folds are right in double precision:
            rounding counts for so much in this model.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS) and module.training:
            raise ValueError(f"model must be in evaluation mode, got {name!r} in training: call model.eval() first")
    folded = copy_of(model)
    pairs, reasons = traced_pairs(folded) if example is None else tried_pairs(folded, example, call)
    done = Report("batch norms folded", folded, left=reasons)
    for name, pair in list(pairs.items()):
        layer, norm = folded.get_submodule(pair.layer), folded.get_submodule(name)
        if isinstance(norm, BATCH_NORMS) and not tracks_statistics(norm):
            done.left[name] = "it keeps no running averages"
            del pairs[name]
        else:
            kinds = [type(folded.get_submodule(part)).__name__ for part in pair.parts]
            rest = "".join(f", its {kind} stays" for kind in kinds if kind != "Identity")
            done.changed[name] = f"{type(norm).__name__} into {type(layer).__name__}{rest}"
    if not pairs:
        why = "; ".join(dict.fromkeys(done.left.values())) or "no batch norm"
        raise ValueError(
            "model must have a linear or convolution layer directly before a batch norm, got none: nothing to fold "
            f"({why})"
        )
    fold_pairs(folded, pairs.values())
    if example is not None:
        off = difference(folded, model, example, call)
        done.note = f"the output differs by {off:.1e} of its size"
        if off > 0.01:
            warnings.warn(
                f"fold: {done.note}: this model multiplies rounding, by a tiny variance for one", stacklevel=2
            )
    return done.keep().model


@torch.no_grad()
def drop_redundant_biases(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without the biases that a batch norm right after them cancels.

    The running mean loses what the bias added, so that the model stays the same in both modes. ``torch.fx`` finds the
    layers, as for ``fold``; a bias before a frozen batch norm stays, which would not cancel it in training. Make the
    optimizer afterwards, for the copy's parameters.

    Returns:
        the copy; ``report`` of it says which biases were dropped, and why others were not.

    Raises:
        ValueError: a forward pass that ``torch.fx`` cannot follow.
    """
    slim = copy_of(model)
    pairs, reasons = traced_pairs(slim)
    done = Report("redundant biases dropped", slim, left=reasons)
    for name, pair in pairs.items():
        layer, norm = slim.get_submodule(pair.layer), slim.get_submodule(name)
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
