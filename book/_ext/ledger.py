"""The ledger: every statement of the source with the verdict that the executed notebooks gave it.

Claims are taken from the executed notebooks before any page is read, and the pages that show them are read anew in
every build: they can never be older than the chapters. ``ledger.json`` beside the pages has all of it.
"""

import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from execution import executed
from lab import refute
from links import link
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bncourse.claims import Statement, details, holm, overall, rounded, statements, summary, units
from bncourse.claims.texts import replicated
from tools.claims import claims_in

logger = logging.getLogger(__name__)


def read_claims(app: Sphinx, env, *_) -> list[str]:
    """Keep all notebooks' claims, each with its page and its anchor there; return the pages that show them."""
    env.bncourse_claims = []
    for page, chapter in sorted(executed(app).items()):
        if run := chapter.newest():
            for claim in claims_in(json.loads(chapter.result(run).read_text(encoding="utf-8"))):
                env.bncourse_claims.append(claim | {"page": page, "anchor": anchor(claim["name"])})
    levels = {one["name"]: one["level"] for one in env.bncourse_claims if one["level"] is not None}
    adjusted = holm(levels)
    for claim in env.bncourse_claims:
        claim["holm"] = adjusted.get(claim["name"])
    return [name for name, data in env.metadata.items() if "shows_claims" in data]


def anchor(name: str) -> str:
    """That of a finding's card."""
    return f"claim-{name.replace('.', '-')}"


def claims_on(env, statement: Statement) -> list[dict]:
    """The statement's findings, the decisive one first."""
    found = {claim["name"]: claim for claim in env.bncourse_claims}
    return [found[one.name] for one in statement.findings if one.name in found]


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


class UnitsDirective(SphinxDirective):
    """``{units}``: the smallest effect that matters in each unit, and why."""

    def run(self) -> list[nodes.Node]:
        rows = [
            f"<tr><td><p>{escape(unit.name)}</p></td><td><p>{unit.d:g}</p></td><td><p>{escape(unit.reason)}</p></td></tr>"
            for unit in units().values()
        ]
        return [nodes.raw("", table("units", ["Unit", "d", "What it is, and why"], rows), format="html")]


class VerdictRole(SphinxRole):
    """The role ``verdict`` on "P1 P2": each statement's id with its verdict, linked to the ledger."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        parts = []
        for id in self.text.split():
            if id not in statements():
                logger.warning(f"verdict role: no statement has the id {id!r}", location=self.get_location())
                continue
            found = verdict_of(self.env, statements()[id]) or "not examined yet"
            parts.append(f"{id} " + badge(self.env, found, "ledger", f"ledger-{id}", found))
        return [shown(self.env, "; ".join(parts))], []


def verdict_of(env, statement: Statement) -> str:
    """A statement's verdict; nothing while findings are missing or could not be measured."""
    claims = claims_on(env, statement)
    if len(claims) < len(statement.findings) or not claims:
        return ""
    verdicts = [claim["verdict"] for claim in claims]
    return "" if "not measurable" in verdicts else overall(verdicts, [one.condition for one in statement.findings])


def ledger(env) -> str:
    """A summary and one table for each chapter."""
    chapters = {int(match[1]): name for name in sorted(env.found_docs) if (match := re.fullmatch(r"(\d\d)-.*", name))}
    examined = [statement for statement in statements().values() if statement.chapter in chapters]
    found = {claim["name"] for claim in env.bncourse_claims}
    for statement in examined:
        if missing := [one.name for one in statement.findings if one.name not in found] or not statement.findings:
            lacks = ", ".join(missing) if isinstance(missing, list) else statement.id
            logger.warning(f"no claim settles {lacks} ({chapters[statement.chapter]})", location=env.docname)
    result = sums(env, examined) + filters(env, examined)
    for chapter in sorted({statement.chapter for statement in examined}):
        here = "".join(entry(env, one) for one in examined if one.chapter == chapter)
        result += f'<section class="bn-chapter">{chapter_heading(env, chapters[chapter])}{here}</section>'
    return result


def filters(env, examined: list[Statement]) -> str:
    """Menus for the verdict and the chapter, which a script brings to life."""
    verdicts = dict.fromkeys(verdict_of(env, one) for one in examined)
    menus = {
        "verdict": [(name.replace(" ", "-"), name) for name in verdicts if name],
        "chapter": [(str(number), f"chapter {number}") for number in sorted({one.chapter for one in examined})],
    }
    fields = "".join(
        f'<label>{name.capitalize()} <select name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{value}">{text}</option>' for value, text in choices)
        + "</select></label>"
        for name, choices in menus.items()
    )
    button = '<button type="button">Open all that are shown</button>'
    return f'<form class="bn-filter" hidden>{fields}{button}<p role="status"></p></form>'


