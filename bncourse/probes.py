"""Look inside a network while it runs: what enters and leaves its layers, and statistics of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Call", "LayerRecord", "outputs_of", "record", "watch"]

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


class Call(NamedTuple):
    """One call of a layer: its name in ``model.named_modules()``, the layer, its first input, and its output."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def watch(model: nn.Module, kinds: Kinds, note: Callable[[Call], object]) -> Iterator[None]:
    """Until the block ends, hand ``note`` every call of the layers of the given ``kinds`` in ``model``.

    Raises:
        ValueError: the model has no layer of these kinds.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not layers:
        found = sorted({type(module).__name__ for module in model.modules()})
        raise ValueError(f"kinds must be among the model's layers, {', '.join(found)}, got {kinds}")

    def hook_of(name: str):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            note(Call(name, layer, inputs[0] if inputs else None, output))

        return hook

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_of(model: nn.Module, kinds: Kinds = nn.Module) -> Iterator[list[Call]]:
    """Keep every call of the layers of the given ``kinds`` in ``model``: a list in the order of the calls.

    ``watch`` is for many calls, of which something small is to be kept.
    """
    calls: list[Call] = []
    with watch(model, kinds, calls.append):
        yield calls


class LayerRecord(NamedTuple):
    """What one layer saw; each list has one number for every call.

    Attributes:
        input_mean, input_std: of the layer's input over all its elements.
        output_mean, output_std: of its output.
        gradient_norm: Euclidean norm of the loss's gradient with respect to the output.
    """

    input_mean: list[float]
    input_std: list[float]
    output_mean: list[float]
    output_std: list[float]
    gradient_norm: list[float]


@contextmanager
def record(model: nn.Module, kinds: Kinds = (nn.Linear, nn.Conv2d)) -> Iterator[dict[str, LayerRecord]]:
    """Record the layers of the given ``kinds`` in ``model`` until the block ends.

    Yields:
        a ``LayerRecord`` for each layer, by its name in ``model.named_modules()``, in the network's order.

    Raises:
        ValueError: the model has no layer of these kinds.
        TypeError: in the model's forward pass, a layer whose input or output is not one tensor of numbers.
    """
    records = {
        name: LayerRecord([], [], [], [], []) for name, module in model.named_modules() if isinstance(module, kinds)
    }
    with watch(model, kinds, lambda call: _record(call, records[call.name])):
        yield records


def _record(call: Call, seen: LayerRecord) -> None:
    for role, value in (("input", call.input), ("output", call.output)):
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"the {role} of {type(call.layer).__name__} {call.name!r} must be a tensor of floating-point numbers, "
                f"got {kind}: leave its class out of kinds"
            )
    seen.input_mean.append(call.input.detach().mean().item())
    seen.input_std.append(call.input.detach().std(correction=0).item())
    seen.output_mean.append(call.output.detach().mean().item())
    seen.output_std.append(call.output.detach().std(correction=0).item())
    if call.output.requires_grad:
        call.output.register_hook(lambda gradient: seen.gradient_norm.append(gradient.norm().item()))
