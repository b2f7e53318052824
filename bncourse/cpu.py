"""The norms on a CPU: which of the compiled ``loops`` suits a tensor, and a share of its work for each thread.

Left to itself, torch divides each step among its threads and waits for the last of them, which is long beside another
process. Here a thread does all the steps of its share. Where numba is missing, or no loop suits, ``kernels`` computes
the same with torch's operations.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

SHARE_BYTES = 2**20  # the smallest share worth waking a thread for
LIGHTER = 4  # with given statistics there is so much less to do
SHARES = 8  # at most
MODES = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)  # how many modes look at what torch does


@functools.cache
def loops() -> ModuleType | None:
    """The compiled loops; None where numba is missing, does not know this numpy, or may not keep what it compiles."""
    try:
        from bncourse import loops  # only here: numba takes half a second
    except (ImportError, RuntimeError):
        return None
    return loops


class Runs(NamedTuple):
    """A unit's values are ``runs`` stretches of ``length`` neighbours, ``far`` apart; the units are ``near`` apart."""

    units: int
    runs: int
    length: int
    far: int
    near: int
    kinds: int  # runs with different weights: 1 or ``runs``
    weight_count = 1  # where none is given

    def arranged(self, x: Tensor) -> np.ndarray:
        return x.numpy().reshape(-1)

    def forward(self, x, y, mean, variance, gamma, beta, eps, center) -> None:
        gamma, beta = self.by_run(gamma), self.by_run(beta)

        def work(first, last):
            loops().runs_forward(x, y, mean, variance, gamma, beta, eps, *self[1:5], first, last)

        share(work, self.units, x.nbytes)

    def given(self, x, y, mean, variance, gamma, beta, eps) -> None:
        def work(first, last):
            loops().runs_given(x, y, mean, variance, gamma, beta, eps, self.length, first, last)

        share(work, self.runs * self.units, x.nbytes // LIGHTER)

    def backward(self, dy, x, dx, mean, variance, given, gamma, eps, center) -> Iterable[np.ndarray]:
        gamma, sums = self.by_run(gamma), np.empty((2, self.runs, self.units))

        def work(first, last):
            loops().runs_backward(
                dy, x, dx, sums[0], sums[1], mean, variance, given, gamma, eps, *self[1:5], first, last
            )

        share(work, self.units, x.nbytes)
        others = gamma.shape[1]
        return sums.reshape(2, -1, self.kinds, self.units // others, others).sum((1, 3)).swapaxes(1, 2)

    def by_run(self, weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(weight.reshape(-1, self.kinds).T)


class Rows(NamedTuple):
    """Each row is a unit, with a weight for each value."""

    units: int
    weight_count: int

    def arranged(self, x: Tensor) -> np.ndarray:
        return x.numpy().reshape(self)

    def forward(self, x, y, mean, variance, gamma, beta, eps, center) -> None:
        def work(first, last):
            loops().rows_forward(x, y, mean, variance, center, gamma, beta, eps, first, last)

        share(work, self.units, x.nbytes)

    def backward(self, dy, x, dx, mean, variance, given, gamma, eps, center) -> Iterable[np.ndarray]:
        def work(first, last):
            sums = np.zeros((2, self.weight_count))
            loops().rows_backward(dy, x, dx, sums[0], sums[1], mean, variance, center, gamma, eps, first, last)
            return sums

        return sum(share(work, self.units, x.nbytes, reproducible=True))


class Samples(NamedTuple):
    """Columns for each sample; a unit is a group of columns."""

    samples: int
    positions: int
    groups: int
    weight_count: int

    def arranged(self, x: Tensor) -> np.ndarray:
        return x.movedim((1, 2), (-2, -1)).numpy().reshape(self.samples, self.positions, self.weight_count)

    def forward(self, x, y, mean, variance, gamma, beta, eps, center) -> None:
        mean, variance = (v.reshape(self.samples, self.groups) for v in (mean, variance))

        def work(first, last):
            loops().samples_forward(x, y, mean, variance, gamma, beta, eps, first, last)

        share(work, self.samples, x.nbytes)

    def backward(self, dy, x, dx, mean, variance, given, gamma, eps, center) -> Iterable[np.ndarray]:
        mean, variance = (v.reshape(self.samples, self.groups) for v in (mean, variance))

        def work(first, last):
            sums = np.zeros((2, self.weight_count))
            loops().samples_backward(dy, x, dx, sums[0], sums[1], mean, variance, gamma, eps, first, last)
            return sums

        return sum(share(work, self.samples, x.nbytes, reproducible=True))


class Columns(NamedTuple):
    """Each column is a unit."""

    units: int
    rows: int

    @property
    def weight_count(self) -> int:
        return self.units

    def arranged(self, x: Tensor) -> np.ndarray:
        return channels_last(x).numpy().reshape(self.rows, self.units)

    def forward(self, x, y, mean, variance, gamma, beta, eps, center) -> None:
        def sums(first, last):
            both = np.zeros((2, self.units))
            loops().columns_sums(x, both[0], both[1], first, last)
            return both

        totals, squares = sum(share(sums, self.rows, x.nbytes, reproducible=True))
        rest = np.empty(self.units)
        loops().columns_statistics(x, totals, squares, mean, variance, rest)
        scale, shift = np.empty((2, self.units), x.dtype)
        loops().factors(variance, rest, gamma, beta, eps, scale, shift)

        def work(first, last):
            loops().columns_scaled(x, y, mean, scale, shift, first, last)

        share(work, self.rows, x.nbytes)

    def given(self, x, y, mean, variance, gamma, beta, eps) -> None:
        def work(first, last):
            loops().columns_given(x, y, mean, variance, gamma, beta, eps, first, last)

        share(work, self.rows, x.nbytes // LIGHTER)

    def backward(self, dy, x, dx, mean, variance, given, gamma, eps, center) -> Iterable[np.ndarray]:
        def sums(first, last):
            both = np.zeros((2, self.units))
            loops().columns_gradient_sums(dy, x, mean, both[0], both[1], first, last)
            return both

        def work(first, last):
            loops().columns_backward(dy, x, dx, mean, scale, slope, shift, first, last)

        totals = sum(share(sums, self.rows, x.nbytes, reproducible=True))
        scale, slope, shift = np.empty((3, self.units), x.dtype)
        loops().columns_gradient_factors(
            totals[0], totals[1], variance, given, gamma, eps, self.rows, scale, slope, shift
        )
        share(work, self.rows, x.nbytes)
        return totals


def channels_last(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.movedim(1, -1)


def layout(
    x: Tensor, dims: tuple[int, ...], center: bool, given: bool, weight: Tensor | None, *others: Tensor | None
) -> Runs | Rows | Samples | Columns | None:
    """How the values of ``x`` that share a mean lie in memory; None if no loop suits."""
    if not x.is_cpu or x.dim() < 2 or MODES() > 0 or loops() is None:
        return None
    if any(t is not None and type(t) not in (Tensor, nn.Parameter) for t in (x, weight, *others)):
        return None
    shape, start = x.shape, dims[0]
    count = math.prod([shape[d] for d in dims])
    units = x.numel() // count
    if dims == (0, *range(2, x.dim())):  # batch norm
        if not center or (weight is not None and weight.numel() != units):
            return None
        if count > shape[0] and x.is_contiguous():
            return Runs(units, shape[0], count // shape[0], x.stride(0), x.stride(1), 1)
        return Columns(units, count) if channels_last(x).is_contiguous() else None
    if given or dims != tuple(range(start, x.dim())):
        return None
    if weight is None:
        return Runs(units, 1, count, 0, count, 1) if center else Rows(units, count)
    sizes = (1,) * (x.dim() - weight.dim()) + weight.shape
    if sizes[start:] == shape[start:] and weight.numel() == count:
        return Rows(units, count)
    if not center or any(n > 1 and (d not in (start - 1, start) or n != shape[d]) for d, n in enumerate(sizes)):
        return None
    if start == 2 and x.movedim((1, 2), (-2, -1)).is_contiguous() and not x.is_contiguous():
        if weight.numel() == shape[1] * shape[2]:
            return Samples(shape[0], count // shape[2], shape[1], weight.numel())
    runs = sizes[start]  # group norm: the channels of a group; its weight is (groups, channels of a group, 1, ...)
    return Runs(units, runs, count // runs, count // runs, count, runs)


def forward(form, x, dims, weight, bias, eps, *, statistics, center) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance, as ``formula``."""
    values = in_precision(x, form)
    output, number = torch.empty_like(values), values.dtype
    arrays = form.arranged(values), form.arranged(output)
    count = form.units if statistics else form.weight_count
    gamma = flat(values.new_ones(count) if weight is None else weight, number)
    beta = np.zeros_like(gamma) if bias is None else flat(bias, number)
    if statistics:
        mean, variance = (flat(t, number) for t in statistics)
        form.given(*arrays, mean, variance, gamma, beta, eps)
        return like(x, output), *statistics
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    mean, variance = values.new_empty(shape), values.new_empty(shape)
    form.forward(*arrays, mean.numpy().reshape(-1), variance.numpy().reshape(-1), gamma, beta, eps, center)
    return like(x, output), mean if center else mean.new_zeros(()), variance


def backward(form, dy, x, weight, eps, *, statistics, given, center) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx, dweight and dbias, as ``formula_backward``."""
    values, dy = in_precision(x, form), in_precision(dy, form)
    if dy.stride() != values.stride():
        dy = torch.empty_like(values).copy_(dy)
    dx, number, (mean, variance) = torch.empty_like(values), values.dtype, statistics
    if not center:
        mean = mean.expand(form.units)
    gamma = flat(values.new_ones(form.weight_count) if weight is None else weight, number)
    arrays = form.arranged(dy), form.arranged(values), form.arranged(dx), flat(mean, number), flat(variance, number)
    sums = form.backward(*arrays, given, gamma, eps, center)
    if weight is None:
        return like(x, dx), None, None
    dweight, dbias = torch.from_numpy(np.ascontiguousarray(sums)).to(weight.dtype).view(2, *weight.shape)
    return like(x, dx), dweight, dbias if center else None


def precision_for(x: Tensor) -> torch.dtype:
    """Half precision is computed in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def in_precision(x: Tensor, form: Runs | Rows | Samples | Columns) -> Tensor:
    """Without its history, in the type that is computed in; contiguous where the loops' order asks for it."""
    x = x.detach().to(precision_for(x))
    return x.contiguous() if isinstance(form, Runs | Rows) else x


def like(x: Tensor, result: Tensor) -> Tensor:
    """``result`` in the type and order of ``x``."""
    same = result.dtype == x.dtype and result.stride() == x.stride()
    return result if same else torch.empty_like(x).copy_(result)


def flat(t: Tensor, number: torch.dtype) -> np.ndarray:
    t = t.detach()
    return (t if t.dtype is number else t.to(number)).numpy().reshape(-1)


def share(work: Callable[[int, int], Any], count: int, nbytes: int, reproducible: bool = False) -> list[Any]:
    """``work(first, last)`` for all of ``range(count)``, in shares, several at a time.

    Args:
        reproducible: there are as many shares for one thread as for several, so that sums over them are the same.
    """
    threads = torch.get_num_threads()
    shares = max(1, min(count, SHARES, nbytes // SHARE_BYTES)) if reproducible or threads > 1 else 1
    cuts = [count * k // shares for k in range(shares + 1)]
    results, waiting = [None] * shares, iter(range(shares))

    def take() -> None:
        for k in waiting:
            results[k] = work(cuts[k], cuts[k + 1])

    others = [workers(threads).submit(take) for _ in range(min(threads, shares) - 1)]
    take()
    for other in others:
        if not other.cancel():  # one that has not begun finds nothing left
            other.result()
    return results


@functools.cache
def workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bncourse")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not survive a fork
