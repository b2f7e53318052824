"""Give batch norms the statistics of the data."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bncourse.checks import whole_number
from bncourse.devices import device_of
from bncourse.layers.masked import MaskedBatchNorm1d
from bncourse.layers.sync import all_gather, world_size
from bncourse.probes import as_written
from bncourse.progress import progress as progress_bar
from bncourse.standardize import mean_and_variance, pooled
from bncourse.surgery.inputs import Call, call_with, convert
from bncourse.surgery.norms import is_frozen, names_of_norms, plain_model
from bncourse.surgery.report import Report
from bncourse.training import in_evaluation

__all__ = ["batch_statistics", "recalibrate"]


@torch.no_grad()
def recalibrate(
    model: nn.Module,
    loader: Iterable,
    *,
    call: Call = call_with,
    batches: int | None = None,
    progress: bool = False,
) -> Report:
    """Replace the running averages of every batch norm in ``model`` by the population's mean and variance.

    One pass over the loader's batches: each batch norm normalizes with the batch's own statistics, as in training, and
    the rest of the model (dropout for one) runs as in evaluation. The batches' moments are pooled exactly: the variance
    is the mean of the batches' biased variances plus the variance of their means, weighted by their sizes. The idea is
    PreciseBN (Wu and Johnson 2021, arXiv 2105.07576; ``update_bn_stats`` of fvcore). ``update_bn`` of
    ``torch.optim.swa_utils`` averages the unbiased variances instead, so that it misses the variance between batches,
    and it runs dropout as in training.

    Nothing else changes: parameters, counters, the mode of each module, frozen batch norms. Where several processes
    were started, all must call this, and all get the moments of all batches together.

    Args:
        loader: batches on any device: inputs of the model, tuples that begin with them, as a ``DataLoader`` gives, or
            mappings of the arguments of ``forward``. Take batches as large as memory allows: the inputs of the second
            batch norm depend on the statistics used by the first.
        call: how to call the model with a batch, where that does not do: a function of both.
        batches: how many to take from the loader, which may be endless; None takes all.
        progress: show a bar, where someone looks.

    Returns:
        a ``Report``: which batch norms were recalibrated, which were left, and why.

    Raises:
        TypeError: batches that the model cannot be called with.
        ValueError: no batch norm that tracks statistics and is not frozen, none that the model used, no batches, a
            batch with no or one value per channel, or values that are not finite. The model is then as it was.
    """
    if isinstance(loader, Tensor):
        raise TypeError(f"loader must give batches, expected [x] for one batch x, got a tensor {tuple(loader.shape)}")
    count = None if batches is None else whole_number("batches", batches)
    done = Report("batch norms recalibrated", model)
    layers = names_of_norms(model)
    done.left = {name: "frozen" for name, norm in layers.items() if is_frozen(norm)}
    layers = {name: norm for name, norm in layers.items() if name not in done.left}
    if not layers:
        raise ValueError("model must have a batch norm with running statistics that move, got frozen ones only")
    plain, device, seen = plain_model(model), device_of(model), 0
    total: Any = len(loader) if count is None and isinstance(loader, Sized) else count
    shown = progress_bar(total, "recalibrate", "batch") if progress else nullcontext()
    with (
        in_evaluation(model),
        _left_as_found(layers),
        batch_statistics(layers) as moments,
        as_written(model),
        shown as bar,
    ):
        for batch in islice(loader, count):
            call(plain, convert(batch, lambda tensor: tensor.to(device)))
            seen += 1
            if bar is not None:
                bar.update()
    if world_size() > 1:
        moments = _of_all_processes(layers, moments)
    if not moments:
        raise ValueError(
            "batches must have at least 1 batch, got none"
            if seen == 0
            else "model must use a batch norm in its forward pass, got none that saw a batch"
        )
    for name, norm in layers.items():
        if name in moments:
            mean, variance, values = moments[name]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            done.changed[name] = f"{type(norm).__name__} from {int(values[0])} values a channel"
        else:
            done.left[name] = "not used by the model"
    return done.keep()


@contextmanager
def _left_as_found(layers: dict[str, nn.Module]) -> Iterator[None]:
    """After the block, the layers have the statistics that they had before."""
    statistics = [(norm, norm.running_mean.clone(), norm.running_var.clone()) for norm in layers.values()]
    try:
        yield
    finally:
        for norm, mean, variance in statistics:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


@contextmanager
def batch_statistics(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """In the block, each layer in evaluation normalizes with the statistics of its batch, as in training.

    Its running averages hold them when it is called; whatever else the layer does is unchanged.

    Yields:
        by each layer's name (3, C): the mean, biased variance and count of all values that it has seen.
    """
    moments: dict[str, Tensor] = {}
    waiting: dict[str, list[Tensor]] = defaultdict(list)  # moments of single calls, which are pooled some at a time

    def hook_of(name: str):
        def give_statistics(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            x = args[0] if args else kwargs["input"]
            if isinstance(layer, MaskedBatchNorm1d):
                x = layer.valid(*args, **kwargs)
            values = x.numel() // max(1, x.size(1))
            if values == 0:
                raise ValueError(f"batches must have at least 1 sample each, got one of shape {tuple(x.shape)}")
            if values == 1:
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")
            mean, variance = (each.flatten() for each in mean_and_variance(x, (0, *range(2, x.dim()))))
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)
            waiting[name].append(torch.stack([mean, variance, torch.full_like(mean, values)]))
            if len(waiting[name]) == 32:
                pool(name)

        return give_statistics

    def pool(name: str) -> None:
        parts = torch.stack(waiting.pop(name)).cpu().double()  # there: Apple's MPS has no double precision
        if not parts.isfinite().all():
            raise ValueError(f"batches must lead to finite values, got NaN or infinity in the input of {name!r}")
        moments[name] = _pool(torch.cat([moments[name][None], parts]) if name in moments else parts)

    handles = [
        norm.register_forward_pre_hook(hook_of(name), with_kwargs=True)  # the last: it sees what the layer gets
        for name, norm in layers.items()
    ]
    try:
        yield moments
        for name in list(waiting):
            pool(name)
    finally:
        for handle in handles:
            handle.remove()


def _pool(parts: Tensor) -> Tensor:
    """(3, C) for all values together, from (parts, 3, C)."""
    return torch.stack(pooled(*parts.unbind(1)))


def _of_all_processes(layers: dict[str, nn.Module], moments: dict[str, Tensor]) -> dict[str, Tensor]:
    """The moments of what the layers have seen in all processes together."""
    merged = {}
    for name, norm in layers.items():
        mine = moments.get(name, torch.zeros(3, len(norm.running_mean), dtype=torch.float64))
        merged[name] = _pool(all_gather(mine.to(norm.running_mean.device))).cpu()
    return {name: all_values for name, all_values in merged.items() if all_values[2, 0] > 0}
