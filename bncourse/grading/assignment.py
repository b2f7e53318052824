"""What is graded: the questions of an assignment and their cases, as ``instructor/make.py`` wrote them."""

import glob
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from bncourse.grading.names import BadArgument


@dataclass(frozen=True)
class Case:
    """One case: a function, as source, whose parameters are names that the notebook should define."""

    name: str
    hidden: bool
    points: float
    source: str


@dataclass(frozen=True)
class Explanation:
    """What a student should explain in words, for a person to grade: its points, the notebook's text, how to judge."""

    points: float
    prompt: str
    rubric: str = ""
    good: str = ""
    weak: str = ""


@dataclass(frozen=True)
class Question:
    """A question and its cases; with ``all_or_nothing`` one failed case costs all points of the cases."""

    name: str
    points: float
    all_or_nothing: bool
    cases: tuple[Case, ...]
    explanation: Explanation | None = None
    given: tuple[str, ...] = ()  # its cells as students got them

    def score(self, passed: list[bool]) -> float:
        """The points for cases that passed or failed."""
        if self.all_or_nothing:
            return self.points if passed and all(passed) else 0.0
        return round(sum(case.points for case, ok in zip(self.cases, passed, strict=True) if ok), 4)


@dataclass(frozen=True)
class Assignment:
    """A named list of questions; ``path`` is the file they came from, ``digest`` changes whenever they do."""

    name: str
    questions: tuple[Question, ...]
    path: Path
    digest: str

    @property
    def points(self) -> float:
        return sum(q.points + (q.explanation.points if q.explanation else 0.0) for q in self.questions)

    def only(self, names: list[str]) -> "Assignment":
        """A part of it: the questions of these names.

        Raises:
            BadArgument: if it has no such question.
        """
        known = [question.name for question in self.questions]
        if unknown := [name for name in names if name not in known]:
            raise BadArgument(f"exercises must be some of {', '.join(known)}, got {', '.join(unknown)}")
        digest = hashlib.sha256(" ".join([self.digest, *sorted(set(names))]).encode()).hexdigest()
        return replace(self, questions=tuple(q for q in self.questions if q.name in names), digest=digest)

    @classmethod
    def read(cls, path: Path) -> "Assignment":
        """Read an autograder.json."""
        content = path.read_bytes()
        data = json.loads(content)
        questions = tuple(
            Question(
                **q
                | {"cases": tuple(Case(**case) for case in q["cases"])}
                | {"explanation": Explanation(**q["explanation"]) if q.get("explanation") else None}
                | {"given": tuple(q.get("given", ()))}
            )
            for q in data["questions"]
        )
        return cls(data["name"], questions, path.resolve(), hashlib.sha256(content).hexdigest())


def find_assignment(name: str, folder: Path = Path("instructor/_build")) -> Assignment:
    """The assignment of that name, or from that autograder.json.

    Raises:
        FileNotFoundError: if there is none, with the names there are.
    """
    path = Path(name) if name.endswith(".json") else folder / name / "autograder.json"
    begun = sorted(folder.glob(f"{glob.escape(name)}*/autograder.json")) if not path.is_file() else []
    if len(begun) == 1:
        return Assignment.read(begun[0])  # the only one that begins so
    if not path.is_file():
        known = ", ".join(sorted(found.parent.name for found in folder.glob("*/autograder.json"))) or "none yet"
        raise FileNotFoundError(
            f"assignment must be an autograder.json or a name that `make exercises` made ({known}), got {name!r}"
        )
    return Assignment.read(path)
