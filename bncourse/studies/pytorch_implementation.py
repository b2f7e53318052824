"""Chapter 5: what is in a network, layer by layer, and how fast a running mean settles."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bncourse.experiments import Runs
from bncourse.layers import BatchNorm1d
from bncourse.probes import outputs_of

__all__ = ["distances_to_truth", "layer_table"]


@torch.no_grad()
def layer_table(model: nn.Module, x: torch.Tensor) -> str:
    """A Markdown table of the model's layers: the shape of what each computes for the input ``x``, and what it holds.

    Parameters are what the optimizer changes; buffers are what else is saved with the model.
    """
    rows = ["| layer | output | parameters | buffers |", "|---|---|---|---|"]
    training = model.training
    with outputs_of(model) as calls:
        model.eval()(x)
    model.train(training)
    for layer, output in ((call.layer, call.output) for call in calls if not list(call.layer.children())):
        shape = " × ".join(map(str, output.shape))
        rows.append(f"| {type(layer).__name__} | {shape} | {_count(layer.parameters())} | {_count(layer.buffers())} |")
    return "\n".join([*rows, f"| **all** | | **{_count(model.parameters())}** | **{_count(model.buffers())}** |"])


def _count(tensors) -> str:
    return f"{sum(tensor.numel() for tensor in tensors):,}"


@torch.no_grad()
def distances_to_truth(
    steps: Sequence[int], momenta: Iterable[float | None], seeds: Sequence[int], features: int = 100
) -> dict[float | None, Runs]:
    """How far the running mean is from the true mean 1, after so many batches of 32.

    The root mean square over the features, (seeds, steps). One layer for each momentum
    has the features of all seeds side by side.
    """
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers = {m: BatchNorm1d(features * len(seeds), momentum=m, affine=False) for m in momenta}
    found: dict[float | None, list] = {m: [] for m in layers}
    for step in range(1, max(steps) + 1):
        batch = torch.cat([1 + torch.randn(32, features, generator=draw) for draw in draws], dim=1)
        for m, layer in layers.items():
            layer(batch)
            if step in steps:
                errors = (layer.running_mean - 1).unflatten(0, (-1, features))
                found[m].append(errors.square().mean(1).sqrt())
    return {m: Runs(torch.stack(errors, dim=1).numpy(), seeds) for m, errors in found.items()}
