"""Look inside a network while it runs: what enters and leaves its layers, and statistics of it."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Call", "LayerRecord", "as_written", "outputs_of", "record", "watch"]

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


class Call(NamedTuple):
    """One call of a layer: its name in ``model.named_modules()``, the layer, its first input, and its output."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def watch(model: nn.Module, kinds: Kinds, note: Callable[[Call], object]) -> Iterator[None]:
    """Until the block ends, hand ``note`` every call of the layers of these ``kinds``.

    Compiled models run as they were written meanwhile. What activation checkpointing
    computes again in the backward pass is not a call of the model's.

    Raises:
        ValueError: the model has no layer of these kinds, or is compiled by a torch
            older than 2.6.
    """

    def note_call(call: Call) -> None:
        if not _in_backward():
            note(call)

    with _hooked(model, kinds, note_call):
        yield


@contextmanager
def _hooked(model: nn.Module, kinds: Kinds, hook: Callable[[Call], Tensor | None]) -> Iterator[None]:
    """``watch`` with recomputations, and with a ``hook`` that may return another output."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not layers:
        found = sorted({type(module).__name__ for module in model.modules()})
        raise ValueError(f"kinds must be among the model's layers, {', '.join(found)}, got {kinds}")

    def hook_of(name: str):
        def forward_hook(layer: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor | None:
            return hook(Call(name, layer, next(iter((*args, *kwargs.values())), None), output))

        return forward_hook

    with as_written(model):
        handles = [layer.register_forward_hook(hook_of(name), with_kwargs=True) for name, layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def as_written(model: nn.Module):
    """A block in which compiled models run as they were written: a hook registered after compilation would not run.

    Raises:
        ValueError: ``model`` is compiled, and torch is older than 2.6.
    """
    if "torch._dynamo" not in sys.modules:  # nothing is compiled yet; importing it takes seconds
        return nullcontext()
    if hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in model.modules()):
        raise ValueError("model must not be compiled where torch is older than 2.6, got a compiled one")
    return nullcontext()


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


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
        gradient_norm: Euclidean norm of the loss's gradient with respect to the output; NaN for a call that no
            backward pass has reached.
    """

    input_mean: list[float]
    input_std: list[float]
    output_mean: list[float]
    output_std: list[float]
    gradient_norm: list[float]


@contextmanager
def record(model: nn.Module, kinds: Kinds = (nn.Linear, nn.modules.conv._ConvNd)) -> Iterator[dict[str, LayerRecord]]:
    """Record the linear and convolution layers, or other ``kinds``, in this block.

    Compiled models are seen too, see ``watch``.

    Yields:
        a ``LayerRecord`` for each layer, by its name in ``model.named_modules()``, in
        the network's order.

    Raises:
        ValueError: the model has no layer of these kinds.
        TypeError: in the model's forward pass, a layer whose input or output is not one
            tensor of numbers.
    """
    records = {
        name: LayerRecord([], [], [], [], []) for name, module in model.named_modules() if isinstance(module, kinds)
    }
    with _hooked(model, kinds, lambda call: _record(call, records[call.name])):
        yield records


def _record(call: Call, seen: LayerRecord) -> Tensor | None:
    for role, value in (("input", call.input), ("output", call.output)):
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"the {role} of {type(call.layer).__name__} {call.name!r} must be a tensor of floating-point numbers, "
                f"got {kind}: leave its class out of kinds"
            )
    place = _place_again(call, seen) if _in_backward() else _new_place(call, seen)
    if place is None or not call.output.requires_grad:
        return None
    # An in-place activation after a view takes the hook away from it.
    output = call.output.clone() if call.output._is_view() else call.output

    def note_gradient(gradient: Tensor) -> None:
        seen.gradient_norm[place] = _norm(gradient)

    output.register_hook(note_gradient)
    return output


def _new_place(call: Call, seen: LayerRecord) -> int:
    """Note the call; its gradient comes later, and the gradients of a layer's calls come in the opposite order."""
    seen.input_mean.append(call.input.detach().mean().item())
    seen.input_std.append(call.input.detach().std(correction=0).item())
    seen.output_mean.append(call.output.detach().mean().item())
    seen.output_std.append(call.output.detach().std(correction=0).item())
    seen.gradient_norm.append(math.nan)
    return len(seen.gradient_norm) - 1


def _place_again(call: Call, seen: LayerRecord) -> int | None:
    """The call that checkpointing computes again: the last one with this input that has no gradient yet."""
    mean = call.input.detach().mean().item()
    waiting = (i for i, norm in enumerate(seen.gradient_norm) if math.isnan(norm) and seen.input_mean[i] == mean)
    return max(waiting, default=None)


def _norm(gradient: Tensor) -> float:
    """The Euclidean norm, added up in double precision: millions of squares are too many for a single one."""
    if gradient.device.type == "mps":  # which has no double precision
        gradient = gradient.cpu()
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).item()
