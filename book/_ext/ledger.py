"""The ledger: every statement of the source with the verdict that the executed notebooks gave it.

Claims are taken from the executed notebooks before any page is read, and the pages that show them are read anew in
every build: they can never be older than the chapters.
"""

import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from execution import executed
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bncourse.claims import statements
from tools.other_data import claims_in

logger = logging.getLogger(__name__)


def read_claims(app: Sphinx, env, *_) -> list[str]:
    """Keep all notebooks' claims, each with its page and its anchor there; return the pages that show them."""
    env.bncourse_claims = []
    for page, chapter in sorted(executed(app).items()):
        if run := chapter.newest():
            for number, claim in claims_in(json.loads(chapter.result(run).read_text(encoding="utf-8"))):
                if not claim["supported"]:  # the chapter was run on other data than the book's
                    claim["verdict"] = f"not so on {claim['dataset']}"
                place = {"page": page, "number": number, "anchor": anchor(claim["id"], number)}
                env.bncourse_claims.append(claim | place)
    return [name for name, data in env.metadata.items() if "shows_claims" in data]


def anchor(id: str, number: int) -> str:
    """That of a page's first, second ... claim on a statement."""
    return f"claim-{id}" + (f"-{number}" if number > 1 else "")


def claims_on(env, id: str) -> list[dict]:
    return [claim for claim in env.bncourse_claims if claim["id"] == id]


def shown(env, html: str) -> nodes.raw:
    """What is made from the claims; its page is read anew in every build."""
    env.metadata[env.docname]["shows_claims"] = True
    return nodes.raw("", html, format="html")


class LedgerDirective(SphinxDirective):
    """``{ledger}``: all statements by chapter. ``[P1](#ledger-P1)`` links to a statement from any page."""

    def run(self) -> list[nodes.Node]:
        for id in statements():  # their rows, for Sphinx
            row = nodes.target("", "", ids=[f"ledger-{id}"], names=[f"ledger-{id.lower()}"])
            self.state.document.note_explicit_target(row, row)
        return [shown(self.env, ledger(self.env))]


class VerdictRole(SphinxRole):
    """The role ``verdict`` on "P1 P2": each statement's id with the verdicts of its claims, linked to the ledger."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        parts = []
        for id in self.text.split():
            if id not in statements():
                logger.warning(f"verdict role: no statement has the id {id!r}", location=self.get_location())
            found = dict.fromkeys(claim["verdict"] for claim in claims_on(self.env, id)) or ["not examined yet"]
            parts.append(f"{id} " + ", ".join(badge(self.env, one, "ledger", f"ledger-{id}", one) for one in found))
        return [shown(self.env, "; ".join(parts))], []


def ledger(env) -> str:
    """A summary and one table for each chapter."""
    chapters = {int(match[1]): name for name in sorted(env.found_docs) if (match := re.fullmatch(r"(\d\d)-.*", name))}
    examined = [statement for statement in statements().values() if statement.chapter in chapters]
    missing = [f"{one.id} ({chapters[one.chapter]})" for one in examined if not claims_on(env, one.id)]
    if missing:
        logger.warning(f"no claim settles {', '.join(missing)}", location=env.docname)
    verdicts = [overall(claims) for id in statements() if (claims := claims_on(env, id))]
    counts = [f"{verdicts.count(verdict)} “{verdict}”" for verdict in dict.fromkeys(verdicts)]
    result = f"<p>{len(verdicts)} statements examined: {', '.join(counts) or 'none yet'}.</p>"
    for chapter in sorted({statement.chapter for statement in examined}):
        rows = [
            f'<tr id="ledger-{one.id}">'
            f"<td><p><strong>{one.id}</strong></p></td>"
            f"<td><p>{escape(one.source)}</p></td>"
            f"<td>{describe_claims(env, claims_on(env, one.id))}</td></tr>"
            for one in examined
            if one.chapter == chapter
        ]
        result += chapter_heading(env, chapters[chapter])
        result += table("ledger", ["", "The source says", "We find"], rows)
    return result


def overall(claims: list[dict]) -> str:
    """A statement's verdict: its claims' if they agree, the first if that says no, else that it holds if."""
    verdicts = [claim["verdict"] for claim in claims]
    decided = [verdict for verdict in verdicts if verdict != "undecided here"] or verdicts
    return decided[0] if len(set(verdicts)) == 1 or decided[0] == "does not hold" else "holds if"


def describe_claims(env, claims: list[dict]) -> str:
    result = ""
    if len({claim["verdict"] for claim in claims}) > 1:
        verdict = overall(claims)
        result += f'<p><strong class="{colour(verdict)}">All in all: {verdict}.</strong></p>'
    for claim in claims:
        verdict = badge(env, claim["verdict"], claim["page"], claim["anchor"], claim["verdict"])
        result += f'<p>{verdict} {escape(claim["text"])}</p><p class="measured">{escape(describe(claim))}</p>'
    return result or "<p>not examined yet</p>"


def describe(claim: dict) -> str:
    """The effect with its interval, the number of seeds and the margin to the threshold."""
    unit = f" {claim['unit']}" if claim["unit"] else ""
    if claim["count"] == 1:
        return f"{float(claim['mean']):.4g}{unit} (one exact or fixed run; asserted {claim['condition']})"
    text = f"{with_interval(claim)}{unit}, {claim['count']} seeds"
    margin = claim["margin"]
    margin = "" if margin is None else f", margin {margin:.1f} standard errors" if margin < 100 else ", margin over 100"
    return f"{text} (asserted {claim['condition']}{margin})"


def with_interval(measured: dict) -> str:
    return f"{float(measured['mean']):.3g} [{float(measured['low']):.3g}, {float(measured['high']):.3g}]"


def link(env, page: str, text: str, anchor: str = "") -> str:
    uri = env.app.builder.get_relative_uri(env.docname, page) + (f"#{anchor}" if anchor else "")
    return f'<a class="reference internal" href="{uri}">{escape(text)}</a>'


def badge(env, verdict: str, page: str, anchor: str, text: str) -> str:
    """A link in the verdict's colour."""
    return f'<span class="verdict {colour(verdict)}">{link(env, page, text, anchor)}</span>'


def colour(verdict: str) -> str:
    return "verdict-" + verdict.replace(" ", "-")


def chapter_heading(env, page: str) -> str:
    """A chapter's number and title, linked to it."""
    notebook = json.loads(Path(env.doc2path(page)).read_text(encoding="utf-8"))
    title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
    return f'<p class="ledger-chapter rubric">{link(env, page, f"Chapter {int(page[:2])}: {title}")}</p>'


def table(classes: str, heads: list[str], rows: list[str]) -> str:
    """A table as the theme has it, of these heads and whole rows."""
    head = "".join(f'<th class="head"><p>{text}</p></th>' for text in heads)
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="pst-scrollable-table-container"><table class="{classes} table">{content}</table></div>'


def setup(app: Sphinx) -> dict:
    app.add_directive("ledger", LedgerDirective)
    app.add_role("verdict", VerdictRole())
    app.connect("env-get-outdated", read_claims)
    return {"parallel_read_safe": True, "env_version": 4}
