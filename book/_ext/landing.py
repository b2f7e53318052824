"""The landing page: the verdicts first, a map of the course with its times, and the edition; all made by the build.

``{verdict-bar}`` shows how many statements hold, ``{verdict-cards} P2 S1`` a card for each of these; ``{course-map}``
links every chapter and set of exercises.
"""

import json
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

from docutils import nodes
from ledger import badge, claims_on, colour, shown, verdict_of
from links import link
from slides import minutes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bncourse.claims import statements, summary
from bncourse.exercises import EXERCISES
from tools.toc import ROOT, notebooks


class BarDirective(SphinxDirective):
    """How many statements have which verdict."""

    def run(self) -> list[nodes.Node]:
        return [shown(self.env, bar(self.env))]


class CardsDirective(SphinxDirective):
    """Some statements, each with its verdict and the decisive finding."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        ids = self.arguments[0].split()
        if unknown := [id for id in ids if id not in statements()]:
            raise self.error(f"verdict-cards must name statements of the ledger, got {', '.join(unknown)}")
        return [shown(self.env, f'<div class="bn-cards">{"".join(card(self.env, id) for id in ids)}</div>')]


def bar(env) -> str:
    """A bar whose parts are as long as the verdicts are many; each part leads to the ledger, which shows only those."""
    counts = Counter(filter(None, (verdict_of(env, one) for one in statements().values())))
    ledger = env.app.builder.get_relative_uri(env.docname, "ledger")
    words = {"holds": "hold", "holds if": "hold under a condition", "does not hold": "do not hold"}
    parts = "".join(
        f'<li class="verdict {colour(verdict)}" style="--share: {counts[verdict] / counts.total():.2f}">'
        f'<a class="reference internal" href="{ledger}?verdict={verdict.replace(" ", "-")}">'
        f"{counts[verdict]} {words.get(verdict, 'undecided')}</a></li>"
        for verdict in ("holds", "holds if", "does not hold", "undecided here")
        if counts[verdict]
    )
    return f'<p class="bn-count">{counts.total()} statements tested:</p><ul class="bn-bar">{parts}</ul>'


def card(env, id: str) -> str:
    """A statement, its verdict, what its decisive finding says, and its chapter."""
    statement, found = statements()[id], verdict_of(env, statements()[id]) or "not examined yet"
    claims = claims_on(env, statement)
    said = summary(statement, [claim["verdict"] for claim in claims]) if verdict_of(env, statement) else found
    first = f"<p>{escape(claims[0]['text'])}</p>" if claims else ""
    page = claims[0]["page"] if claims else "ledger"
    verdict = badge(env, found, "ledger", f"ledger-{id}", said[0].upper() + said[1:])
    return (
        f'<div class="bn-card {colour(found)}"><p class="bn-said">“{escape(statement.source)}”</p>'
        f"<p><strong>{verdict}.</strong></p>{first}<p>{link(env, page, f'Chapter {statement.chapter}')}</p></div>"
    )


class MapDirective(SphinxDirective):
    """All chapters and exercises, each with the minutes that it takes."""

    def run(self) -> list[nodes.Node]:
        rows, reading, doing = [], 0.0, 0
        for path in notebooks():
            docname = path.relative_to(ROOT / "book").with_suffix("").as_posix()
            self.env.note_dependency(str(path))
            notebook = json.loads(path.read_text(encoding="utf-8"))
            title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
            if path.parent.name == "exercises":
                code = "".join("".join("".join(cell["source"]).split()) for cell in notebook["cells"])
                needs = sum(one.minutes for name, one in EXERCISES.items() if f'check("{name}"' in code)
                doing += needs
            else:
                needs, title = minutes(notebook), f"{int(path.stem[:2])}. {title}"
                reading += needs
            rows.append(f"<li>{link(self.env, docname, title)} <span>{5 * max(1, round(needs / 5))} min</span></li>")
        total = f"{round(reading / 60)} hours of reading and {round(doing / 60)} of exercises, at your own pace."
        return [nodes.raw("", f'<p>{total}</p><ol class="bn-map">{"".join(rows)}</ol>', format="html")]


class EditionRole(SphinxRole):
    """The version of the course, which its pages and its package share."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.Text(edition())], []


def edition(root: Path = ROOT) -> str:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def setup(app: Sphinx) -> dict:
    app.add_directive("verdict-bar", BarDirective)
    app.add_directive("verdict-cards", CardsDirective)
    app.add_directive("course-map", MapDirective)
    app.add_role("edition", EditionRole())
    return {"parallel_read_safe": True}
