"""Honest experiments: the same thing over variants and seeds, an interval, and a statement with its verdict.

Every interval of the book is made here, in one way: the 95% confidence interval of a mean over independent seeds from
Student's t distribution. Two variants are compared seed by seed (the same data order, the same initialization where
shapes allow), and the interval is that of the paired differences.
"""

import html
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from .checkpoint import ResultsFile
from .progress import progress

__all__ = ["VERDICTS", "Comparison", "Interval", "Statement", "claim", "compare", "interval", "statements"]

VERDICTS = ("holds", "holds if", "does not hold", "undecided here")
BOOK_DATA = "digits"
SEEDS = (0, 1, 2, 3, 4)


class Statement(NamedTuple):
    """A statement of the source: its id in the ledger, the chapter that settles it, and the source's words."""

    id: str
    chapter: int
    source: str


@cache
def statements() -> dict[str, Statement]:
    """The statements of the source that the book examines, by id, in the source's order."""
    table = tomllib.loads(files(__package__).joinpath("statements.toml").read_text(encoding="utf-8"))
    return {name: Statement(name, row["chapter"], row["source"]) for name, row in table.items()}


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


def claim(
    id: str,
    verdict: str,
    text: str,
    measured: Interval | float,
    *,
    above: float | None = None,
    below: float | None = None,
    unit: str = "",
    dataset: str = BOOK_DATA,
) -> None:
    """Settle a statement of the source: show the verdict with what was measured, and fail if it is not so.

    On another data set than the book's a claim that fails is a finding: it is shown as one, and nothing is raised.

    Args:
        id: one of ``statements()``.
        verdict: "holds", "holds if" (``text`` says when), "does not hold", or "undecided here".
        text: what we found, in a sentence.
        measured: an interval over seeds, or a number that does not depend on chance.
        above, below: the threshold that the measured mean lies beyond; exactly one of them. An undecided statement has
            neither: there the effect must lie within four standard errors of zero.
        unit: of the measured quantity.
        dataset: the name of the data set that it was measured on.

    Raises:
        ValueError: an unknown id or verdict, or not exactly one threshold.
        AssertionError: the measured value does not support the verdict, on the book's data.
    """
    if id not in statements():
        raise ValueError(f"id={id!r} is unknown; expected one of {', '.join(statements())}")
    if verdict not in VERDICTS:
        raise ValueError(f"verdict={verdict!r} is unknown; expected one of {', '.join(VERDICTS)}")
    undecided = verdict == "undecided here"
    if (above is not None) + (below is not None) != (0 if undecided else 1):
        raise ValueError("exactly one of above and below is needed, and neither for 'undecided here'")
    if not isinstance(measured, Interval):
        measured = Interval(float(measured), float(measured), float(measured), 0.0, 1)
    if undecided:
        condition, distance = "within 4 standard errors of 0", 4 * measured.standard_error - abs(measured.mean)
    elif above is not None:
        condition, distance = f"above {above:g}", measured.mean - above
    else:
        condition, distance = f"below {below:g}", below - measured.mean
    margin = distance / measured.standard_error if measured.standard_error > 0 else math.inf
    supported = bool(distance > 0)
    if not supported and dataset == BOOK_DATA:
        raise AssertionError(f"{id}: {text} Measured {measured}{unit and ' ' + unit}, expected {condition}.")
    facts = {"id": id, "verdict": verdict, "text": text, "unit": unit, "condition": condition, "dataset": dataset}
    facts |= {"mean": measured.mean, "low": measured.low, "high": measured.high, "count": measured.count}
    facts |= {"supported": supported, "margin": margin if math.isfinite(margin) else None}
    _display_claim(facts, measured)


def _display_claim(facts: dict, measured: Interval) -> None:
    """A card for a reader, and the facts as metadata for the ledger."""
    from IPython.display import display

    id, verdict, unit, margin = (facts[name] for name in ("id", "verdict", "unit", "margin"))
    asserted = f"asserted: {facts['condition']}"
    if measured.count == 1:
        numbers = f"{measured.mean:.4g} {unit}".strip() + f" (exact, or one fixed run; {asserted})"
    else:
        numbers = f"{measured} {unit}".strip() + f" ({measured.count} seeds, 95% interval; {asserted}, "
        numbers += "no spread)" if margin is None else f"margin {margin:.1f} standard errors)"
    place = "" if facts["dataset"] == BOOK_DATA else f" on {facts['dataset']}"
    heading = f"{id}: {verdict}{place}." if facts["supported"] else f"{id}: not so{place}; on {BOOK_DATA}: {verdict}."
    colour = verdict.replace(" ", "-") if facts["supported"] else "not-here"
    card = (
        f'<div class="bn-claim bn-{colour}" style="border-left: 4px solid; padding: 0.3em 0.9em; margin: 0.6em 0">'
        f"<strong>{html.escape(heading)}</strong> {html.escape(facts['text'])}<br>"
        f"<small>Measured: {html.escape(numbers)}</small></div>"
    )
    plain = f"{heading} {facts['text']} Measured: {numbers}"
    metadata = {"bncourse_claim": facts | {"statement": statements()[id].source}}
    display({"text/html": card, "text/plain": plain}, metadata=metadata, raw=True)
