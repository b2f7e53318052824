"""Chapter 5: what is in a network, layer by layer."""

import torch
from torch import nn

from bncourse.probes import outputs_of

__all__ = ["layer_table"]


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
