"""The two formulas of ``standardize.py``, forward and backward, moving as little memory as possible.

A processor computes faster than its memory delivers. So the input is centred once, everything else happens in that
buffer, and a large input is worked through in chunks that fit the cache: each of the many steps then finds its data
there. One channel's statistics do not depend on another's, so a chunk of the channels is a smaller problem of the
same kind (for layer, group and instance norm: a chunk of the samples), and several threads work on a chunk each.
"""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

CHUNK_BYTES = 2 * 2**20  # about what a processor keeps close to its cores
ROW = 4096  # values that float32 adds up one by one without losing more than the last digit


def forward(x, dims, weight, bias, eps, *, statistics, center) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance, as ``formula``.

    The buffer holds x less a pivot, the mean of a quarter of the values: large offsets are gone before anything is
    added up. What is missing from the pivot to the mean is corrected at the end. (Its square is at most four
    variances, so that little is lost where it is taken from the mean square.)
    """
    if statistics:
        return scaled(x, *statistics, weight, bias, eps), *statistics
    output, precision = torch.empty_like(x), precision_for(x)

    def work(x, y, gamma, beta):
        if x.dtype != precision:
            x = x.to(precision)
        buffer = y if y.dtype == precision else torch.empty_like(x)
        if center:
            pivot = mean_over(x.narrow(dims[0], 0, -(-x.size(dims[0]) // 4)), dims)
            x = torch.sub(x, pivot, out=buffer)
            rest = mean_over(x, dims)
            variance = mean_square(x, dims).addcmul_(rest, rest, value=-1).clamp_(min=0)
            mean = pivot + rest
        else:
            mean, rest, variance = x.new_zeros(()), None, mean_square(x, dims)
        in_rows = gamma is not None and gamma.shape[-1] > 1 and x.dim() - 1 in dims  # layer norm: many gammas a row
        scale = (variance + eps).rsqrt_()
        if gamma is not None and not in_rows:
            scale = scale * gamma
        shift = None if in_rows else beta
        if rest is not None:
            shift = rest * -scale if shift is None else torch.addcmul(shift, rest, scale, value=-1)
        scale_and_shift(x, scale, shift, buffer)
        if in_rows:
            scale_and_shift(buffer, gamma, beta, buffer)
        if buffer is not y:
            y.copy_(buffer)
        return mean, variance

    axis, parts = chunks(dims, x, output, full_rank(weight, x.dim()), full_rank(bias, x.dim()))
    means, variances = side_by_side(work, parts)
    return output, join(means, axis), join(variances, axis)


def scaled(x, mean, variance, weight, bias, eps) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias for known numbers: one multiplication and one addition."""
    precision = precision_for(x)
    scale = (variance.to(precision) + eps).rsqrt_()
    if weight is not None:
        scale = scale * weight
    shift = mean.to(precision) * -scale if bias is None else torch.addcmul(bias.to(precision), mean, scale, value=-1)
    return torch.addcmul(shift, x.to(precision), scale).to(x.dtype)


