"""The two formulas of ``standardize.py``, forward and backward, in place: on any device, with torch's operations.

The input is centred once, and everything else happens in that buffer. On a CPU compiled loops do the same in fewer ways
through memory (``cpu.py``), where they are at hand.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bncourse import cpu
from bncourse.cpu import precision_for

ROW = 4096  # values that float32 adds up one by one without losing more than the last digit


def forward(x, dims, weight, bias, eps, *, statistics, center) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance, as ``formula``.

    The buffer holds x less a pivot, the mean of a quarter of the values: large offsets
    are gone before anything is added up. What is missing from the pivot to the mean is
    corrected at the end. (Its square is at most four variances, so that little is lost
    where it is taken from the mean square.)
    """
    if layout := cpu.layout(x, dims, center, bool(statistics), weight, bias, *(statistics or ())):
        return cpu.forward(layout, x, dims, weight, bias, eps, statistics=statistics, center=center)
    values = x.to(precision_for(x))
    buffer = torch.empty_like(values)
    if statistics:
        return scaled(values, *statistics, weight, bias, eps, buffer).to(x.dtype), *statistics
    if center:
        pivot = mean_over(values.narrow(dims[0], 0, -(-x.size(dims[0]) // 4)), dims)
        values = torch.sub(values, pivot, out=buffer)
        rest = mean_over(values, dims)
        variance = mean_square(values, dims).addcmul_(rest, rest, value=-1).clamp_(min=0)
        mean = pivot + rest
    else:
        mean, rest, variance = values.new_zeros(()), values.new_zeros(()), mean_square(values, dims)
    if weight is None or full_rank(weight, x.dim()).shape[-1] == 1 or x.dim() - 1 not in dims:
        return scaled(values, rest, variance, weight, bias, eps, buffer).to(x.dtype), mean, variance
    # layer norm: many weights in a row
    scaled(values, rest, variance, None, None, eps, buffer)
    return scale_and_shift(buffer, weight, bias, buffer).to(x.dtype), mean, variance


def scaled(x, mean, variance, weight, bias, eps, out) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias for known numbers: one multiplication and one addition."""
    scale = (variance.to(x.dtype) + eps).rsqrt_()
    if weight is not None:
        scale = scale * weight
    shift = mean.to(x.dtype) * -scale if bias is None else torch.addcmul(bias.to(x.dtype), mean, scale, value=-1)
    return scale_and_shift(x, scale, shift, out)


def backward(dy, x, dims, weight, eps, *, statistics, given, center) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx, dweight and dbias, as ``formula_backward``.

    With s = weight / std, the same formula reads dx = s dy - x_hat mean(s dy x_hat) - mean(s dy). The means in it, and
    dweight and dbias, are all made from the sums of dy x_hat and dy over the axes along which one weight serves many
    values. (Batch norm of (N, C, H, W): N, H and W are ``inside``. Layer norm of (N, F): N is ``outside``, F
    ``remaining``.)
    """
    if layout := cpu.layout(x, dims, center, given, weight, dy, *statistics):
        return cpu.backward(layout, dy, x, weight, eps, statistics=statistics, given=given, center=center)
    mean, variance = statistics
    precision, gamma = precision_for(x), full_rank(weight, x.dim())
    values, dy = x.to(precision), dy.to(precision)
    shared = [d for d in range(x.dim()) if gamma is None or gamma.shape[d] == 1]
    inside = [d for d in shared if d in dims]
    outside = [d for d in shared if d not in dims]
    remaining = [d for d in dims if d not in inside]
    buffer = torch.empty_like(values)
    inverse_std = (variance.to(precision) + eps).rsqrt_()
    scale = inverse_std if gamma is None else inverse_std * gamma
    centred = torch.sub(values, mean, out=buffer) if center else values
    dot = sum_over(dy * centred, inside).mul_(inverse_std)
    sum_dy = sum_over(dy, inside) if center else None
    if given:
        torch.mul(dy, scale, out=buffer)
    else:
        count = math.prod([x.shape[d] for d in dims])
        slope = sum_over(dot * scale, remaining).mul_(inverse_std / -count)
        shift = sum_over(sum_dy * scale, remaining).div_(-count) if center else None
        scale_and_shift(centred, slope, shift, buffer).addcmul_(dy, scale)
    if weight is None:
        return buffer.to(x.dtype), None, None
    dweight = sum_over(dot, outside).sum_to_size(weight.shape)
    return buffer.to(x.dtype), dweight, sum_over(sum_dy, outside).sum_to_size(weight.shape) if center else None


def full_rank(tensor: Tensor | None, rank: int) -> Tensor | None:
    """``tensor`` with the leading axes of size 1 that broadcasting would give it; a single number stays one."""
    if tensor is None or tensor.dim() in (0, rank):
        return tensor
    return tensor.view((1,) * (rank - tensor.dim()) + tensor.shape)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor | None, out: Tensor) -> Tensor:
    """out = x * scale + shift. On a CPU one fused step is slow where both are constant along the last axis."""
    if shift is None:
        return torch.mul(x, scale, out=out)
    if shift.shape[-1] > 1 or not x.is_cpu:
        return torch.addcmul(shift, x, scale, out=out)
    return torch.mul(x, scale, out=out).add_(shift)


def sum_over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The sum over ``dims``, which may be none, with size 1 along them."""
    first, others = in_two(x, dims)
    x = x.sum(others, keepdim=True) if others else x
    return x.sum(first, keepdim=True) if first else x


def mean_over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The mean over ``dims``, with size 1 along them."""
    first, others = in_two(x, dims)
    return (x.mean(others, keepdim=True) if others else x).mean(first, keepdim=True)


def in_two(x: Tensor, dims: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Axes to add up, and others to add up first: torch adds in pairs, and loses little, along what lies together."""
    together = dims and dims[-1] - dims[0] < len(dims) and x.is_contiguous()
    if len(dims) < 2 or together or torch.compiler.is_compiling():
        return dims, ()
    return dims[:1], dims[1:]  # batch norm: (0, 2, 3)


def mean_square(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Mean of x^2. The Euclidean length over the last axes needs no buffer for the squares.

    It adds up one value after the other in float32, so at most ``ROW`` values go into one length.
    """
    count, row = math.prod([x.size(d) for d in dims]), 1
    last = x.dim()
    while last - 1 in dims and row * x.size(last - 1) <= ROW and x.is_contiguous():
        last -= 1
        row *= x.size(last)
    if last == x.dim():
        return sum_over(x.square(), dims).div_(count)
    squares = torch.linalg.vector_norm(x, dim=list(range(last, x.dim())), keepdim=True).square_()
    return sum_over(squares, [d for d in dims if d < last]).div_(count)
