"""The one rule for verdicts, the same in a chapter, in the ledger and on other data."""

import math
from collections.abc import Mapping, Sequence

__all__ = ["HOLDS", "IF", "NOT", "NOT_MEASURABLE", "UNDECIDED", "VERDICTS", "holm", "overall", "verdict"]

HOLDS, NOT, UNDECIDED, IF = VERDICTS = ("holds", "does not hold", "undecided here", "holds if")
NOT_MEASURABLE = "not measurable"


def verdict(predicts: str, low: float, high: float, d: float) -> tuple[str, str]:
    """The rule: whether a prediction holds, and a remark.

    Args:
        predicts: "more", "less" or "same".
        low, high: the ends of the 95% interval of the effect.
        d: the smallest effect that matters.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return NOT_MEASURABLE, ""
    if predicts == "less":
        low, high = -high, -low
    within = -d < low and high < d
    if predicts == "same":
        if within:
            return HOLDS, ""
        return (NOT, "more" if low >= d else "less") if low >= d or high <= -d else (UNDECIDED, "")
    if low >= d:
        return HOLDS, ""
    if high < d:
        return NOT, "no difference that matters" if within else "the opposite" if high <= -d else ""
    return UNDECIDED, ""


def overall(verdicts: Sequence[str], conditions: Sequence[str]) -> str:
    """A statement's verdict from its findings' verdicts and conditions, the decisive finding first.

    It holds if all findings do; else it is as the decisive finding is, unless that one holds: then the statement
    "holds if", under the conditions of those that do not.

    Raises:
        ValueError: the decisive finding holds, and one that does not has no condition.
    """
    first, *others = verdicts
    if first != HOLDS or all(one == HOLDS for one in others):
        return first
    for number, (one, condition) in enumerate(zip(verdicts, conditions, strict=True), start=1):
        if one != HOLDS and not condition:
            raise ValueError(f"finding {number} must have a condition, since it {one} where the first holds; got none")
    return IF


def holm(levels: Mapping[str, float]) -> dict[str, float]:
    """The levels of many findings, adjusted so that the chance of even one wrong verdict is at most 5% (Holm 1979).

    Args:
        levels: for each finding the level at which its interval would just touch a bound of the rule.
    """
    adjusted, highest = {}, 0.0
    for left, name in zip(range(len(levels), 0, -1), sorted(levels, key=levels.__getitem__), strict=True):
        highest = max(highest, min(1.0, left * levels[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in levels}
