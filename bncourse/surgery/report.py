"""What an operation did to a model, as counts and reasons."""

from collections import defaultdict
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["Report", "report"]

_reports: "WeakKeyDictionary[nn.Module, Report]" = WeakKeyDictionary()  # beside the models: nothing of it is saved


@dataclass
class Report:
    """What an operation did to a model; it prints as counts and reasons.

    Attributes:
        action: what was done, as in "3 batch norms frozen".
        model: the model afterwards.
        changed: what became of a layer, by its name in ``model.named_modules()``.
        left: why a layer stayed as it was, by its name.
        note: what else there is to say.
    """

    action: str
    model: nn.Module = field(repr=False)
    changed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        lines = [f"{self.action}: {len(self.changed)}", *_counted(self.changed)]
        if self.left:
            lines += [f"left as they were: {len(self.left)}", *_counted(self.left)]
        return "\n".join([*lines, self.note] if self.note else lines)

    def keep(self) -> "Report":
        """Let ``report(model)`` find it."""
        _reports[self.model] = self
        return self


def report(model: nn.Module) -> Report:
    """What the last operation of ``bncourse.surgery`` on ``model`` did.

    Raises:
        ValueError: there was none.
    """
    if model not in _reports:
        raise ValueError(f"model must be what an operation of bncourse.surgery returned, got {type(model).__name__}")
    return _reports[model]


def _counted(notes: dict[str, str]) -> list[str]:
    """A line for each note: how often it was made, and the first names."""
    names = defaultdict(list)
    for name, note in notes.items():
        names[note].append(repr(name))
    return [
        f"  {len(found)} x {note}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        for note, found in names.items()
    ]
