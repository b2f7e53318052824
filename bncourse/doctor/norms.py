"""The norms of a model, of whatever library, and what their statistics tell of their past."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from bncourse.surgery.norms import BATCH_NORMS, is_frozen
from bncourse.surgery.watching import has_statistics

__all__ = [
    "affine_moved",
    "batch_norms",
    "batches_counted",
    "frozen",
    "hidden_norms",
    "initial",
    "initial_share",
    "kind_of",
    "named",
    "norm_parameters",
    "tracks",
]


def named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by name, without what ``torch.compile`` puts into the names."""
    for name, module in model.named_modules():
        yield name.replace("_orig_mod.", ""), module


def kind_of(module: nn.Module) -> str | None:
    """ "batch", "instance", "group" or "layer"; None for what is not a norm, or has no values yet (lazy, meta)."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if any(is_lazy(value) or value.is_meta for value in own):
        return None
    if isinstance(module, _InstanceNorm):
        return "instance"
    if isinstance(module, nn.GroupNorm):
        return "group"
    if isinstance(module, nn.LayerNorm) or type(module).__name__ in ("RMSNorm", "LayerNorm"):
        return "layer" if isinstance(getattr(module, "normalized_shape", None), tuple | torch.Size) else None
    if isinstance(module, BATCH_NORMS) or has_statistics(module):
        return "batch"
    return None


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norms by name, those of other libraries too; a shared one has one name."""
    return {name: module for name, module in named(model) if kind_of(module) == "batch"}


def tracks(norm: nn.Module) -> bool:
    return isinstance(getattr(norm, "running_mean", None), Tensor)


def frozen(norm: nn.Module) -> bool:
    """Whether its class keeps it in evaluation: ours, or one whose gamma is a buffer (torchvision, detectron2)."""
    return is_frozen(norm) or "weight" in norm._buffers or "Frozen" in type(norm).__name__


def norm_parameters(norm: nn.Module) -> list[nn.Parameter]:
    return [value for name in ("weight", "bias") if isinstance(value := getattr(norm, name, None), nn.Parameter)]


def initial(norm: nn.Module) -> bool:
    """Whether its statistics are those of a new layer: mean 0 and variance 1 in every channel."""
    return tracks(norm) and bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())


def affine_moved(norm: nn.Module) -> bool:
    """Whether gamma and beta have been trained: beta starts as a constant, gamma as 1, or at random near it.

    Where a quarter of all gammas is negative they were drawn around 0, and beta with them: training hardly does that.
    """
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if isinstance(weight, Tensor) and weight.numel() > 1 and float((weight < 0).float().mean()) > 0.25:
        return False
    last = weight if bias is None else bias
    return isinstance(last, Tensor) and last.numel() > 1 and bool((last != last.flatten()[0]).any())


def batches_counted(norm: nn.Module) -> int | None:
    """How many batches have moved its statistics; None if it does not count."""
    count = getattr(norm, "num_batches_tracked", None)
    return int(count) if isinstance(count, Tensor) and count.numel() == 1 and bool(torch.isfinite(count)) else None


def initial_share(norm: nn.Module) -> float:
    """The share of a new layer's values, mean 0 and variance 1, that is left in its statistics; 0 if it is unknown.

    After n batches (1 - momentum)^n of the initial variance is left, at least: a channel with less shows that the
    statistics did not start from those values.
    """
    count, momentum = batches_counted(norm), getattr(norm, "momentum", None)
    if not count or momentum is None or not tracks(norm):
        return 0.0
    share = (1 - momentum) ** count
    return share if bool((norm.running_var >= 0.999 * share).all()) else 0.0


def hidden_norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Norms in lists and dictionaries, which torch does not look into, by a name such as "blocks[2]"."""
    known = set(model.modules())

    def inside(value: object, name: str) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(value, nn.Module):
            if value not in known:
                for inner, module in value.named_modules():
                    if kind_of(module):
                        yield f"{name}.{inner}".rstrip("."), module
        elif isinstance(value, list | tuple):
            for index, each in enumerate(value[:1000]):
                yield from inside(each, f"{name}[{index}]")
        elif isinstance(value, dict):
            for key, each in list(value.items())[:1000]:
                yield from inside(each, f"{name}[{key!r}]")

    for name, module in named(model):
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") and isinstance(value, list | tuple | dict):
                yield from inside(value, f"{name}.{attribute}".lstrip("."))
