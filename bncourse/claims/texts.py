"""What a claim may say: the statements of the source with our sentences, the units, and the verdicts that are expected.

A file for each chapter's statements, ``P.toml`` to ``M.toml``, and ``F.toml`` for what others say that the source does
not; ``units.toml``, the smallest effect that matters in each unit; ``verdicts.toml``, what the committed book found;
``replicated.toml``, what other seeds gave; ``last_edition.toml`` and ``changes.toml``, what the previous edition
found, and why that has changed.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from bncourse.claims.rule import HOLDS, NOT, UNDECIDED

__all__ = [
    "Change",
    "Finding",
    "Statement",
    "Unit",
    "changes",
    "expected",
    "finding",
    "last_edition",
    "replicated",
    "statements",
    "units",
]

CHAPTERS = "PATRILVSDMF"  # the letters of the statements: the source's, in its order, then F for the literature
SENTENCES = {HOLDS: "holds", NOT: "not", UNDECIDED: "undecided"}  # their names in the files


class Unit(NamedTuple):
    """What a claim is measured in: the smallest effect that matters, and why."""

    name: str
    d: float
    shown: str
    reason: str
    base: float | None = None


class Finding(NamedTuple):
    """One thing that we measured about a statement, with a sentence for each outcome.

    ``condition`` is what the statement would need where this finding does not hold; the first, decisive one has none.
    """

    name: str
    statement: str
    sentences: Mapping[str, str]
    condition: str = ""

    def sentence(self, verdict: str) -> str:
        """What we found, where that is the verdict; a ``ValueError`` if nobody has written it."""
        if SENTENCES[verdict] not in self.sentences:
            raise ValueError(f"{self.name}: its file must have a sentence for {verdict!r}, got none")
        return self.sentences[SENTENCES[verdict]]


class Statement(NamedTuple):
    """A statement of the source: its id, the chapter that examines it, the source's words, and our findings."""

    id: str
    chapter: int
    source: str
    findings: tuple[Finding, ...] = ()

    @property
    def speaker(self) -> str:
        """Who says it: the text that the course tests or, with an id F, papers and documentation."""
        return "The literature says" if self.id.startswith("F") else "The source says"


class Change(NamedTuple):
    """A finding whose verdict differs from that in the previous edition, and the reason."""

    edition: str
    finding: str
    before: str
    after: str
    why: str


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def units() -> dict[str, Unit]:
    """What claims are measured in, by name."""
    return {name: Unit(name, **row) for name, row in _table("units.toml").items()}


def statements() -> dict[str, Statement]:
    """The statements of the source that the book examines, by id, in the source's order; the decisive finding first."""
    return {id: statement for letter in CHAPTERS for id, statement in _statements(letter).items()}


@cache
def _statements(letter: str) -> dict[str, Statement]:
    """Those of one chapter: a claim reads no others, so that a new sentence runs no other chapter again."""
    return {id: _statement(id, row) for id, row in _table(f"{letter}.toml").items()}


def _statement(id: str, row: dict[str, Any]) -> Statement:
    rows = {name: sentences for name, sentences in row.items() if isinstance(sentences, dict)}
    findings = [Finding(f"{id}.{name}", id, row, row.get("condition", "")) for name, row in rows.items()]
    return Statement(id, row["chapter"], row["source"], tuple(findings))


def finding(name: str) -> Finding:
    """The finding with that name, ``STATEMENT.word``.

    Raises:
        ValueError: there is none.
    """
    id = name.partition(".")[0]
    if id[:1] not in tuple(CHAPTERS) or id not in _statements(id[0]):
        raise ValueError(f"name must begin with one of {', '.join(statements())}, got {name!r}")
    found = {one.name: one for one in _statements(id[0])[id].findings}
    if name not in found:
        raise ValueError(f"name must be one of {', '.join(found)}, got {name!r}")
    return found[name]


def statement_of(about: Finding) -> Statement:
    """The statement that a finding is about."""
    return _statements(about.statement[0])[about.statement]


@cache
def places() -> dict[str, Any]:
    """Who says it: for each statement up to three public places, or where we have looked."""
    return tomllib.loads(files("bncourse").joinpath("sources.toml").read_text(encoding="utf-8"))


@cache
def expected() -> dict[str, str]:
    """The verdicts of the committed book by finding, which ``python -m tools.verdicts`` writes."""
    return _table("verdicts.toml")


@cache
def replicated() -> dict[str, Any]:
    """The verdicts on other ``seeds``, which ``python -m tools.replicate`` writes."""
    return _table("replicated.toml")


@cache
def last_edition() -> dict[str, str]:
    """The verdicts of the last published edition by finding."""
    return _table("last_edition.toml")


@cache
def changes() -> list[Change]:
    """The verdicts that have changed from edition to edition, the newest edition first."""
    rows = _table("changes.toml").get("change", [])
    return [Change(row["edition"], row["finding"], row["from"], row["to"], row["why"]) for row in rows]
