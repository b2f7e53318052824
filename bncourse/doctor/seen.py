"""What the norms of a model see in forward passes: the moments of their inputs, and where these came from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bncourse.doctor.norms import kind_of, named
from bncourse.standardize import at_least_float32
from bncourse.surgery.inputs import tensors_in

__all__ = ["Call", "Moments", "Seen", "distance", "moments_of", "pooled", "seeing"]

FEATURES_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention)
SAMPLES = 512  # rows whose means are kept apart, at most


class Moments(NamedTuple):
    """Of one layer's inputs: mean, variance, and the squared standard error of the mean, (C,) each, in double."""

    mean: Tensor
    variance: Tensor
    error: Tensor
    samples: int


class Call(NamedTuple):
    """One call of a norm.

    Attributes:
        kind: "batch", "instance", "group" or "layer".
        shape: of the input.
        values: how many values each mean is taken over.
        uses_batch: whether it normalizes with the statistics of the batch.
        finite: whether all of the input is.
        means, variances: (samples, C): of each sample, or of some at a time; None for norms without channels.
        features_from: the class of the layer before it that keeps features on the last axis of a 3-D input; "".
        padding: the share of positions that are padding.
    """

    kind: str
    shape: torch.Size
    values: int
    uses_batch: bool
    finite: bool
    means: Tensor | None
    variances: Tensor | None
    features_from: str
    padding: float


class Seen:
    """All calls of a model's norms, by name, in the order of their first calls.

    ``functional`` has the calls of ``torch.nn.functional.batch_norm`` outside a batch norm: their ``training``, and
    whether mean and variance are those of a new layer.
    """

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}
        self.functional: list[tuple[bool, bool]] = []

    def of_kind(self, *kinds: str) -> dict[str, list[Call]]:
        return {name: calls for name, calls in self.calls.items() if calls[0].kind in kinds}


@contextmanager
def seeing(model: nn.Module) -> Iterator[Seen]:
    """Until the block ends, note what the norms of ``model`` get."""
    seen = Seen()
    producers: dict[torch.Size, str] = {}  # the class of the last layer whose output had this shape
    inside: list[nn.Module] = []
    handles = []

    def called(name: str, norm: nn.Module, args: tuple, kwargs: dict) -> None:
        inside.append(norm)
        x = next(iter((*args, *kwargs.values())), None)
        if isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 2 and x.numel():
            producer = producers.get(x.shape, "") if x.dim() == 3 else ""
            if producer and x.size(1) == x.size(2) and not x.is_contiguous():
                producer = ""  # it was transposed
            masked = len(args) + len(kwargs) > 1
            seen.calls.setdefault(name, []).append(_call(norm, x.detach(), producer, masked))

    def returned(norm: nn.Module, args: tuple, output: Any) -> None:
        inside.pop()

    def produced(layer: nn.Module, args: tuple, output: Any) -> None:
        for each in tensors_in(output)[:1]:
            if each.dim() == 3:
                producers[each.shape] = type(layer).__name__ if isinstance(layer, FEATURES_LAST) else ""

    class SeeFunctional(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is functional.batch_norm and not inside:
                names = ("input", "running_mean", "running_var", "weight", "bias", "training")
                given = dict(zip(names, args, strict=False)) | (kwargs or {})
                mean, var = given.get("running_mean"), given.get("running_var")
                new = mean is not None and var is not None and bool((mean == 0).all() and (var == 1).all())
                seen.functional.append((bool(given.get("training", False)), new))
            return func(*args, **(kwargs or {}))

    try:
        for name, module in named(model):
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it runs no hooks
            if kind_of(module) is not None or "LazyBatchNorm" in type(module).__name__:
                hook = _with_name(called, name)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
                handles.append(module.register_forward_hook(returned, always_call=True))
            if isinstance(module, (*FEATURES_LAST, nn.Conv1d)):
                handles.append(module.register_forward_hook(produced))
        with SeeFunctional():
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _with_name(function, name: str):
    return lambda module, args, kwargs: function(name, module, args, kwargs)


def _call(norm: nn.Module, x: Tensor, producer: str, masked: bool) -> Call:
    kind = kind_of(norm) or "batch"
    per_channel = x.numel() // x.size(1)
    values, uses_batch, means, variances = per_channel, False, None, None
    if kind == "batch":
        uses_batch = norm.training or getattr(norm, "running_mean", None) is None
        ghost = getattr(norm, "ghost_size", None)
        if ghost and uses_batch and len(x) > ghost:
            values = per_channel * (len(x) // -(-len(x) // ghost)) // len(x)
    elif kind == "instance":
        values = x[0].numel() if x.dim() == norm._get_no_batch_dim() else x[0, 0].numel()
    elif kind == "group":
        values = x[0].numel() // norm.num_groups
    else:
        values = x[0].numel() if x.dim() == 1 else torch.Size(norm.normalized_shape).numel()
    if kind == "batch":
        means, variances = by_sample(x)
        finite = bool(torch.isfinite(means).all())  # one value that is not spoils its mean
        means, variances = (means, variances) if finite else (None, None)
    else:
        finite = bool(torch.isfinite(x.float().sum()))
    padding = _padding(x) if kind == "batch" and not masked else 0.0
    return Call(kind, x.shape, values, uses_batch, finite, means, variances, producer, padding)


def by_sample(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel in each sample, (N, C); where there are many, of some samples at a time."""
    rows = at_least_float32(x)
    rows = rows.flatten(2) if x.dim() > 2 else rows.unsqueeze(-1)
    if len(rows) > SAMPLES and x.dim() == 2:
        size = len(rows) // SAMPLES
        rows = rows[: size * SAMPLES].reshape(SAMPLES, size, -1).movedim(1, -1)
    variances, means = (each.cpu().double() for each in torch.var_mean(rows[:SAMPLES], dim=2, correction=0))
    return means, variances


def moments_of(*inputs: Tensor) -> Moments:
    """The moments of all these inputs together."""
    return _together(*(torch.cat(parts) for parts in zip(*map(by_sample, inputs), strict=True)))


def _together(means: Tensor, variances: Tensor) -> Moments:
    """Of all values, from the moments of each sample, (N, C)."""
    between = means.var(0, correction=0)
    return Moments(means.mean(0), variances.mean(0) + between, between / max(1, len(means) - 1), len(means))


def _padding(x: Tensor) -> float:
    """The share of positions of sequences (N, C, L) that are padding: constant ends, of other lengths in each."""
    if x.dim() != 3 or x.size(2) < 4 or len(x) < 2:
        return 0.0
    same = (x == x[:, :, -1:]).all(dim=1)  # (N, L): positions that are as the last one is
    runs = same.flip(1).int().cumprod(1).sum(1)  # the last one among them
    padded = torch.where(runs > 1, runs, 0)
    lengths = (x.size(2) - padded).unique()
    return float(padded.sum() / same.numel()) if len(lengths) > 1 else 0.0


def pooled(calls: list[Call]) -> Moments | None:
    """The moments of all these calls' inputs together; None where they are not known."""
    known = [call for call in calls if call.means is not None]
    if not known or len({call.means.size(1) for call in known}) > 1:
        return None
    return _together(*(torch.cat([getattr(call, name) for call in known]) for name in ("means", "variances")))


def distance(one: Moments, other: Moments) -> float:
    """How far the means are apart, in standard deviations (root mean square), without what chance explains."""
    square = (one.mean - other.mean).square() - one.error - other.error
    spread = (one.variance + other.variance) / 2 + 1e-12
    return (square / spread).clamp(max=1e6).mean().clamp(min=0).nan_to_num(0).sqrt().item()
