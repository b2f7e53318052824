"""Call a model with what a loader gives."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["Call", "call_with", "convert", "described", "tensors_in"]

Call = Callable[[nn.Module, Any], Any]


def call_with(model: nn.Module, batch: Any) -> Any:
    """Call ``model`` with a batch: a tensor, a tuple or list that begins with its inputs, a mapping of its arguments.

    A model takes as many of the tuple's elements as its ``forward`` has arguments without defaults, the first at least;
    the inputs may be packed into the first element. A mapping goes in as keyword arguments where their names are those
    of ``forward``'s, else as it is.

    Raises:
        TypeError: the model cannot be called like that.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    names = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    required = sum(each.default is each.empty for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    args, kwargs = [batch], {}
    while isinstance(args[0], list | tuple) and args[0]:  # (x, y), ((x1, x2), y), ({"x": x}, y)
        args = list(args[0])
    if isinstance(args[0], Mapping):
        if takes_any or names >= args[0].keys():
            args, kwargs = [], dict(args[0])
        else:
            args = args[:1]
    elif isinstance(args[0], Tensor) or not isinstance(batch, list | tuple):
        args = args[: max(1, required)]
    try:
        return model(*args, **kwargs)
    except (TypeError, AttributeError, LookupError) as error:
        raise TypeError(
            f"batches must be inputs of the model (expected a tensor, a tuple that begins with the inputs, or a "
            f"dictionary of forward's arguments), got {described(batch)}, with which it raised "
            f"{type(error).__name__}: {error}. Say how to call it: call=lambda model, batch: ..."
        ) from error


def described(batch: Any) -> str:
    """A batch in a few words, for messages: its type, and its shape, keys or elements."""
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with the keys {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {', '.join(type(each).__name__ for each in batch)}"
    return f"a {type(batch).__name__}"


def convert(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The value with all its tensors changed: in mappings, lists and tuples, named ones too."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: convert(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(convert(each, change) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(convert(each, change) for each in value)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in it, in order: in mappings, lists, tuples and data classes."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
