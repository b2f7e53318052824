"""The two formulas of ``functional``, forward and backward, touching as little memory as can be.

A processor computes faster than its memory delivers. So the input is centred once, everything else happens in that
buffer, and a large input is worked through in parts that fit the cache: each of the many steps then finds its data
there. One channel's statistics do not depend on another's, so a part of the channels is a smaller problem of the
same kind (for layer, group and instance norm: a part of the samples).

Tensors keep the rank of the input: statistics have size 1 along ``dims``, weight and bias where they are shared.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

PART_BYTES = 2 * 2**20  # of one part of the input: about what a processor keeps close to its cores


def standardize(input, dims, weight, bias, eps, statistics, center) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance, as ``functional.standardize``."""
    output = torch.empty_like(input)
    means, variances = [], []
    axis, parts = in_parts(dims, input, output, weight, bias, *(statistics or (None, None)))
    for x, y, gamma, beta, mean, variance in parts:
        x = at_least_float32(x)
        buffer = y if y.dtype == x.dtype else torch.empty_like(x)
        if mean is None:
            mean = x.mean(dims, keepdim=True) if center else x.new_zeros(())
        centred = torch.sub(x, mean, out=buffer) if center else x
        if variance is None:
            variance = mean_square(centred, dims)
        scale = (variance + eps).rsqrt_()
        scale_and_shift(centred, scale if gamma is None else scale * gamma, beta, buffer)
        if buffer is not y:
            y.copy_(buffer)
        means.append(mean)
        variances.append(variance)
    return output, join(means, axis), join(variances, axis)


def standardize_backward(dy, input, dims, weight, eps, mean, variance, own_statistics, center):
    """dx, dweight and dbias, as ``functional.standardize_backward``.

    With s = weight / std, the same formula reads dx = s dy - x_hat mean(s dy x_hat) - mean(s dy). The means in it, and
    dweight and dbias, are all made from the sums of dy x_hat and dy over the axes along which one weight serves many
    values.
    """
    dx = torch.empty_like(input)
    shared = [d for d in range(dy.dim()) if weight is None or weight.shape[d] == 1]
    inside = [d for d in shared if d in dims]
    outside = [d for d in shared if d not in dims]
    remaining = [d for d in dims if d not in inside]
    count = math.prod([input.shape[d] for d in dims])
    dweights, dbiases = [], []
    axis, parts = in_parts(dims, input, dx, dy, weight, mean, variance)
    for x, dx_part, g, gamma, mean_part, variance_part in parts:
        x, g = at_least_float32(x), at_least_float32(g)
        buffer = dx_part if dx_part.dtype == x.dtype else torch.empty_like(x)
        inverse_std = (variance_part + eps).rsqrt_()
        scale = inverse_std if gamma is None else inverse_std * gamma
        centred = torch.sub(x, mean_part, out=buffer) if center else x
        dot = total(g * centred, inside).mul_(inverse_std)
        dweights.append(total(dot, outside))
        sum_g = total(g, inside) if center else None
        dbiases.append(total(sum_g, outside) if center else None)
        if own_statistics:
            slope = total(dot * scale, remaining).mul_(inverse_std / -count)
            shift = total(sum_g * scale, remaining).div_(-count) if center else None
            scale_and_shift(centred, slope, shift, buffer).addcmul_(g, scale)
        else:
            torch.mul(g, scale, out=buffer)
        if buffer is not dx_part:
            dx_part.copy_(buffer)
    if weight is None:
        return dx, None, None
    dbias = join(dbiases, axis).sum_to_size(weight.shape) if center else None
    return dx, join(dweights, axis).sum_to_size(weight.shape), dbias


def in_parts(dims, input: Tensor, *others: Tensor | None) -> tuple[int, Iterable[tuple]]:
    """Cut all tensors along the first axis that is not in ``dims``; give the axis, and the parts as tuples.

    A tensor of size 1 along the axis goes to every part, and so does None. Nothing is cut where it would not help:
    a small input, other devices than the processor, values that lie side by side along the axis.
    """
    axis = next((d for d in range(input.dim()) if d not in dims), 0)
    length, nbytes = input.size(axis), input.numel() * input.element_size()
    if nbytes <= PART_BYTES or axis in dims or not input.is_cpu or input.stride(axis) == 1:
        return axis, [(input, *others)]
    pieces = -(-length // max(1, PART_BYTES * length // nbytes))  # rounded up
    cut = [
        [tensor] * pieces if tensor is None or tensor.dim() == 0 or tensor.size(axis) == 1
        else tensor.tensor_split(pieces, axis)
        for tensor in (input, *others)
    ]  # fmt: skip
    return axis, zip(*cut, strict=True)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor | None, out: Tensor) -> Tensor:
    """out = x * scale + shift. One step is slow, on processors, where both are constant along the last axis."""
    if shift is None:
        return torch.mul(x, scale, out=out)
    if shift.shape[-1] > 1 or not x.is_cpu:
        return torch.addcmul(shift, x, scale, out=out)
    return torch.mul(x, scale, out=out).add_(shift)


def join(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 or parts[0].dim() == 0 else torch.cat(parts, axis)


def total(x: Tensor, dims: list[int]) -> Tensor:
    """The sum over ``dims``, which may be none."""
    return x.sum(dims, keepdim=True) if dims else x


def mean_square(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean of x^2. The norm over axes that lie together in memory needs no buffer for the squares."""
    if x.dim() - 1 not in dims or x.stride(-1) != 1:
        return x.square().mean(dims, keepdim=True)
    together = [d for d in dims if all(later in dims for later in range(d, x.dim()))]
    squares = torch.linalg.vector_norm(x, dim=together, keepdim=True).square_()
    count = math.prod(x.size(d) for d in dims)
    return total(squares, [d for d in dims if d not in together]).div_(count)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
