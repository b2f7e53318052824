"""Checks of the norms' arguments, which raise what torch raises."""

import math
import operator

import torch
from torch import Tensor


def check_tensors(function: str, input: Tensor, size: int, **parameters: Tensor | None) -> None:
    """Raise unless ``input`` is of a floating-point type and each parameter has ``size`` elements of a fitting type.

    Parameters have the input's type, or float32 where the input has half precision.
    """
    if input.is_nested:
        raise NotImplementedError(f"{function} does not take nested tensors: pad the sequences, or use layer_norm")
    if not input.is_floating_point():
        raise NotImplementedError(f'"{function}" not implemented for {input.dtype}: expected a floating-point input')
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        if parameter.numel() != size:
            raise RuntimeError(f"{name} should contain {size} elements not {parameter.numel()}")
        fits = parameter.dtype == input.dtype or (
            parameter.dtype == torch.float32 and input.dtype in (torch.float16, torch.bfloat16)
        )
        if not fits:
            raise RuntimeError(
                f"mixed dtype: {function} expected {name} of {input.dtype}, as its input, but got {parameter.dtype}"
            )
        if parameter.device != input.device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {function} got its input on {input.device} and "
                f"{name} on {parameter.device}"
            )


def check_eps(eps: float, training: bool) -> None:
    if training and eps <= 0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")


def check_groups(input: Tensor, num_groups: int, **parameters: Tensor | None) -> None:
    """Raise unless ``input`` is (N, C, ...) with ``num_groups`` dividing C, and parameters are (C,)."""
    if input.dim() < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}")
    channels = input.size(1)
    if num_groups <= 0:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if channels % num_groups != 0:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, "
            f"but got input of shape {list(input.shape)} and num_groups={num_groups}"
        )
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != (channels,):
            raise RuntimeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, "
                f"but got {name} of shape {list(parameter.shape)} and input of shape {list(input.shape)}"
            )
    check_tensors("group_norm", input, channels, **parameters)
    if input.size(0) * (channels // num_groups) * math.prod(input.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}")


def check_normalized_shape(function: str, input: Tensor, shape: tuple[int, ...], **parameters: Tensor | None) -> None:
    """Raise unless ``input`` is (..., *shape) and parameters are of ``shape``."""
    if not shape:
        raise RuntimeError("Expected normalized_shape to be at least 1-dimensional, but got normalized_shape = []")
    if tuple(input.shape[-len(shape) :]) != shape:
        wanted = ", ".join(map(str, shape))
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*, {wanted}], "
            f"but got input of size{list(input.shape)}"
        )
    for name, parameter in parameters.items():
        if parameter is not None and tuple(parameter.shape) != shape:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, "
                f"but got {name} of shape {list(parameter.shape)} and normalized_shape = {list(shape)}"
            )
    check_tensors(function, input, math.prod(shape), **parameters)


def whole_number(name: str, value: int, at_least: int = 1, at_most: int | None = None) -> int:
    """The argument ``name`` as an int; numpy's whole numbers count too.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, got {value}")
    return operator.index(value)
