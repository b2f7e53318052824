"""A rule: when it fires, how bad that is, and why."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bncourse.doctor.finding import SEVERITIES, Finding

__all__ = ["LEVELS", "RULES", "Rule", "Sign", "findings_of", "rule"]

LEVELS = {"S": "static", "F": "forward", "W": "watch"}  # by the first letter of a rule's number


class Sign(NamedTuple):
    """What a rule saw: the layers, the worst first, what was measured, what to do; how bad it is, if not as usual."""

    modules: Iterable[str]
    measured: str
    fix: str
    severity: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule of the doctor.

    Attributes:
        id: "BN-" and a letter for the level: S static, F one forward pass, W watching.
        severity: how bad it usually is; a finding's may differ.
        level: "static", "forward" or "watch": what the rule needs.
        title: a few words.
        explanation: what it means, and what is measured.
        chapter: the chapter of the book to read.
        group: the file that the rule stands in: "statistics", "shapes", ...
    """

    id: str
    severity: str
    level: str
    title: str
    explanation: str
    chapter: int
    group: str
    check: Callable[[Any], Iterator[Sign]]


RULES: list[Rule] = []


def rule(id: str, severity: str, title: str, chapter: int) -> Callable:
    """Register a function of what was examined, a ``Patient`` or a ``Record`` of watching, that yields ``Sign``."""

    def register(check: Callable[[Any], Iterator[Sign]]) -> Callable:
        group = check.__module__.rpartition(".")[2].removeprefix("rules_")
        explanation = inspect.getdoc(check) or ""
        RULES.append(Rule(id, severity, LEVELS[id[3]], title, explanation, chapter, group, check))
        return check

    return register


def findings_of(examined: Any, level: str) -> list[Finding]:
    """What the rules of a level find."""
    found = []
    for each in RULES:
        if each.level == level:
            for sign in each.check(examined):
                names = tuple(sign.modules)
                found.append(
                    Finding(
                        each.id,
                        sign.severity or each.severity,
                        names[0] if names else "",
                        sign.measured,
                        sign.fix,
                        each.chapter,
                        names,
                    )
                )
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
