"""Which layers are batch norms, and which of them are known."""

import copy
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bncourse.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm,
    FrozenBatchNorm,
    GhostBatchNorm,
    SyncBatchNorm,
)
from bncourse.layers.batch import BatchNorm
from bncourse.layers.frozen import StaysInEvaluation
from bncourse.layers.replace import replace_layers
from bncourse.standardize import at_least_float32, inverse_std

__all__ = [
    "BATCH_NORMS",
    "Where",
    "copy_of",
    "is_frozen",
    "names_of_norms",
    "plain_model",
    "scale_and_shift",
    "tracks_statistics",
]

BATCH_NORMS = (BatchNorm, nn.modules.batchnorm._BatchNorm)  # ours and torch's, with all subclasses
KNOWN = {
    *(BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm, GhostBatchNorm, BatchRenorm, FrozenBatchNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
}

Where = str | type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool]


def tracks_statistics(module: nn.Module) -> bool:
    return isinstance(module, BATCH_NORMS) and module.running_mean is not None


def is_frozen(module: nn.Module) -> bool:
    return isinstance(module, StaysInEvaluation)


def names_of_norms(model: nn.Module, where: Where | None = None, tracking: bool = True) -> dict[str, nn.Module]:
    """The batch norms, by name; a shared one has one name.

    Args:
        tracking: those with running statistics only.
        where: which of them: in the part of the model with this name, of this class, or those that a function of
            name and module chooses.

    Raises:
        ValueError: there is none, or one that does not know its size yet.
    """
    names = {
        name.replace("_orig_mod.", ""): module
        for name, module in model.named_modules()
        if isinstance(module, BATCH_NORMS) and (tracks_statistics(module) or not tracking)
    }
    if not names:
        raise ValueError(f"model must have a batch norm{' with running statistics' if tracking else ''}, got none")
    if tracking and any(is_lazy(module.running_mean) for module in names.values()):
        raise ValueError("model must know its sizes, got lazy batch norms: run it on a batch first")
    if where is None:
        return names
    chosen = {name: module for name, module in names.items() if _chooses(where, name, module)}
    if not chosen:
        raise ValueError(f"where must choose one of {', '.join(map(repr, names))}, got {where!r}")
    return chosen


def _chooses(where: Where, name: str, module: nn.Module) -> bool:
    if isinstance(where, str):
        return f"{name}.".startswith(f"{where}.")
    if isinstance(where, type | tuple):
        return isinstance(module, where)
    return where(name, module)


def plain_model(model: nn.Module) -> nn.Module:
    """The model itself, out of what ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` put around."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def copy_of(model: nn.Module) -> nn.Module:
    """A copy that is not compiled or parallel, in no part."""
    copied = copy.deepcopy(plain_model(model))
    return replace_layers(copied, {part: plain_model(part) for part in copied.modules()})


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation: output = scale * input + shift, with (C,) each."""
    scale = inverse_std(at_least_float32(norm.running_var), getattr(norm, "eps", 1e-5))
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    scale = scale if weight is None else scale * weight
    shift = -norm.running_mean * scale
    return scale, shift if bias is None else shift + bias
