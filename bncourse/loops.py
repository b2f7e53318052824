"""The two formulas of ``standardize.py`` as plain loops, which numba compiles.

A norm written as operations on whole tensors goes through memory once for each operation. A loop does everything with a
value while the processor holds it: one way through the input finds the statistics, a second one writes the output.

Sums are kept in float64, so a difference from a *pivot* (one of the values) is all the care that they need: with
d = x - pivot, variance = mean(d^2) - mean(d)^2 loses no digit that matters, since no value lies further than
sqrt(count) standard deviations from the mean.

How the values that share a mean lie in memory decides the loop. *Runs*: one or several stretches of neighbours with one
weight each (batch norm of maps, group and instance norm). *Rows*: one stretch with a weight for each value (layer and
RMS norm). *Columns*: never neighbours (batch norm of (N, C), or channels last). *Samples*: columns of each sample, some
of them together (group norm, channels last). ``cpu.py`` chooses; a loop does the units, or rows, from ``first`` to
``last``.
"""

import math

import numpy as np
from numba import njit

# Sums may be taken in any order, or a processor could not add several numbers at once. NaN and infinity remain.
loop = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


@loop
def runs_forward(x, y, mean, variance, gamma, beta, eps, runs, length, far, near, first, last):
    """Unit u has its runs at u * near, u * near + far, ...

    ``gamma`` and ``beta``: (kinds of runs, kinds of units).
    """
    number, count = x.dtype.type, runs * length
    for u in range(first, last):
        pivot, total, squares = np.float64(x[u * near]), 0.0, 0.0
        for i in range(runs):
            a = x[u * near + i * far :]
            for j in range(length):
                d = a[j] - pivot
                total += d
                squares += d * d
        total /= count
        mean[u] = pivot + total
        variance[u] = max(squares / count - total * total, 0.0)
        rest = pivot + total - mean[u]  # what rounding took from the mean
        center, inverse_std = mean[u], 1 / math.sqrt(variance[u] + eps)
        for i in range(runs):
            weight = gamma[i % gamma.shape[0], u % gamma.shape[1]] * inverse_std
            scale = number(weight)
            shift = number(beta[i % beta.shape[0], u % beta.shape[1]] - rest * weight)
            a, b = x[u * near + i * far :], y[u * near + i * far :]
            for j in range(length):
                b[j] = (a[j] - center) * scale + shift


@loop
def runs_given(x, y, mean, variance, gamma, beta, eps, length, first, last):
    """With known statistics, in the order of memory: run r belongs to unit r, r - units, ..."""
    number = x.dtype.type
    for r in range(first, last):
        u = r % len(mean)
        center, scale, shift = mean[u], number(gamma[u] / math.sqrt(variance[u] + eps)), beta[u]
        a, b = x[r * length :], y[r * length :]
        for j in range(length):
            b[j] = (a[j] - center) * scale + shift


@loop
def runs_backward(dy, x, dx, dots, sums, mean, variance, given, gamma, eps, runs, length, far, near, first, last):
    """Also writes, for each run, the sums of dy x_hat and of dy."""
    number, count = x.dtype.type, runs * length
    for u in range(first, last):
        center, inverse_std = mean[u], 1 / math.sqrt(variance[u] + eps)
        slope = shift = 0.0
        for i in range(runs):
            dot = total = 0.0
            a, da = x[u * near + i * far :], dy[u * near + i * far :]
            for j in range(length):
                dot += np.float64(da[j]) * (a[j] - center)
                total += da[j]
            dots[i, u], sums[i, u] = dot * inverse_std, total
            weight = gamma[i % gamma.shape[0], u % gamma.shape[1]] * inverse_std
            slope -= weight * dot
            shift -= weight * total
        slope = number(0.0 if given else slope / count * inverse_std * inverse_std)
        shift = number(0.0 if given else shift / count)
        for i in range(runs):
            scale = number(gamma[i % gamma.shape[0], u % gamma.shape[1]] * inverse_std)
            start = u * near + i * far
            a, da, b = x[start:], dy[start:], dx[start:]
            for j in range(length):
                b[j] = da[j] * scale + (a[j] - center) * slope + shift


@loop
def rows_forward(x, y, mean, variance, centered, gamma, beta, eps, first, last):
    number, count = x.dtype.type, x.shape[1]
    for r in range(first, last):
        pivot, total, squares = np.float64(x[r, 0]) if centered else 0.0, 0.0, 0.0
        for j in range(count):
            d = x[r, j] - pivot
            total += d
            squares += d * d
        total = total / count if centered else 0.0
        mean[r] = pivot + total
        variance[r] = max(squares / count - total * total, 0.0)
        center, rest = mean[r], number(pivot + total - mean[r])
        scale = number(1 / math.sqrt(variance[r] + eps))
        for j in range(count):
            y[r, j] = ((x[r, j] - center) - rest) * scale * gamma[j] + beta[j]


@loop
def rows_backward(dy, x, dx, dots, sums, mean, variance, centered, gamma, eps, first, last):
    """Also adds up, for each column, dy x_hat and dy of these rows."""
    number, count = x.dtype.type, x.shape[1]
    for r in range(first, last):
        center, inverse_std = mean[r], 1 / math.sqrt(variance[r] + eps)
        slope = shift = 0.0
        for j in range(count):
            g = np.float64(dy[r, j]) * gamma[j]
            slope -= g * (x[r, j] - center)
            shift -= g
        scale = number(inverse_std)
        slope = number(slope / count * inverse_std * inverse_std * inverse_std)
        shift = number(shift / count * inverse_std if centered else 0.0)
        for j in range(count):
            d = x[r, j] - center
            dx[r, j] = dy[r, j] * gamma[j] * scale + d * slope + shift
            dots[j] += dy[r, j] * (d * scale)
            sums[j] += dy[r, j]


