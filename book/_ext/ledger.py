"""The ledger: every statement of the source with the verdict that the executed notebooks gave it.

Claims are collected from the notebooks' outputs while they are read, and kept in Sphinx's environment. What is made
from them is written anew in every build, so it can never be older than the chapters.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bncourse.claims import statements

logger = logging.getLogger(__name__)


def record(env, claim: dict) -> str:
    """Keep a claim of the document that is being read; return its anchor on that page."""
    if not claim.get("supported", True):  # the chapter was run on other data than the book's
        claim = claim | {"verdict": f"not so on {claim['dataset']}"}
    claims = all_claims(env).setdefault(env.docname, [])
    number = 1 + sum(other["id"] == claim["id"] for other in claims)
    anchor = f"claim-{claim['id']}" + (f"-{number}" if number > 1 else "")
    claims.append(dict(claim, anchor=anchor, number=number))
    return anchor


def all_claims(env) -> dict[str, list[dict]]:
    """Claims by document."""
    if not hasattr(env, "bncourse_claims"):
        env.bncourse_claims = {}
    return env.bncourse_claims


def forget(app: Sphinx, env, docname: str) -> None:
    all_claims(env).pop(docname, None)


def merge(app: Sphinx, env, docnames: list[str], other) -> None:
    all_claims(env).update({name: all_claims(other)[name] for name in docnames if name in all_claims(other)})


class later(nodes.General, nodes.Inline, nodes.Element):
    """A place for what is made from all chapters' claims, filled when the page is written."""


def made_later(env, make, *arguments) -> later:
    """The place of what ``make(app, docname, *arguments)`` returns; its page is written anew in every build."""
    env.metadata[env.docname]["made_later"] = True
    return later("", make=make, arguments=arguments)


def pages_made_later(app: Sphinx, env) -> list[str]:
    return [name for name, data in env.metadata.items() if "made_later" in data]


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for place in list(doctree.findall(later)):
        place.replace_self(place["make"](app, docname, *place["arguments"]))


class LedgerDirective(SphinxDirective):
    """``{ledger}``: all statements by chapter. ``[P1](#ledger-P1)`` links to a statement from any page."""

    def run(self) -> list[nodes.Node]:
        targets = [nodes.target("", "", ids=[f"ledger-{id}"], names=[f"ledger-{id.lower()}"]) for id in statements()]
        for target in targets:
            self.state.document.note_explicit_target(target, target)
        return [*targets, made_later(self.env, make_ledger)]


