"""Honest experiments: the same thing over variants and seeds, and an interval.

Every interval of the book is made here, in one way: the 95% confidence interval of a mean over independent seeds from
Student's t distribution. Two variants are compared seed by seed (the same data order, the same initialization where
shapes allow), and the interval is that of the paired differences.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bncourse.files import write_whole
from bncourse.moved import names_of
from bncourse.progress import progress
from bncourse.training import quick

__all__ = ["Comparison", "Interval", "compare", "interval"]

SEEDS = (0, 1, 2, 3, 4)


class Interval(NamedTuple):
    """A mean over ``count`` seeds with its 95% confidence interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    count: int  # type: ignore[assignment] # tuple has a method of that name

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(samples: Iterable[float]) -> Interval:
    """The mean of independent samples and its 95% interval by Student's t.

    Raises:
        ValueError: fewer than two samples, or samples that are not single numbers.
    """
    from scipy import stats  # which takes a second to load

    values = np.asarray(list(samples), dtype=float)
    if values.ndim > 1:
        raise ValueError(f"samples must be one number for each seed, got an array of shape {values.shape}")
    if len(values) < 2:
        raise ValueError(f"samples must be at least 2, got {len(values)}")
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach, error, len(values))


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
    """Run every variant with every seed; a quick run (see ``bncourse.training.quick``) takes the first two seeds.

    Args:
        variants: for each name a function of the seed that returns a number, or a sequence of numbers (a curve).
        seeds: at least two; the book uses at least five.
        checkpoint: a file that keeps every result as soon as it is there. Called again with the same file, ``compare``
            runs only what is missing. The file knows names and seeds, not what the functions do: remove it when they
            change.

    Raises:
        TypeError: a variant that is not a function, or whose result is not a number or a sequence of them.
        ValueError: no variants, fewer than two different seeds, results of a variant that differ in length, or a
            checkpoint that is damaged or of another comparison.
        OSError: the checkpoint cannot be written.
    """
    seeds = tuple(seeds)
    if not variants:
        raise ValueError("variants must have at least one name with its function, got none")
    if len(set(seeds)) < max(2, len(seeds)):
        raise ValueError(f"seeds must be at least two different ones, got {seeds}")
    for name, run in variants.items():
        if not callable(run):
            raise TypeError(f"variants must be functions of the seed, got {run!r} for {name!r}")
    if quick():
        seeds = seeds[:2]
    kept: dict[str, dict] = {repr(name): {} for name in variants}
    if checkpoint is not None:
        kept |= _read(checkpoint, kept)
    results: dict[str, list[float]] = {name: [] for name in variants}
    with progress(len(variants) * len(seeds), "compare", "run") as bar:
        for name, run in variants.items():
            done = kept[repr(name)]
            for seed in seeds:
                if str(seed) not in done:
                    done[str(seed)] = _numbers(name, seed, run(seed))
                    if checkpoint is not None:
                        write_whole(checkpoint, json.dumps(kept, indent=1).encode())
                results[name].append(done[str(seed)])
                first, last = np.shape(results[name][0]), np.shape(results[name][-1])
                if first != last:
                    raise ValueError(f"{name!r} must return as many numbers for each seed, got {last} after {first}")
                bar.update()
    return Comparison({name: np.array(values, dtype=float) for name, values in results.items()}, seeds)


def _numbers(name: str, seed: int, result) -> float | list:
    """What a variant returned, as JSON has it."""
    try:
        if result is None:
            raise TypeError("None is not a number")  # numpy makes it NaN
        return np.asarray(result, dtype=float).tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"{type(result).__name__} for seed {seed}"
        raise TypeError(f"{name!r} must return a number or a sequence of them, got {what}") from error


def _read(path: str | os.PathLike, variants: Iterable[str]) -> dict[str, dict[str, float | list]]:
    """The results in a file that ``compare`` wrote, by variant and seed; none if there is no file."""
    if not Path(path).exists():
        return {}
    try:
        found = {
            name: {seed: _numbers(name, int(seed), result) for seed, result in by_seed.items()}
            for name, by_seed in json.loads(Path(path).read_bytes()).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint must be a file that compare wrote, got {path}: {error}") from error
    if not found.keys() <= set(variants):
        raise ValueError(f"checkpoint must be of the variants {', '.join(variants)}, got {', '.join(found)} in {path}")
    return found


__getattr__ = names_of(__name__)
