"""Statements of the source and their verdicts: a chapter gives what it measured and what the source predicts.

``rule`` makes the verdict, ``texts`` has the words, and ``card`` shows both.
"""

from bncourse.claims.card import (
    BOOK_DATA,
    Prediction,
    check,
    claim,
    details,
    exact,
    less,
    more,
    rounded,
    same,
    summary,
)
from bncourse.claims.rule import VERDICTS, holm, overall, verdict
from bncourse.claims.texts import Finding, Statement, Unit, expected, finding, statements, units

__all__ = [
    "BOOK_DATA",
    "VERDICTS",
    "Finding",
    "Prediction",
    "Statement",
    "Unit",
    "check",
    "claim",
    "details",
    "exact",
    "expected",
    "finding",
    "holm",
    "less",
    "more",
    "overall",
    "rounded",
    "same",
    "statements",
    "summary",
    "units",
    "verdict",
]