def backward(dy, x, dims, weight, eps, *, statistics, given, center) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx, dweight and dbias, as ``formula_backward``.

    With s = weight / std, the same formula reads dx = s dy - x_hat mean(s dy x_hat) - mean(s dy). The means in it, and
    dweight and dbias, are all made from the sums of dy x_hat and dy over the axes along which one weight serves many
    values. (Batch norm of (N, C, H, W): N, H and W are ``inside``. Layer norm of (N, F): N is ``outside``, F
    ``remaining``.)
    """
    dx, precision = torch.empty_like(x), precision_for(x)
    gamma = full_rank(weight, x.dim())
    shared = [d for d in range(x.dim()) if gamma is None or gamma.shape[d] == 1]
    inside = [d for d in shared if d in dims]
    outside = [d for d in shared if d not in dims]
    remaining = [d for d in dims if d not in inside]
    count = math.prod([x.shape[d] for d in dims])

    def work(x, dx_part, dy, gamma, mean, variance):
        if x.dtype != precision:
            x, dy = x.to(precision), dy.to(precision)
        buffer = dx_part if dx_part.dtype == precision else torch.empty_like(x)
        inverse_std = (variance.to(precision) + eps).rsqrt_()
        scale = inverse_std if gamma is None else inverse_std * gamma
        centred = torch.sub(x, mean, out=buffer) if center else x
        dot = sum_over(dy * centred, inside).mul_(inverse_std)
        sum_dy = sum_over(dy, inside) if center else None
        if given:
            torch.mul(dy, scale, out=buffer)
        else:
            slope = sum_over(dot * scale, remaining).mul_(inverse_std / -count)
            shift = sum_over(sum_dy * scale, remaining).div_(-count) if center else None
            scale_and_shift(centred, slope, shift, buffer).addcmul_(dy, scale)
        if buffer is not dx_part:
            dx_part.copy_(buffer)
        return sum_over(dot, outside), sum_over(sum_dy, outside) if center else None

    axis, parts = chunks(dims, x, dx, dy, gamma, *statistics)
    dweights, dbiases = side_by_side(work, parts)
    if weight is None:
        return dx, None, None
    dbias = join(dbiases, axis).sum_to_size(weight.shape) if center else None
    return dx, join(dweights, axis).sum_to_size(weight.shape), dbias


def chunks(dims, x: Tensor, *others: Tensor | None) -> tuple[int, Iterable[tuple]]:
    """Cut all tensors along the first axis that is not in ``dims``; return the axis, and the chunks as tuples.

    A tensor of size 1 along the axis goes to every chunk, and so does None. Nothing is cut where it would not help:
    small inputs, devices other than the CPU, an axis along which values lie side by side.
    """
    axis = next((d for d in range(x.dim()) if d not in dims), 0)
    length, nbytes = x.size(axis), x.numel() * x.element_size()
    pieces = -(-nbytes // CHUNK_BYTES)  # rounded up
    if nbytes > CHUNK_BYTES // 4:
        pieces = max(pieces, torch.get_num_threads())
    pieces = min(pieces, length)
    if pieces == 1 or axis in dims or not x.is_cpu or x.stride(axis) == 1:
        return axis, [(x, *others)]
    others = [full_rank(tensor, x.dim()) for tensor in others]
    cut = [
        [tensor] * pieces if tensor is None or tensor.dim() == 0 or tensor.size(axis) == 1
        else tensor.tensor_split(pieces, axis)
        for tensor in (x, *others)
    ]  # fmt: skip
    return axis, zip(*cut, strict=True)


MODES = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)  # how many modes look at what torch does


def side_by_side(work: Callable[..., tuple], parts: Iterable[tuple]) -> list[tuple]:
    """``work(*part)`` for each part, several at a time; the first results of all, and the second ones.

    Left to itself, torch divides each small step among its threads and waits for the last of them. Beside another
    process that is long. Here a thread does all the steps of one part, and nobody waits before the end.
    """
    parts, threads = list(parts), torch.get_num_threads()
    if len(parts) == 1 or threads == 1 or MODES() > 0:  # which see one thread only
        return list(zip(*(work(*part) for part in parts), strict=True))
    inference = torch.is_inference_mode_enabled()

    def guarded(part):
        with torch.inference_mode(inference), torch.no_grad():
            return work(*part)

    return list(zip(*workers(threads).map(guarded, parts), strict=True))


@functools.cache
def workers(threads: int) -> ThreadPoolExecutor:
    """Threads within which torch uses no further ones."""
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread sets the number that all have
        torch.set_num_threads(1)  # now that of this thread, and of those that start later, which is undone below
        started.wait()

    pool = ThreadPoolExecutor(threads, "bncourse", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not survive a fork


def precision_for(x: Tensor) -> torch.dtype:
    """Half precision is computed in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


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


def join(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 or parts[0].dim() == 0 else torch.cat(parts, axis)


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
