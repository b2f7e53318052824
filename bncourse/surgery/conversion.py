"""Replace the norms of torch by ours and back, and batch norms by other norms."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from bncourse import layers
from bncourse.checks import whole_number
from bncourse.layers.batch import BatchNorm
from bncourse.layers.replace import known_class, replace_layers
from bncourse.surgery.freezing import freeze
from bncourse.surgery.norms import KNOWN, Where, is_frozen, names_of_norms
from bncourse.surgery.report import Report, report
from bncourse.surgery.tracing import has_hooks

__all__ = ["convert_norms", "replace_norms"]

TO_BNCOURSE = {
    getattr(nn, name): getattr(layers, name) for name in layers.__all__ if hasattr(nn, name) and name != "renorm_limits"
}
LIBRARIES = {"bncourse": TO_BNCOURSE, "torch": {ours: theirs for theirs, ours in TO_BNCOURSE.items()}}


def replace_norms(model: nn.Module, to: str) -> Report:
    """Make every norm of ``torch.nn`` in ``model`` the layer of the same name of ``bncourse``, or the other way round.

    They compute the same. Each layer stays the same object, with its parameters, buffers, mode, hooks and names: an
    optimizer made before stays valid. Go back to torch's before an export, quantization or another tool that knows
    layers by their class.

    Args:
        to: "bncourse" or "torch".

    Returns:
        a ``Report``: which layers were replaced, and which norms were left: subclasses, which may do more; norms that
        the other library lacks; norms of third ones.

    Raises:
        ValueError: another ``to``.
    """
    if to not in LIBRARIES:
        raise ValueError(f"to must be 'bncourse' or 'torch', got {to!r}")
    classes = LIBRARIES[to]
    done = Report(f"norms replaced by those of {to}", model)
    for name, module in model.named_modules():
        kind = type(module)
        if kind in classes and "forward" not in vars(module):
            module.__class__ = classes[kind]
            done.changed[name] = kind.__name__
        elif reason := _why_left(module, to):
            done.left[name] = reason
    return done.keep()


def _why_left(module: nn.Module, to: str) -> str | None:
    """Why a norm is not replaced; None if it is not a norm, or already one of ``to``."""
    kind, classes = type(module), LIBRARIES[to]
    if kind in classes.values():
        return None
    if kind in classes:
        return f"{kind.__name__} whose forward was replaced"
    if any(is_lazy(value) for value in module.parameters(recurse=False)) and isinstance(module, (*classes, _NormBase)):
        return f"{kind.__name__}: run the model once first"
    if kind in KNOWN:
        return f"{kind.__name__}, which {to} does not have"
    if isinstance(module, (*classes, *classes.values(), BatchNorm, _NormBase)):
        return f"{kind.__name__}, a subclass that may do more"
    if "norm" in kind.__name__.lower() and not kind.__module__.startswith(("torch.nn.utils", "torch.ao")):
        return f"{kind.__name__}, which is not from torch.nn or bncourse"
    return None


def convert_norms(model: nn.Module, to: str, where: Where | None = None, **options: Any) -> Report:
    """Make every batch norm in ``model`` another norm, with the gamma and beta that it has.

    ============ ============================ ==================================================================
    ``to``       layer                        what it is for
    ============ ============================ ==================================================================
    ``"group"``  ``GroupNorm``                small batches: statistics of one sample
    ``"layer"``  ``GroupNorm`` of one group   the same, over all channels (``LayerNorm``'s statistics)
    ``"frozen"`` ``FrozenBatchNorm``          fine-tuning: the running averages as they are (``freeze``)
    ``"ghost"``  ``GhostBatchNorm``           large batches as several small ones
    ``"renorm"`` ``BatchRenorm``              small batches, corrected towards the running averages
    ``"sync"``   ``SyncBatchNorm``            small batches on many devices
    ============ ============================ ==================================================================

    Group and layer norm do not compute what the batch norm did, and have no running averages: train the model
    before you use it. The others evaluate as before.

    Args:
        where: which batch norms, as for ``freeze``.
        options: of the layer: ``num_groups`` (at most so many, 32 by default: the largest number that divides the
            channels and leaves two in a group), ``ghost_size`` (needed), ``r_max`` and ``d_max``, ``process_group``,
            or ``affine`` of ``freeze``.

    Returns:
        a ``Report``. Its ``model`` is the model, changed in place; the new layer, if the model itself is a batch norm.

    Raises:
        TypeError: an option that the layer does not have.
        ValueError: another ``to``, an option out of its range, no batch norm, or ``where`` chooses none.
    """
    if to == "frozen":
        return report(freeze(model, where=where, **options))
    if to not in ("group", "layer", *BATCH_LAYERS):
        raise ValueError(f"to must be one of 'group', 'layer', 'frozen', 'ghost', 'renorm', 'sync', got {to!r}")
    done = Report(f"batch norms made {to} norms", model)
    norms = names_of_norms(model, where, tracking=False)
    done.left = {name: reason for name, norm in norms.items() if (reason := _why_not_converted(norm, to))}
    norms = {name: norm for name, norm in norms.items() if name not in done.left}
    done.changed = {name: type(norm).__name__ for name, norm in norms.items()}
    if to in BATCH_LAYERS:
        example = BATCH_LAYERS[to](1, **options)  # what such a layer has that another batch norm has not
        for norm in norms.values():
            vars(norm).update({name: value for name, value in vars(example).items() if name in OPTIONS})
            norm.__class__ = BATCH_LAYERS[to]
    else:
        groups = options if to == "group" else {"num_groups": 1, **options}
        new = {norm: _group_norm(norm, **groups) for norm in norms.values()}
        done.model = replace_layers(model, new)
        done.note = "train the model before you use it: it has no running averages any more" if new else ""
    return done.keep()


BATCH_LAYERS: dict[str, type] = {
    "ghost": layers.GhostBatchNorm,
    "renorm": layers.BatchRenorm,
    "sync": layers.SyncBatchNorm,
}
OPTIONS = {"ghost_size", "r_max", "d_max", "process_group"}


def _why_not_converted(norm: nn.Module, to: str) -> str | None:
    kind = type(norm).__name__
    if is_frozen(norm):
        return "frozen: unfreeze it first"
    if any(is_lazy(value) for value in norm.parameters(recurse=False)):
        return f"{kind}: run the model once first"
    if known_class(norm, KNOWN) is None:
        return f"{kind}, which may do more than a batch norm"
    if to in ("group", "layer") and has_hooks(norm):
        return f"{kind} with hooks, which would be lost"
    return None


def _group_norm(norm: nn.Module, num_groups: int = 32) -> layers.GroupNorm:
    """A GroupNorm with the gamma and beta of a batch norm, of at most so many groups, with two channels at least.

    (One channel in a group of an (N, C) input is one value, of which nothing is left.)
    """
    channels, at_most = norm.num_features, whole_number("num_groups", num_groups)
    groups = max(n for n in range(1, max(2, min(at_most, channels // 2) + 1)) if channels % n == 0)
    new = layers.GroupNorm(groups, channels, norm.eps, norm.weight is not None, device="meta")
    new.weight, new.bias = norm.weight, norm.bias
    return new.train(norm.training)
