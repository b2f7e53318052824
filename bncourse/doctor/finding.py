"""What the doctor finds, and how it says so."""

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

__all__ = ["SEVERITIES", "Diagnosis", "Finding"]

SEVERITIES = ("error", "warning", "note")  # worst first
WIDTHS = (8, 6, 14, 41)  # of the table's columns: 72 with the spaces between them, as many as a page shows


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
    """What was found in a model; it prints as a table, the worst first.

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
        if self.findings:
            lines += ["", *_row("severity", "rule", "layer", "what was measured, and what to do")]
            lines.append(" ".join("-" * width for width in WIDTHS))
        for finding in self.findings:
            others = f" and {len(finding.modules) - 1} more" if len(finding.modules) > 1 else ""
            lines += _row(finding.severity, finding.rule, (finding.module or "the model") + others, finding.measured)
            lines += _row("", "", "", f"-> {finding.fix} (chapter {finding.chapter})")
        return "\n".join(lines)


def _counted(findings: list[Finding]) -> str:
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    said = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(said) or "nothing found"


class _Names(textwrap.TextWrapper):
    """Breaks the names of layers after a dot."""

    wordsep_re = re.compile(r"(\s+|(?<=\.)(?=\w))")


def _row(severity: str, rule: str, layer: str, text: str) -> list[str]:
    cells = [[severity], [rule], _Names(WIDTHS[2]).wrap(layer), textwrap.wrap(text, WIDTHS[3])]
    wrapped = [cell or [""] for cell in cells]
    height = max(map(len, wrapped))
    columns = [part + [""] * (height - len(part)) for part in wrapped]
    return [
        " ".join(f"{part:{width}}" for part, width in zip(line, WIDTHS, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