@loop
def columns_sums(x, totals, squares, first, last):
    """Add up, for each column, the distances from its first value and their squares."""
    for r in range(first, last):
        for j in range(x.shape[1]):
            d = np.float64(x[r, j]) - x[0, j]
            totals[j] += d
            squares[j] += d * d


@loop
def columns_statistics(x, totals, squares, mean, variance, rest):
    """From the sums; ``rest`` is what rounding took from the mean."""
    for j in range(x.shape[1]):
        total = totals[j] / x.shape[0]
        mean[j] = x[0, j] + total
        variance[j] = max(squares[j] / x.shape[0] - total * total, 0.0)
        rest[j] = x[0, j] + total - mean[j]


@loop
def factors(variance, rest, gamma, beta, eps, scale, shift):
    """What x - mean is to be multiplied with and shifted by."""
    for j in range(len(gamma)):
        weight = gamma[j] / math.sqrt(variance[j] + eps)
        scale[j] = weight
        shift[j] = beta[j] - rest[j] * weight


@loop
def columns_scaled(x, y, mean, scale, shift, first, last):
    for r in range(first, last):
        for j in range(x.shape[1]):
            y[r, j] = (x[r, j] - mean[j]) * scale[j] + shift[j]


@loop
def columns_given(x, y, mean, variance, gamma, beta, eps, first, last):
    """With known statistics."""
    scale = (gamma / np.sqrt(variance + eps)).astype(x.dtype)
    columns_scaled(x, y, mean, scale, beta, first, last)


@loop
def columns_gradient_sums(dy, x, mean, dots, sums, first, last):
    """Add up, for each column, dy (x - mean) and dy."""
    for r in range(first, last):
        for j in range(x.shape[1]):
            dots[j] += np.float64(dy[r, j]) * (x[r, j] - mean[j])
            sums[j] += dy[r, j]


@loop
def columns_gradient_factors(dots, sums, variance, given, gamma, eps, count, scale, slope, shift):
    """What dy and x - mean are to be multiplied with and shifted by; ``dots`` become those of dy x_hat and dy."""
    for j in range(len(gamma)):
        inverse_std = 1 / math.sqrt(variance[j] + eps)
        dots[j] *= inverse_std
        weight = gamma[j] * inverse_std
        scale[j] = weight
        slope[j] = 0.0 if given else -weight * dots[j] * inverse_std / count
        shift[j] = 0.0 if given else -weight * sums[j] / count


@loop
def columns_backward(dy, x, dx, mean, scale, slope, shift, first, last):
    for r in range(first, last):
        for j in range(x.shape[1]):
            dx[r, j] = dy[r, j] * scale[j] + (x[r, j] - mean[j]) * slope[j] + shift[j]


@loop
def samples_forward(x, y, mean, variance, gamma, beta, eps, first, last):
    """``x``: (samples, positions, channels); ``mean``: (samples, groups)."""
    positions, channels = x.shape[1:]
    groups, number = mean.shape[1], x.dtype.type
    size = channels // groups
    center, scale, shift = np.empty((3, channels), x.dtype)
    for n in range(first, last):
        totals, squares = np.zeros((2, channels))
        columns_sums(x[n], totals, squares, 0, positions)
        for g in range(groups):
            own = range(g * size, (g + 1) * size)
            exact = spread = 0.0
            for j in own:
                exact += (x[n, 0, j] + totals[j] / positions) / size
            for j in own:
                total = totals[j] / positions
                from_mean = x[n, 0, j] + total - exact
                spread += max(squares[j] / positions - total * total, 0.0) + from_mean * from_mean
            mean[n, g], variance[n, g] = exact, spread / size
            inverse_std, rest = 1 / math.sqrt(variance[n, g] + eps), exact - mean[n, g]
            for j in own:
                center[j], scale[j] = mean[n, g], gamma[j] * inverse_std
                shift[j] = number(beta[j] - rest * gamma[j] * inverse_std)
        columns_scaled(x[n], y[n], center, scale, shift, 0, positions)


@loop
def samples_backward(dy, x, dx, all_dots, all_sums, mean, variance, gamma, eps, first, last):
    """Also adds up, for each channel, dy x_hat and dy of these samples."""
    positions, channels = x.shape[1:]
    size = channels // mean.shape[1]
    center, scale, slope, shift = np.empty((4, channels), x.dtype)
    for n in range(first, last):
        dots, sums = np.zeros((2, channels))
        for j in range(channels):
            center[j] = mean[n, j // size]
        columns_gradient_sums(dy[n], x[n], center, dots, sums, 0, positions)
        for g in range(mean.shape[1]):
            own = range(g * size, (g + 1) * size)
            inverse_std, by_x, alone = 1 / math.sqrt(variance[n, g] + eps), 0.0, 0.0
            for j in own:
                all_dots[j] += dots[j] * inverse_std
                all_sums[j] += sums[j]
                by_x -= gamma[j] * dots[j] / (positions * size)
                alone -= gamma[j] * sums[j] / (positions * size)
            for j in own:
                scale[j] = gamma[j] * inverse_std
                slope[j] = by_x * inverse_std * inverse_std * inverse_std
                shift[j] = alone * inverse_std
        columns_backward(dy[n], x[n], dx[n], center, scale, slope, shift, 0, positions)
