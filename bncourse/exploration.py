"""Designs that are found on other seeds than those that confirm them: what was chosen stands in ``chosen.toml``."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from bncourse.experiments import EXPLORATION, Splits, compare, exploring

__all__ = ["choose", "explored"]


def choose(
    name: str, candidates: Mapping[Any, Callable], *, splits: Splits | None = None, at_once: bool = False
) -> Any:
    """The candidate that did best on the seeds of the exploration.

    In the book this reads what was chosen and runs nothing. ``python -m tools.explore CHAPTER`` runs every candidate
    with the seeds 0 to 4 and writes the one with the largest mean, with all the means, to ``chosen.toml``.

    Args:
        name: under which the choice is kept.
        candidates: for each value a function of the seed that returns what should be large, as in ``compare``.
        splits: as in ``compare``.
        at_once: the candidates are functions of all seeds at once, such as networks that are trained side by side, and
            return a number for each.

    Raises:
        ValueError: nothing has been chosen under that name, or among other candidates.
    """
    if exploring():
        means = {}
        for value, run in candidates.items():
            found = run(EXPLORATION) if at_once else compare({value: run}, EXPLORATION, splits=splits)[value]
            means[value] = float(found.mean())
        best = max(means, key=means.__getitem__)
        choice = {"value": best, "among": list(means), "means": list(means.values())}
        _chosen()[name] = choice
        print(f"{name}: {best} of {', '.join(f'{value} ({mean:.3g})' for value, mean in means.items())}")
        if kept := os.environ.get("BNCOURSE_CHOSEN"):
            with open(kept, "a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name} | choice) + "\n")
        return best
    if _chosen().get(name, {}).get("among") != list(candidates):
        raise ValueError(f"name must have been chosen among {list(candidates)} by tools.explore, got {name!r}")
    return _chosen()[name]["value"]


def explored(name: str) -> dict[Any, float]:
    """The mean of each candidate on the seeds of the exploration, as ``choose`` kept it under that name.

    Raises:
        ValueError: nothing has been chosen under that name.
    """
    if name not in _chosen():
        raise ValueError(f"name must have been chosen by tools.explore, got {name!r}")
    return dict(zip(_chosen()[name]["among"], _chosen()[name]["means"], strict=True))


@cache
def _chosen() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("chosen.toml").read_text(encoding="utf-8"))