class VerdictRole(SphinxRole):
    """The role ``verdict`` on "P1 P2": each statement's id with the verdicts of its claims, linked to the ledger."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        names = self.text.split()
        for name in names:
            if name not in statements():
                logger.warning(f"verdict role: no statement has the id {name!r}", location=self.get_location())
        return [made_later(self.env, make_verdicts, names)], []


def make_verdicts(app: Sphinx, docname: str, names: list[str]) -> list[nodes.Node]:
    """For each statement its id and each of its verdicts once, in the order of the claims."""
    result: list[nodes.Node] = []
    for name in names:
        claims = [claim for _, page in sorted(all_claims(app.env).items()) for claim in page if claim["id"] == name]
        found = list(dict.fromkeys(claim["verdict"] for claim in claims)) or ["not examined yet"]
        result.append(nodes.Text(f"{'; ' if result else ''}{name}"))
        for one in found:
            place = nodes.Text(", " if one != found[0] else " ")
            result += [place, badge(one, link(app, docname, "ledger", f"ledger-{name}", one))]
    return result


def make_ledger(app: Sphinx, docname: str) -> list[nodes.Node]:
    """A summary and one table for each chapter."""
    chapters = {
        int(match[1]): name for name in sorted(app.env.found_docs) if (match := re.fullmatch(r"(\d\d)-.*", name))
    }
    examined = [statement for statement in statements().values() if statement.chapter in chapters]
    found: dict[str, list[tuple[str, dict]]] = {}
    for name, claims in sorted(all_claims(app.env).items()):
        for claim in claims:
            found.setdefault(claim["id"], []).append((name, claim))
    missing = [f"{one.id} ({chapters[one.chapter]})" for one in examined if one.id not in found]
    if missing:
        logger.warning(f"no claim settles {', '.join(missing)}", location=docname)

    result: list[nodes.Node] = [summary(found)]
    for chapter in sorted({statement.chapter for statement in examined}):
        rows = [
            table_row(
                [paragraph(nodes.strong("", one.id))],
                [paragraph(one.source)],
                describe_claims(app, docname, found.get(one.id, [])),
                ids=[f"ledger-{one.id}"],
            )
            for one in examined
            if one.chapter == chapter
        ]
        result.append(chapter_heading(app, docname, chapters[chapter]))
        result.append(table(["", "The source says", "We find"], rows, [6, 32, 62], ["ledger"]))
    return result


def overall(claims: list[tuple[str, dict]]) -> str:
    """A statement's verdict: its claims' if they agree, the first if that says no, else that it holds if."""
    verdicts = [claim["verdict"] for _, claim in claims]
    decided = [verdict for verdict in verdicts if verdict != "undecided here"] or verdicts
    return decided[0] if len(set(verdicts)) == 1 or decided[0] == "does not hold" else "holds if"


def summary(found: dict) -> nodes.paragraph:
    """How many statements have which verdict."""
    verdicts = [overall(claims) for claims in found.values()]
    counts = [f"{verdicts.count(verdict)} “{verdict}”" for verdict in sorted(set(verdicts), key=verdicts.index)]
    return nodes.paragraph("", f"{len(found)} statements examined: {', '.join(counts) or 'none yet'}.")


def describe_claims(app: Sphinx, docname: str, claims: list[tuple[str, dict]]) -> list[nodes.Node]:
    result: list[nodes.Node] = []
    if len({claim["verdict"] for _, claim in claims}) > 1:
        verdict = overall(claims)
        words = nodes.strong("", f"All in all: {verdict}.", classes=["verdict-" + verdict.replace(" ", "-")])
        result.append(paragraph(words))
    for page, claim in claims:
        verdict = badge(claim["verdict"], link(app, docname, page, claim["anchor"], claim["verdict"]))
        result += [paragraph(verdict, " " + claim["text"]), paragraph(describe(claim), classes=["measured"])]
    return result or [paragraph("not examined yet")]


def describe(claim: dict) -> str:
    """The effect with its interval, the number of seeds and the margin to the threshold."""
    unit = f" {claim['unit']}" if claim.get("unit") else ""
    if claim["count"] == 1:
        return f"{float(claim['mean']):.4g}{unit} (one exact or fixed run; asserted {claim['condition']})"
    text = f"{with_interval(claim)}{unit}, {claim['count']} seeds"
    margin = claim.get("margin")
    margin = "" if margin is None else f", margin {margin:.1f} standard errors" if margin < 100 else ", margin over 100"
    return f"{text} (asserted {claim['condition']}{margin})"


def with_interval(measured: dict) -> str:
    return f"{float(measured['mean']):.3g} [{float(measured['low']):.3g}, {float(measured['high']):.3g}]"


def link(app: Sphinx, docname: str, page: str, anchor: str, text: str) -> nodes.reference:
    uri = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", text, internal=True, refuri=uri)


def chapter_heading(app: Sphinx, docname: str, page: str) -> nodes.rubric:
    """A chapter's number and title, linked to it."""
    title = f"Chapter {int(page[:2])}: {app.env.titles[page].astext()}"
    return nodes.rubric("", "", link(app, docname, page, "", title), classes=["ledger-chapter"])


def badge(verdict: str, linked: nodes.reference) -> nodes.inline:
    """A link in the verdict's colour."""
    return nodes.inline("", "", linked, classes=["verdict", "verdict-" + verdict.replace(" ", "-")])


def paragraph(*parts: str | nodes.Node, **attributes) -> nodes.paragraph:
    return nodes.paragraph("", "", *[nodes.Text(p) if isinstance(p, str) else p for p in parts], **attributes)


def table_row(*cells: list[nodes.Node], **attributes) -> nodes.row:
    return nodes.row("", *[nodes.entry("", *cell) for cell in cells], **attributes)


def table(heads: list[str], rows: list[nodes.row], widths: list[int], classes: list[str]) -> nodes.table:
    columns = [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead("", table_row(*[[paragraph(text)] for text in heads])), nodes.tbody("", *rows)
    return nodes.table("", nodes.tgroup("", *columns, head, body, cols=len(heads)), classes=classes)


def setup(app: Sphinx) -> dict:
    app.add_node(later)
    app.add_directive("ledger", LedgerDirective)
    app.add_role("verdict", VerdictRole())
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-get-updated", pages_made_later)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "env_version": 3}
