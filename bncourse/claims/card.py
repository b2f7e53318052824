"""A claim: a prediction of the source, judged by what was measured, and shown as a card."""

import html
import math
import os
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from bncourse.claims.rule import HOLDS, IF, NOT, NOT_MEASURABLE, UNDECIDED, overall, verdict
from bncourse.claims.texts import Finding, Statement, expected, finding, places, replicated, statement_of, units
from bncourse.experiments import BOOK_DATA, EXPLORATION, Interval, Runs, exploring, interval
from bncourse.training import quick

__all__ = [
    "BOOK_DATA",
    "Prediction",
    "check",
    "claim",
    "details",
    "exact",
    "less",
    "more",
    "rounded",
    "same",
    "summary",
]


class Prediction(NamedTuple):
    """What the source predicts of what we measured: ``more`` or ``less`` than ``than``, or ``same`` as it."""

    word: str
    measured: Runs | Interval
    than: float = 0.0


def more(measured, than=0.0) -> Prediction:
    """Predict that ``measured`` is more than ``than``.

    Args:
        measured: ``Runs``, one number for each seed, or an interval such as that of ``share``.
        than: a number that the statement names, or ``Runs`` of the same seeds, which are subtracted seed by seed.

    Raises:
        ValueError: the two are not of the same seeds.
    """
    return _predict("more", measured, than)


def less(measured, than=0.0) -> Prediction:
    """Predict that ``measured`` is less than ``than``; arguments as in ``more``."""
    return _predict("less", measured, than)


def same(measured, than=0.0) -> Prediction:
    """Predict that ``measured`` is ``than``, but for what does not matter; arguments as in ``more``."""
    return _predict("same", measured, than)


def _predict(word: str, measured, than) -> Prediction:
    if not isinstance(than, Runs):
        return Prediction(word, measured, float(than))
    if getattr(measured, "seeds", None) != than.seeds:
        raise ValueError(f"than must be of the same seeds, got {than.seeds} for {getattr(measured, 'seeds', measured)}")
    return Prediction(word, measured - than)


def claim(name: str, unit: str, prediction: Prediction, *, dataset: str = BOOK_DATA) -> None:
    """Judge a prediction of the source by what was measured, and show the verdict in its words.

    A quick run (see ``bncourse.training.quick``) judges nothing: the card says so.

    Args:
        name: of one of the statement's findings.
        unit: one of ``units()``; its ``d`` is the smallest effect that matters.
        prediction: ``more(...)``, ``less(...)`` or ``same(...)``.
        dataset: the name of the data set that it was measured on.

    Raises:
        ValueError: an unknown finding or unit, no prediction, runs whose seeds are not known or are those of the
            exploration, an outcome without a sentence, or, on the book's data, runs that diverged.
    """
    about = finding(name)
    if unit not in units():
        raise ValueError(f"{name}: unit must be one of {', '.join(units())}, got {unit!r}")
    if not isinstance(prediction, Prediction):
        raise ValueError(f"{name}: prediction must be more(...), less(...) or same(...), got {prediction!r}")
    chosen, measured = units()[unit], prediction.measured
    seeds: tuple[int, ...] = ()
    if not isinstance(measured, Interval):
        seeds = _seeds(name, measured)
        measured = interval(measured)
    low, high = (end - prediction.than for end in measured[1:3])
    found, remark = verdict(prediction.word, low, high, chosen.d)
    if found == NOT_MEASURABLE and dataset == BOOK_DATA and not quick():
        raise ValueError(f"{name}: runs must give finite numbers, got {prediction.measured}: one diverged")
    facts = {"unit": unit, "predicts": prediction.word, "than": prediction.than, "d": chosen.d, "remark": remark}
    mean = 0.0 if abs(measured.mean) < chosen.d / 1000 else measured.mean  # what adding up rounded numbers leaves
    facts |= {"mean": mean, "low": measured.low, "high": measured.high, "count": measured.count}
    facts |= {"seeds": list(seeds), "overlap": getattr(prediction.measured, "overlap", 0.0), "kind": "interval"}
    facts |= {"level": _level(prediction.word, measured, prediction.than, chosen.d), "found": found}
    elsewhere = replicated()["verdicts"].get(name, found)
    if elsewhere != found and dataset == BOOK_DATA and "BNCOURSE_SEEDS" not in os.environ:
        facts["remark"] = f"{found} on these seeds, but {elsewhere} on seeds {replicated()['seeds']}"
        found = UNDECIDED
    _show(about, found, facts, dataset, chosen.base)


