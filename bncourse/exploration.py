"""Designs are chosen on other seeds than those that confirm them; the choices are kept in ``chosen.toml``."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from bncourse.experiments import BOOK_DATA, EXPLORATION, Splits, compare, exploring, one_thread

__all__ = ["choose", "choose_at_once", "explored"]


def choose(name: str, candidates: Mapping[Any, Callable[[int], float]], *, splits: Splits | None = None) -> Any:
    """The candidate that did best on the seeds of the exploration.

    In the book this reads what was chosen and runs nothing. ``python -m tools.explore CHAPTER`` runs every candidate
    with the seeds 0 to 4 and writes the one with the largest mean, with all the means, to ``chosen.toml``. Each data
    set has choices of its own (``--data``); where nobody has made them, those of the book's data are taken.

    Args:
        name: under which the choice is kept.
        candidates: for each value a function of the seed that returns what should be large, as in ``compare``.
        splits: as in ``compare``; their data set is the one that the choice is for.

    Raises:
        ValueError: nothing has been chosen under that name, or among other candidates.
    """

    def mean(value: Any) -> float:
        return float(compare({value: candidates[value]}, EXPLORATION, splits=splits)[value].mean())

    return _choose(name, list(candidates), lambda: list(map(mean, candidates)), splits)


def choose_at_once(
    name: str, candidates: Sequence[Any], run: Callable[[Sequence[int]], Any], *, splits: Splits | None = None
) -> Any:
    """``choose`` where one call runs all candidates with all seeds, as ``studies.many_networks`` does.

    Args:
        run: given the seeds, it returns what should be large: (seeds, candidates).
        splits: as in ``choose``.

    Raises:
        ValueError: as ``choose``.
    """

    def means() -> list[float]:
        with one_thread():
            return [float(column.mean()) for column in np.asarray(run(list(EXPLORATION))).T]

    return _choose(name, list(candidates), means, splits)


def explored(name: str) -> dict[Any, float]:
    """The mean of each candidate on the seeds of the exploration, as ``choose`` kept it under that name.

    Raises:
        ValueError: nothing has been chosen under that name.
    """
    if name not in _chosen():
        raise ValueError(f"name must have been chosen by tools.explore, got {name!r}")
    return dict(zip(_chosen()[name]["among"], _chosen()[name]["means"], strict=True))


def _choose(name: str, candidates: list, means: Callable[[], list[float]], splits: Splits | None) -> Any:
    of_the_book, dataset = name, splits.dataset if splits else BOOK_DATA
    name = name if dataset == BOOK_DATA else f"{name}, {dataset}"
    if exploring():
        found = means()
        best = candidates[int(np.argmax(found))]
        tried = ", ".join(f"{value} ({mean:.3g})" for value, mean in zip(candidates, found, strict=True))
        print(f"{name}: {best} of {tried}")
        choice = {"value": best, "among": candidates, "means": found}
        _chosen()[name] = choice
        if path := os.environ.get("BNCOURSE_CHOSEN"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name} | choice) + "\n")
        return best
    if name not in _chosen() and name != of_the_book:
        print(f"{of_the_book}: chosen on {BOOK_DATA}, not on {dataset}")
        name = of_the_book
    if _chosen().get(name, {}).get("among") != candidates:
        raise ValueError(f"name must have been chosen among {candidates} by tools.explore, got {name!r}")
    return _chosen()[name]["value"]


@cache
def _chosen() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("chosen.toml").read_text(encoding="utf-8"))
