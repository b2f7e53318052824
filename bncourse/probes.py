"""Look inside a network while it runs: statistics of activations and gradients, layer by layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

__all__ = ["LayerRecord", "record"]


@dataclass
class LayerRecord:
    """What one layer saw; each list has one number for every call.

    Attributes:
        input_mean, input_std: of the layer's input over all its elements.
        output_mean, output_std: of its output.
        gradient_norm: Euclidean norm of the loss's gradient with respect to the output.
    """

    input_mean: list[float] = field(default_factory=list)
    input_std: list[float] = field(default_factory=list)
    output_mean: list[float] = field(default_factory=list)
    output_std: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)


@contextmanager
def record(
    model: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
) -> Iterator[dict[str, LayerRecord]]:
    """Record the layers of the given ``kinds`` in ``model`` until the block ends.

    Yields:
        a ``LayerRecord`` for each layer, by its name in ``model.named_modules()``, in the network's order.

    Raises:
        ValueError: the model has no layer of these kinds.
        TypeError: in the model's forward pass, a layer whose input or output is not one tensor of numbers.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    if not layers:
        raise ValueError(
            f"model has no layer of kinds={kinds}; its layers are {[type(m).__name__ for m in model.modules()]}"
        )
    records = {name: LayerRecord() for name in layers}
    handles = [layer.register_forward_hook(_watch(name, records[name])) for name, layer in layers.items()]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _watch(name: str, seen: LayerRecord):
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        for role, value in (("input", inputs[0] if inputs else None), ("output", output)):
            if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(
                    f"{type(module).__name__} {name!r} has an {role} of {kind}; expected a tensor of floating-point "
                    "numbers, given by position: leave its class out of kinds"
                )
        with torch.no_grad():
            seen.input_mean.append(inputs[0].mean().item())
            seen.input_std.append(inputs[0].std(correction=0).item())
            seen.output_mean.append(output.mean().item())
            seen.output_std.append(output.std(correction=0).item())
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.gradient_norm.append(gradient.norm().item()))

    return hook
