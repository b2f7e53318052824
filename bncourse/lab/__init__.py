"""The lab: two small networks that train in the page, from a preset that asks a question first.

``show("first")`` opens it in a notebook; the book's page has it too. It is JavaScript, in two parts: ``engine/``
computes what PyTorch computes (the tests compare them), ``page/`` has controls and pictures. ``settings.toml``,
``presets.toml``, ``statements.toml`` and ``words.toml`` are data: what can be set, the presets, which preset shows
which statement of the book, and what the words mean.
"""

import json
import tomllib
from functools import cache
from html import escape
from importlib.resources import files
from itertools import count
from typing import NamedTuple

from bncourse.claims import statements
from bncourse.lab.digits import packed_digits

__all__ = ["Link", "engine", "html", "link", "presets", "settings", "show", "themes"]

ENGINE = ("random", "matrix", "standardize", "layers", "network", "digits", "experiment", "engine")
PAGE = ("connect", "state", "charts", "controls", "result", "views", "page")
_names = count()


class Link(NamedTuple):
    """What the lab has on a statement: a preset that shows it, or a sentence why there is none."""

    preset: str | None
    text: str


@cache
def _table(name: str) -> dict:
    return tomllib.loads(_read(f"{name}.toml"))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def settings() -> dict[str, dict]:
    """Everything that can be set: its label, choices and start value, by name."""
    return _table("settings")


def presets() -> dict[str, dict]:
    """The presets by id, in the order of the chapters."""
    return {name: one for name, one in _table("presets").items() if name != "themes"}


def themes() -> dict[str, str]:
    """What the presets of a chapter are about, by its number."""
    return _table("presets")["themes"]


def measured() -> dict[str, dict]:
    """What ``python -m tools.lab_presets`` measured on ten seeds, by preset."""
    return json.loads(_read("measured.json"))


def link(statement: str) -> Link:
    """The preset that shows a statement of the ledger, with the words of its button; or why there is none."""
    entry = _table("statements").get(statement, {"why": "nobody has tried."})
    if "preset" in entry:
        return Link(entry["preset"], "Try to refute it in the lab")
    return Link(None, f"Not in the lab: {entry['why']}")


def engine() -> str:
    """The JavaScript that computes: what a page, a worker or a test runs."""
    return "\n".join(_read(f"engine/{name}.js") for name in ENGINE)


def quoted() -> dict[str, list[dict[str, str]]]:
    """The statements that a preset may refute, with their words, by preset."""
    found = {}
    for name, statement in statements().items():
        if preset := link(name).preset:
            found.setdefault(preset, []).append({"id": name, "text": statement.source})
    return found


def html(preset: str = "first", *, small: bool = False, address: bool = False, page: str = "", ledger: str = "") -> str:
    """The lab as HTML that stands alone: no file, no request.

    Args:
        preset: what it opens with, one of ``presets()``.
        small: only the curves and the button that starts them.
        address: whether the page's address keeps the state (``#lab-first&a.depth=20``), as only the lab's own page
            should.
        page: the address of the lab's own page, for a small lab's link to it.
        ledger: the address of the ledger, for links to the statements' verdicts.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in presets():
        raise ValueError(f"preset must be one of {', '.join(presets())}, got {preset!r}")
    data = {"name": next(_names), "preset": preset, "small": small, "address": address, "lab": page, "ledger": ledger}
    data |= {"settings": settings(), "presets": presets(), "themes": themes(), "words": _table("words")}
    data |= {"measured": measured(), "statements": quoted(), "digits": packed_digits()}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    script = "\n".join([_read("engine/digits.js"), *(_read(f"page/{name}.js") for name in PAGE)])
    title, question = escape(presets()[preset]["title"]), escape(presets()[preset]["question"])
    kind = "bn-lab bn-small" if small else "bn-lab"
    return (
        f'<div class="{kind}" role="group" aria-label="The lab">\n<style>{_read("lab.css")}</style>\n'
        f'<p class="bn-fallback"><strong>{title}.</strong> {question} (The lab needs JavaScript, or a notebook that '
        f"is trusted.)</p>\n"
        f'<script type="application/json" class="bn-lab-data">{text}</script>\n'
        f'<script type="text/plain" class="bn-lab-engine">{engine()}</script>\n'
        f'<script type="text/plain" class="bn-lab-worker">{_read("engine/worker.js")}</script>\n'
        f"<script>(() => {{\n{script}\n}})();</script>\n</div>"
    )


class _Shown:
    def __init__(self, preset: str) -> None:
        self.html, self.preset = html(preset), presets()[preset]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": f"The lab: {self.preset['title']}\n{self.preset['question']}"}


def show(preset: str = "first") -> None:
    """Open the lab in the output of a notebook's cell.

    Raises:
        ValueError: an unknown preset.
    """
    from IPython.display import display

    display(_Shown(preset))
