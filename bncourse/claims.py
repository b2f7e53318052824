"""Statements and their verdicts: what a chapter says it found, checked against what it measured.

``statements.toml`` has the statements of the source; ``claim`` settles one of them in a chapter, and the ledger and the
page on other data read the metadata of what it displays.
"""

import html
import math
import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from bncourse.experiments import Interval
from bncourse.training import quick

__all__ = ["VERDICTS", "Statement", "claim", "statements"]

VERDICTS = ("holds", "holds if", "does not hold", "undecided here")
BOOK_DATA = "digits"


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

    On another data set than the book's a claim that fails is a finding: it is shown as one, and nothing is raised. A
    quick run (see ``bncourse.training.quick``) settles nothing: the card says so, and nothing is raised.

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
        raise ValueError(f"id must be one of {', '.join(statements())}, got {id!r}")
    if verdict not in VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    undecided = verdict == "undecided here"
    if (above is not None) + (below is not None) != (0 if undecided else 1):
        wanted = "neither above nor below" if undecided else "exactly one of above and below"
        raise ValueError(f"{verdict!r} must have {wanted}, got above={above}, below={below}")
    if not isinstance(measured, Interval):
        measured = Interval(float(measured), float(measured), float(measured), 0.0, 1)
    if undecided:
        condition, distance = "within 4 standard errors of 0", 4 * measured.standard_error - abs(measured.mean)
    elif above is not None:
        condition, distance = f"above {above:g}", measured.mean - above
    else:
        condition, distance = f"below {below:g}", below - measured.mean
    margin = distance / measured.standard_error if measured.standard_error > 0 else math.inf
    supported = bool(distance > 0) and not quick()
    if not supported and dataset == BOOK_DATA and not quick():
        raise AssertionError(f"{id}: {text} Measured {measured}{unit and ' ' + unit}, expected {condition}.")
    facts = {"id": id, "verdict": verdict, "text": text, "unit": unit, "condition": condition, "dataset": dataset}
    ends = {"mean": measured.mean, "low": measured.low, "high": measured.high}
    facts |= {name: end if math.isfinite(end) else str(end) for name, end in ends.items()}  # JSON has no NaN
    facts["count"] = measured.count
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
    if quick():
        heading = f"{id}: quick run, which settles nothing."
    colour = verdict.replace(" ", "-") if facts["supported"] else "not-here"
    card = (
        f'<div class="bn-claim bn-{colour}" style="border-left: 4px solid; padding: 0.3em 0.9em; margin: 0.6em 0">'
        f"<strong>{html.escape(heading)}</strong> {html.escape(facts['text'])}<br>"
        f"<small>Measured: {html.escape(numbers)}</small></div>"
    )
    plain = f"{heading} {facts['text']} Measured: {numbers}"
    metadata = {"bncourse_claim": facts | {"statement": statements()[id].source}}
    display({"text/html": card, "text/plain": plain}, metadata=metadata, raw=True)