def exact(name: str, difference: float | Tensor, *, rounding: float = 0.0, dataset: str = BOOK_DATA) -> None:
    """Judge what is algebra, and does not depend on chance: it holds if the difference is rounding.

    Args:
        name: of one of the statement's findings.
        difference: a number or a tensor of one, between what the source says and what was computed; a count, or 1 for
            "no", where nothing rounds.
        rounding: the difference that was seen when the cell was written; ten times as much is allowed.

    Raises:
        ValueError: an unknown finding, an outcome without a sentence, or a difference that is not finite.
    """
    about = finding(name)
    difference = abs(float(difference.detach() if isinstance(difference, Tensor) else difference))
    if not math.isfinite(difference):
        raise ValueError(f"{name}: difference must be finite, got {difference}")
    facts = {"unit": "difference", "predicts": "exact", "than": 0.0, "d": 10 * rounding, "remark": ""}
    facts |= {"mean": difference, "low": difference, "high": difference, "count": 1, "seeds": [], "overlap": 0.0}
    found = HOLDS if difference <= 10 * rounding else NOT
    _show(about, found, facts | {"kind": "exact", "level": None, "found": found}, dataset)


def _seeds(name: str, runs) -> tuple[int, ...]:
    """The seeds of the runs, which have to be known, and not to have chosen the design."""
    seeds = getattr(runs, "seeds", ())
    if getattr(runs, "ndim", 0) != 1 or len(seeds) != len(runs):
        raise ValueError(f"{name}: measured must be Runs, one number for each seed, got {runs!r}")
    if (explored := sorted(set(seeds) & set(EXPLORATION))) and not exploring():
        raise ValueError(f"{name}: seeds must not be those of the exploration, 0 to 4, got {explored}")
    return seeds


def _level(predicts: str, measured: Interval, than: float, d: float) -> float | None:
    """The level 1 - confidence at which the interval would just touch the nearest bound of the rule."""
    from scipy import stats

    mean = (measured.mean - than) * (-1 if predicts == "less" else 1)
    if not math.isfinite(mean):
        return None
    distance = abs((abs(mean) if predicts == "same" else mean) - d)
    if math.isnan(measured.standard_error):  # a share
        bound = min(max(than + (-d if predicts == "less" else d), 0.0), 1.0)
        tails = stats.binom(measured.count, bound)
        successes = round(measured.mean * measured.count)
        return float(min(1.0, 2 * min(tails.cdf(successes), tails.sf(successes - 1))))
    if measured.standard_error == 0:
        return 0.0
    return float(2 * stats.t.sf(distance / measured.standard_error, measured.count - 1))


session: dict[str, str] = {}  # the verdicts of the findings so far, for that of a whole statement


def _show(about: Finding, found: str, facts: dict[str, Any], dataset: str, base: float | None = None) -> None:
    """A card for a reader, and the facts as metadata for the ledger."""
    from IPython.display import display

    if settles_nothing := "A quick run" if quick() else "An exploration" if exploring() else "":
        found, text = UNDECIDED, f"{settles_nothing}, which settles nothing."
    elif found == NOT_MEASURABLE:
        text = "A run diverged, or never reached the point of comparison."
    else:
        text = _filled(about, found, facts, base)
    session[about.name] = found
    statement = statement_of(about)
    facts = {"id": statement.id, "name": about.name, "text": text, "verdict": found} | facts | {"dataset": dataset}
    facts |= {"condition": about.condition, "statement": statement.source}
    facts |= {end: None for end in ("mean", "low", "high") if not math.isfinite(facts[end])}  # JSON has no NaN
    there = "" if dataset == BOOK_DATA else f" on {dataset}"
    so = f"{found}{there}" + (f" ({facts['remark']})" if facts["remark"] else "")
    wanted = expected().get(about.name)
    if wanted not in (None, found) and not settles_nothing:
        so += f"; in the book, on {BOOK_DATA}: {wanted}"
    heading, whole = f"{statement.id}. {statement.speaker}: {statement.source}", _whole(statement)
    plain = f"{heading}\nWe find: {text}\nSo: {so}.{whole and ' ' + whole}\n{details(facts)}"
    card = (
        f'<div class="bn-claim bn-{found.replace(" ", "-")}" style="border-left: 4px solid; padding: 0.3em 0.9em; '
        f'margin: 0.6em 0"><strong>{statement.id}.</strong> {statement.speaker}: '
        f"<em>{html.escape(statement.source)}</em><br>"
        f"We find: {html.escape(text)}<br>So: <strong>{html.escape(so)}</strong>. {html.escape(whole)}"
        f"<details><summary>Details</summary><small>{html.escape(details(facts))}{_who(statement)}</small></details></div>"
    )
    display({"text/html": card, "text/plain": plain}, metadata={"bncourse_claim": facts}, raw=True)