def sums(env, examined: list[Statement]) -> str:
    """How many statements have which verdict, and how many findings can be wrong by chance."""
    verdicts = [verdict for one in examined if (verdict := verdict_of(env, one))]
    counts = [f"{verdicts.count(verdict)} “{verdict}”" for verdict in dict.fromkeys(verdicts)]
    result = f"<p>{len(verdicts)} statements examined: {', '.join(counts) or 'none yet'}.</p>"
    measured = [claim for claim in env.bncourse_claims if claim["kind"] != "exact"]
    decided = [claim for claim in measured if claim["verdict"] in ("holds", "does not hold")]
    after = [claim for claim in decided if claim["holm"] is not None and claim["holm"] <= 0.05]
    count = len(env.bncourse_claims)
    again = replicated()["verdicts"]
    stayed = [claim["found"] == again[claim["name"]] for claim in measured if claim["name"] in again]
    return result + (
        f"<p>They rest on {count} findings. {count - len(measured)} are exact: algebra, or a fact about code. "
        f"{len(measured)} rest on a 95% interval; by chance about {rounded(0.05 * len(measured))} of these intervals "
        f"should miss the true value. {len(decided)} of these findings are decided, and {len(after)} of those would "
        f"still be decided after Holm’s correction for all of them. Of {len(stayed)} verdicts that were checked again "
        f"on seeds {replicated()['seeds']}, {sum(stayed)} stayed the same.</p>"
    )


def entry(env, statement: Statement) -> str:
    """A statement as a line that opens: its words and verdict, then its findings."""
    claims, found = claims_on(env, statement), verdict_of(env, statement)
    words = summary(statement, [claim["verdict"] for claim in claims]) if found else "not examined yet"
    cells = [describe_claim(env, claim) for claim in claims]
    return (
        f'<details class="bn-statement" id="ledger-{statement.id}" data-verdict="{found.replace(" ", "-")}" '
        f'data-chapter="{statement.chapter}"><summary><strong>{statement.id}</strong> '
        f'<span class="bn-source">{escape(statement.source)}</span> '
        f'<strong class="{colour(found)}">{escape(words[0].upper() + words[1:])}.</strong></summary>'
        f"{table('ledger', ['We find', 'Holm'], [f'<tr>{cell}</tr>' for cell in cells])}"
        f"{refute(env, statement.id)}</details>"
    )


def describe_claim(env, claim: dict) -> str:
    verdict = badge(env, claim["verdict"], claim["page"], claim["anchor"], claim["verdict"])
    remark = f" ({escape(claim['remark'])})" if claim["remark"] else ""
    there = "" if claim["dataset"] == "digits" else f" on {escape(claim['dataset'])}"
    text = f'<p>{verdict}{there}{remark}. {escape(claim["text"])}</p><p class="measured">{escape(details(claim))}</p>'
    return f"<td>{text}</td><td><p>{after_holm(claim)}</p></td>"


def after_holm(claim: dict) -> str:
    """Whether the verdict would stand if the chance of even one wrong one among all were to be 5%."""
    if claim["kind"] == "exact":
        return "exact"
    if claim["holm"] is None or claim["verdict"] not in ("holds", "does not hold"):
        return "–"
    level = "&lt; 0.001" if claim["holm"] < 0.001 else rounded(claim["holm"])
    return level if claim["holm"] <= 0.05 else f"undecided ({level})"


def write_json(app: Sphinx, exception: Exception | None) -> None:
    """All that the ledger shows, for programs."""
    if exception is not None or app.builder.name != "html":
        return
    env = app.env
    found = [
        {"id": one.id, "chapter": one.chapter, "source": one.source, "verdict": verdict_of(env, one) or None}
        | {"findings": [{k: v for k, v in claim.items() if k != "statement"} for claim in claims_on(env, one)]}
        for one in statements().values()
    ]
    content = {"units": {name: unit._asdict() for name, unit in units().items()}, "statements": found}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    Path(app.outdir, "ledger.json").write_text(text, encoding="utf-8")


def with_interval(measured: dict) -> str:
    return f"{float(measured['mean']):.3g} [{float(measured['low']):.3g}, {float(measured['high']):.3g}]"


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
    app.add_directive("units", UnitsDirective)
    app.add_role("verdict", VerdictRole())
    app.connect("env-get-outdated", read_claims)
    app.connect("build-finished", write_json)
    return {"parallel_read_safe": True, "env_version": 6}
