"""Honest experiments: the same thing over variants and seeds, and an interval.

Every interval of the book is made here. Two variants are compared seed by seed (the same division of the data, the
same order of the batches, the same initialization where shapes allow), and the interval is that of the paired
differences. Each run computes on one thread, so its numbers do not depend on the machine's cores or on what else runs.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bncourse.data import DataSet, load
from bncourse.devices import best_device, seeded
from bncourse.files import write_whole
from bncourse.moved import names_of
from bncourse.progress import progress
from bncourse.training import quick

__all__ = [
    "BOOK_DATA",
    "EXPLORATION",
    "Comparison",
    "Interval",
    "Runs",
    "Splits",
    "compare",
    "confirmation_seeds",
    "interval",
    "one_thread",
    "share",
]

BOOK_DATA = "digits"
EXPLORATION = range(5)  # the seeds on which designs are found; a claim refuses them
CONFIRMATION = "10-19"
POOL = {"digits": 1797, "photo_digits": 1797}  # the digits that there are; of the other sets, 10,000 test images


def confirmation_seeds(times: int = 1) -> tuple[int, ...]:
    """The seeds of what the book shows and asserts: ten, or those that ``BNCOURSE_SEEDS`` names, such as "100-109".

    Args:
        times: as many again follow, for an effect that ten leave at the edge of what matters.

    Raises:
        ValueError: ``BNCOURSE_SEEDS`` is not a range of at least two seeds.
    """
    wanted = os.environ.get("BNCOURSE_SEEDS") or CONFIRMATION
    first, _, last = wanted.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ValueError(f"BNCOURSE_SEEDS must be a range of seeds such as '100-109', got {wanted!r}")
    seeds = tuple(range(int(first), int(first) + times * (int(last) + 1 - int(first))))
    return seeds[:2] if quick() else seeds


def exploring() -> bool:
    """Whether ``BNCOURSE_SEEDS`` names the seeds of the exploration, as ``python -m tools.explore`` does."""
    return confirmation_seeds()[0] in EXPLORATION


class Splits(NamedTuple):
    """A data set divided anew for each seed: called with a seed, a ``DataSet`` of ``train`` and ``test`` images."""

    dataset: str
    train: int = 1400
    test: int = 397

    def __call__(self, seed: int) -> DataSet:
        return _split(self, seed)

    @property
    def overlap(self) -> float:
        """The share of one seed's test images that are expected among another seed's too."""
        if self.dataset == "photo_digits":  # however many images, the digits on them are the same 397
            return min(self.test, 397) / POOL[self.dataset]
        return self.test / POOL.get(self.dataset, 10_000)


@lru_cache(maxsize=12)
def _split(splits: Splits, seed: int) -> DataSet:
    return load(splits.dataset, train=splits.train, test=splits.test, seed=seed)


class Runs(np.ndarray):
    """What several seeds gave, an array with one axis for the seeds, which arithmetic keeps.

    Attributes:
        seeds: of the runs.
        overlap: the share of a seed's test images that another seed has too (``Splits.overlap``); 0 if the runs are
            independent.
    """

    seeds: tuple[int, ...]
    overlap: float

    def __new__(cls, values, seeds: Iterable[int], overlap: float = 0.0) -> "Runs":
        runs = np.array(values, dtype=float).view(cls)
        runs.seeds, runs.overlap = tuple(seeds), overlap
        return runs

    def __array_finalize__(self, other) -> None:
        self.seeds, self.overlap = getattr(other, "seeds", ()), getattr(other, "overlap", 0.0)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, context)

    def __reduce__(self):
        return Runs, (np.asarray(self), self.seeds, self.overlap)


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
    """The mean of the samples and its 95% interval by Student's t.

    Samples that divide one collection anew for each seed (``Runs`` with an ``overlap`` r) are not independent: their
    standard error is that of the corrected resampled t test, with 1/n + r/(1 - r) in place of 1/n (Nadeau and Bengio
    2003, Inference for the Generalization Error). At ten divisions of 1,797 digits into 1,400 and 397 it is 1.96 times
    the plain one.

    Raises:
        ValueError: fewer than two samples, or samples that are not single numbers.
    """
    from scipy import stats  # which takes a second to load

    overlap = getattr(samples, "overlap", 0.0)
    values = np.array(list(samples), dtype=float)
    if values.ndim > 1:
        raise ValueError(f"samples must be one number for each seed, got an array of shape {values.shape}")
    if len(values) < 2:
        raise ValueError(f"samples must be at least 2, got {len(values)}")
    error = float(values.std(ddof=1) * math.sqrt(1 / len(values) + overlap / (1 - overlap)))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach, error, len(values))


def share(successes: Iterable[bool]) -> Interval:
    """The share of runs that succeeded, with its exact 95% interval (Clopper and Pearson 1934).

    Raises:
        ValueError: no runs.
    """
    from scipy import stats

    outcomes = [bool(success) for success in successes]
    if not outcomes:
        raise ValueError("successes must have at least one run, got none")
    found = stats.binomtest(sum(outcomes), len(outcomes))
    low, high = found.proportion_ci(0.95, "exact")
    return Interval(float(found.statistic), float(low), float(high), math.nan, len(outcomes))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, with or around a function; afterwards torch has as many as before.

    The order in which several threads add numbers up changes the last bits, and training makes a bit large.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(calls: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """What the calls return, in their order: on a CPU a process for each core, on another device one after another.

    The variable ``LOKY_MAX_CPU_COUNT`` limits the processes. With one, nothing leaves this process.
    """
    from joblib import Parallel, cpu_count, delayed

    processes = cpu_count() if best_device().type == "cpu" else 1
    return Parallel(processes, return_as="generator")(delayed(call)() for call in calls)


@dataclass
class Comparison:
    """The results of ``compare``.

    Attributes:
        values: for each variant ``Runs`` whose first axis is the seeds.
        seeds: the seeds, in the order of that axis.
    """

    values: dict[Any, Runs]
    seeds: tuple[int, ...]

    def __getitem__(self, variant) -> Runs:
        return self.values[variant]

    def interval(self, variant: str) -> Interval:
        """The mean of one variant over the seeds (a single number a seed)."""
        return interval(self.values[variant])

    def stack(self, variants: Iterable) -> Runs:
        """Those variants side by side: (seeds, variants)."""
        columns = [self.values[name] for name in variants]
        return Runs(np.stack(columns, axis=1), self.seeds, columns[0].overlap)

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
    variants: Mapping[Any, Callable[[int], float]],
    seeds: Iterable[int] | None = None,
    *,
    splits: Splits | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Comparison:
    """Run every variant with every seed; a quick run (see ``bncourse.training.quick``) takes the first two seeds.

    Each run computes on one thread and starts from the random state of its seed. Runs go side by side in processes of
    their own, so a variant says what it found by what it returns; the results do not depend on how many processes.

    Args:
        variants: for each name a function of the seed that returns a number, or a sequence of numbers (a curve).
        seeds: at least two; None takes ``confirmation_seeds()``.
        splits: the divisions of the data that the variants use, so that intervals allow for their overlap.
        checkpoint: a file that keeps every result as soon as it is there. Called again with the same file, ``compare``
            runs only what is missing. The file knows names and seeds, not what the functions do: remove it when they
            change.

    Raises:
        TypeError: a variant that is not a function, or whose result is not a number or a sequence of them.
        ValueError: no variants, fewer than two different seeds, results of a variant that differ in length, or a
            checkpoint that is damaged or of another comparison.
        OSError: the checkpoint cannot be written.
    """
    seeds = confirmation_seeds() if seeds is None else tuple(seeds)
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
    due = [(name, seed) for name in variants for seed in seeds if str(seed) not in kept[repr(name)]]
    with progress(len(variants) * len(seeds), "compare", "run") as bar:
        bar.update(bar.total - len(due))
        found = side_by_side(partial(_run, variants[name], seed) for name, seed in due)
        for (name, seed), result in zip(due, found, strict=True):
            done = kept[repr(name)]
            done[str(seed)] = _numbers(name, seed, result)
            lengths = np.shape(next(iter(done.values()))), np.shape(done[str(seed)])
            if lengths[0] != lengths[1]:
                first, last = lengths
                raise ValueError(f"{name!r} must return as many numbers for each seed, got {last} after {first}")
            if checkpoint is not None:
                write_whole(checkpoint, json.dumps(kept, indent=1).encode())
            bar.update()
    overlap = splits.overlap if splits else 0.0
    values = {name: Runs([kept[repr(name)][str(seed)] for seed in seeds], seeds, overlap) for name in variants}
    return Comparison(values, seeds)


@one_thread()
def _run(variant: Callable[[int], Any], seed: int) -> Any:
    with seeded(seed, best_device()):
        return variant(seed)


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
