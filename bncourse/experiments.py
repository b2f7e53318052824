"""Honest experiments: the same thing over variants and seeds, and an interval.

Every interval of the book is made here, in one way: the 95% confidence interval of a mean over independent seeds from
Student's t distribution. Two variants are compared seed by seed (the same data order, the same initialization where
shapes allow), and the interval is that of the paired differences.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bncourse.checkpoint import ResultsFile
from bncourse.moved import names_of
from bncourse.progress import progress

__all__ = ["Comparison", "Interval", "compare", "interval"]

SEEDS = (0, 1, 2, 3, 4)


class Interval(NamedTuple):
    """A mean over ``count`` seeds with its 95% confidence interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(samples: Iterable[float]) -> Interval:
    """The mean of independent samples and its 95% interval by Student's t.

    Raises:
        ValueError: fewer than two samples, or samples that are not single numbers.
    """
    values = np.asarray(list(samples), dtype=float)
    if values.ndim > 1:
        raise ValueError(f"samples has the shape {values.shape}; expected one number for each seed: choose a column")
    if len(values) < 2:
        raise ValueError(f"samples has {len(values)} value(s); an interval needs at least 2")
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    reach = _student_t(len(values) - 1) * error
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach, error, len(values))


def _student_t(degrees: int) -> float:
    from scipy import stats  # comes with scikit-learn

    return float(stats.t.ppf(0.975, degrees))


@dataclass
class Comparison:
    """The results of ``compare``.

    Attributes:
        values: for each variant an array whose first axis is the seeds.
        seeds: the seeds, in the order of that axis.
    """

    values: dict[str, np.ndarray]
    seeds: tuple[int, ...]

    def interval(self, variant: str) -> Interval:
        """The mean of one variant over the seeds (a single number a seed)."""
        return interval(self.values[variant])

    def difference(self, variant: str, baseline: str) -> Interval:
        """The mean of the paired differences ``variant - baseline``, seed by seed."""
        return interval(self.values[variant] - self.values[baseline])

    def _repr_markdown_(self) -> str | None:
        if any(values.ndim > 1 for values in self.values.values()):
            return None  # curves are for a figure
        rows = ["| variant | mean | 95% interval | seeds |", "|---|---|---|---|"]
        for name in self.values:
            i = self.interval(name)
            rows.append(f"| {name} | {i.mean:.3g} | {i.low:.3g} to {i.high:.3g} | {i.count} |")
        return "\n".join(rows)


def compare(
    variants: Mapping[str, Callable[[int], float]],
    seeds: Iterable[int] = SEEDS,
    *,
    checkpoint: str | os.PathLike | None = None,
) -> Comparison:
    """Run every variant with every seed.

    Args:
        variants: for each name a function of the seed that returns a number, or a sequence of numbers (a curve).
        seeds: at least two; the book uses at least five.
        checkpoint: a file that keeps every result as soon as it is there. Called again with the same file, ``compare``
            runs only what is missing. The file knows names and seeds, not what the functions do: remove it when they
            change.

    Raises:
        TypeError: a variant that is not a function, or whose result is no number or sequence of them.
        ValueError: no variants, fewer than two different seeds, results of a variant that differ in length, or a
            checkpoint that is damaged or of another comparison.
        OSError: the checkpoint cannot be written.
    """
    seeds = tuple(seeds)
    if not variants:
        raise ValueError("variants is empty; expected at least one name with its function")
    if len(set(seeds)) < max(2, len(seeds)):
        raise ValueError(f"seeds={seeds} are too few or repeat; expected at least two different ones")
    for name, run in variants.items():
        if not callable(run):
            raise TypeError(f"variants has {name!r}: {run!r}; expected a function of the seed")
    file = ResultsFile(checkpoint, variants)
    results = {name: [] for name in variants}
    with progress(len(variants) * len(seeds), "compare", "run") as bar:
        for name, run in variants.items():
            for seed in seeds:
                results[name].append(file.get(name, seed, run))
                first, last = np.shape(results[name][0]), np.shape(results[name][-1])
                if first != last:
                    raise ValueError(
                        f"{name!r} gave an array of shape {last} for seed {seed}; expected {first}, as for {seeds[0]}"
                    )
                bar.update()
    return Comparison({name: np.array(values, dtype=float) for name, values in results.items()}, seeds)


__getattr__ = names_of(__name__)
