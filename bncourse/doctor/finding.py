"""What the doctor finds, and how it says so."""

import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

__all__ = ["SEVERITIES", "Diagnosis", "Finding"]

SEVERITIES = ("error", "warning", "note")  # worst first
WIDTH = 72  # columns, as many as a page shows


@dataclass(frozen=True)
class Finding:
    """One rule's finding in a model.

    Attributes:
        rule: the rule's id, such as "BN-S03"; ``bncourse doctor --explain ID`` explains it.
        severity: "error", "warning" or "note".
        module: the layer concerned, by its name in ``model.named_modules()``, the worst of several; "" is the model.
        measured: what was measured, one sentence.
        fix: what to do, one line.
        chapter: the chapter of the book that explains it.
        modules: all layers concerned, the worst first.
    """

    rule: str
    severity: str
    module: str
    measured: str
    fix: str
    chapter: int
    modules: tuple[str, ...] = ()


@dataclass
class Diagnosis:
    """What was found in a model; it prints as a list, the worst first.

    Attributes:
        findings: the worst first.
        examined: what was looked at, such as "20 batch norms".
    """

    findings: list[Finding] = field(default_factory=list)
    examined: str = ""

    def worst(self) -> str | None:
        """The severity of the worst finding; None if there is none."""
        return min((finding.severity for finding in self.findings), key=SEVERITIES.index, default=None)

    def chosen(self, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> "Diagnosis":
        """The findings of the rules whose ids begin like one of ``select`` (none: all), and like none of ``ignore``."""
        chosen = [
            finding
            for finding in self.findings
            if finding.rule.startswith(tuple(select) or "") and not finding.rule.startswith(tuple(ignore) or "-")
        ]
        return Diagnosis(chosen, self.examined)

    def json(self) -> str:
        """The findings for programs."""
        return json.dumps({"examined": self.examined, "findings": [*map(asdict, self.findings)]}, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.examined}: {_counted(self.findings)}"]
        for finding in self.findings:
            others = f" and {len(finding.modules) - 1} more" if len(finding.modules) > 1 else ""
            lines += ["", f"{finding.severity} {finding.rule} in {finding.module or 'the model'}{others}"]
            lines += _wrapped(finding.measured, "  ")
            lines += _wrapped(f"{finding.fix} (chapter {finding.chapter})", "  -> ")
        return "\n".join(lines)


def _counted(findings: list[Finding]) -> str:
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    said = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(said) or "nothing found"


def _wrapped(text: str, begin: str) -> list[str]:
    """Lines that begin at the same column, with names and words in one piece."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )
