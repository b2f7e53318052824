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
from bncourse.claims.texts import (
    Change,
    Finding,
    Statement,
    Unit,
    changes,
    expected,
    finding,
    last_edition,
    statements,
    units,
)

__all__ = [
    "BOOK_DATA",
    "VERDICTS",
    "Change",
    "Finding",
    "Prediction",
    "Statement",
    "Unit",
    "changes",
    "check",
    "claim",
    "details",
    "exact",
    "expected",
    "finding",
    "holm",
    "last_edition",
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