def _who(statement: Statement) -> str:
    """The public places that say, deny or qualify the statement, as links."""
    found = places()[statement.id]
    if isinstance(found, dict):
        return ""
    links = (
        f'{html.escape(one["who"])}, <a href="{html.escape(one["url"])}">{html.escape(one["title"])}</a> '
        f"({one['stance']} it)"
        for one in found
    )
    return f"<br>Who else: {'; '.join(links)}."


def _whole(statement: Statement) -> str:
    """The statement's verdict, once all its findings have been shown."""
    verdicts = [session.get(one.name) for one in statement.findings]
    if None in verdicts or quick() or exploring() or NOT_MEASURABLE in verdicts or len(verdicts) == 1:
        return ""
    return f"All in all, {statement.id} {summary(statement, verdicts)}."


def summary(statement: Statement, verdicts: Sequence[str]) -> str:
    """A statement's verdict in words, with its conditions.

    Raises:
        ValueError: as ``overall``, and the message names the statement.
    """
    try:
        found = overall(verdicts, [one.condition for one in statement.findings])
    except ValueError as error:
        raise ValueError(f"{statement.id}: {error}") from error
    if found != IF:
        return "is undecided here" if found == UNDECIDED else found
    conditions = dict.fromkeys(
        one.condition for one, had in zip(statement.findings, verdicts, strict=True) if had != HOLDS
    )
    return f"{IF} {', and '.join(conditions)}"


def details(facts: Mapping[str, Any]) -> str:
    """What was measured and what was predicted, in a line."""
    if facts["kind"] == "exact":
        return f"Exact: the difference is {rounded(facts['mean'])}; rounding explains up to {rounded(facts['d'])}."
    if facts["mean"] is None:
        return "Nothing could be measured."
    unit, than = units()[facts["unit"]], facts["than"]

    def amount(number: str) -> str:
        return f"{number} {unit.shown.removesuffix('s') if number == '1' else unit.shown}".strip()

    if facts["predicts"] == "same":
        predicted = f"{amount(f'{than:g}') if than else 'the same'}, within {amount(f'{unit.d:g}')}"
    else:
        predicted = f"{facts['predicts']}{f' than {than:g}' if than else ''}, by at least {amount(f'{unit.d:g}')}"
    ends = amount(f"{facts['mean']:.3g} [{facts['low']:.3g}, {facts['high']:.3g}]")
    seeds = f"seeds ({facts['seeds'][0]} to {facts['seeds'][-1]})" if facts["seeds"] else "runs"
    anew = ", each with a fresh split of the data" if facts["overlap"] else ""
    return f"Measured: {ends}, a 95% interval; {facts['count']} {seeds}{anew}. Predicted: {predicted}."


def rounded(number: float, digits: int = 2) -> str:
    """To two digits, with a minus sign, and without an exponent where that reads well."""
    value = float(f"{number:.{digits}g}")
    text = f"{value:,.0f}" if 10 <= abs(value) < 1e6 else f"{value:g}"
    return text.replace("-", "−") if text.startswith("-") else text


def _filled(about: Finding, found: str, facts: Mapping[str, Any], base: float | None) -> str:
    """The outcome's sentence with its number: {mean}, {size} without its sign, or {factor} of a logarithm."""
    numbers = {
        "mean": rounded(facts["mean"]),
        "size": rounded(abs(facts["mean"])),
        "percent": rounded(100 * facts["mean"]),
    }
    if base is not None:
        numbers["factor"] = rounded(base ** abs(facts["mean"]))
    sentence = about.sentence(found)
    fields = {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}
    if unknown := fields - set(numbers):
        raise ValueError(
            f"{about.name}: a sentence must have only {', '.join(numbers)} in braces, got {sorted(unknown)}"
        )
    return sentence.format(**numbers)


def check(claims: Iterable[Mapping[str, Any]], wanted: Mapping[str, str]) -> list[str]:
    """How the verdicts of an executed chapter differ from those that are expected, a sentence for each."""
    return [
        f"{one['name']}: the book expects {verdict!r}, got {one['verdict']!r}. {details(one)}"
        for one in claims
        if (verdict := wanted.get(one["name"], "nothing yet")) != one["verdict"]
    ]
