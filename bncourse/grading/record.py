"""What grading one submission brought: a status, the reason for it, and how every case went."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """How one case went; `message` and `hint` are for the student if the case is public."""

    passed: bool
    message: str = ""
    hint: str | None = None
    kind: str = ""

    @classmethod
    def from_report(cls, report: dict[str, Any]) -> "Outcome":
        """From what the worker sent: of the right types, and of text that can be written to a file."""
        hint = report.get("hint")
        return cls(report["passed"] is True, text(report["message"]), hint and text(hint), text(report["kind"]))


@dataclass
class Record:
    """All that grading one submission brought."""

    student: str
    file: str
    digest: str
    status: str
    reason: str = ""
    flags: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Record":
        data = json.loads(text)
        data["outcomes"] = {name: [Outcome(**o) for o in outcomes] for name, outcomes in data["outcomes"].items()}
        return cls(**data)


def texts(value: Any) -> list[str]:
    return [text(item)[:100] for item in value[:50]] if isinstance(value, list) else []


def text(value: Any) -> str:
    """As text that every file and terminal takes: no lone surrogates."""
    return str(value).encode("utf-8", "backslashreplace").decode()
