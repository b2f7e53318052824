"""The museum's page: each specimen as ``bncourse.museum`` has it, with what ``benchmarks/doctor.py`` measured.

``{museum} A`` shows the specimens of family A, ``{museum-rates}`` what the doctor finds. ``[that bug](#museum-NAME)``
links to a specimen from any page.
"""

import json
from html import escape
from pathlib import Path
from statistics import mean

from docutils import nodes
from ledger import table
from links import chapter_link, link, marked, read_again_with
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bncourse.museum import SPECIMENS, Specimen

RESULTS = Path(__file__).parents[2] / "benchmarks" / "doctor.json"
VERDICTS = ("named", "noticed", "missed")
MUSEUM, HELD = "The museum", "The held-out specimens"


def results(env) -> dict:
    """What was measured; the page is read anew when that or a specimen changes."""
    env.note_dependency(str(RESULTS))
    read_again_with(env, "bncourse.museum")
    return json.loads(RESULTS.read_text(encoding="utf-8"))


class MuseumDirective(SphinxDirective):
    """``{museum} A``: the specimens of the family whose title begins with A."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        measured = {row["name"]: row for row in results(self.env)["museum"]}
        found = [one for one in SPECIMENS if one.family.startswith(f"{self.arguments[0]}.")]
        if not found:
            raise self.error(f"no specimen is of family {self.arguments[0]!r}")
        for one in found:  # their anchors, for Sphinx
            place = nodes.target("", "", ids=[anchor(one)], names=[anchor(one)])
            self.state.document.note_explicit_target(place, place)
        return [nodes.raw("", "".join(card(self.env, one, measured[one.name]) for one in found), format="html")]


class RatesDirective(SphinxDirective):
    """``{museum-rates}``: what the doctor finds in the museum, and its false alarms, with the lists."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", rates(self.env, results(self.env)), format="html")]


def anchor(specimen: Specimen) -> str:
    return f"museum-{specimen.name}"


def title(name: str) -> str:
    """A specimen's name as words: "validation-in-training-mode" is "Validation in training mode"."""
    return name.replace("-", " ").capitalize()


def card(env, one: Specimen, row: dict) -> str:
    threads = ", ".join(
        f'<a class="reference external" href="{escape(thread.link)}">{escape(short(thread.link))}</a>'
        + (f" ({thread.date})" if thread.date else "")
        for thread in one.threads
    )
    broken, fixed = (number(mean(seeds)) for seeds in row["damage"])
    return (
        f'<div class="specimen" id="{anchor(one)}">'
        f'<p class="rubric"><a href="#{anchor(one)}">{title(one.name)}</a></p>'
        f"<p>{marked(one.symptom)}</p><p>{marked(one.cause)}</p>"
        f'<div class="highlight"><pre tabindex="0"><span class="before">- {escape(one.before)}</span>\n'
        f'<span class="after">+ {escape(one.after)}</span></pre></div>'
        f"<p>{escape(one.measure[0].upper() + one.measure[1:])}: <strong>{broken}</strong> broken, "
        f'<strong>{fixed}</strong> fixed.</p><p class="measured">'
        f"Seen in {threads}. {chapter_link(env, one.chapter, f'Chapter {one.chapter}')} explains it. "
        f"The doctor {said(env, row)}.</p></div>"
    )


def short(address: str) -> str:
    """An address on GitHub as people write it: "pytorch/vision#1491"."""
    owner, name, _, number = address.removeprefix("https://github.com/").split("/")
    return f"{owner}/{name}#{number}"


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rules(env, ids: list[str]) -> str:
    """The doctor's rules, linked to its page."""
    return ", ".join(link(env, "doctor", id, id) if "doctor" in env.found_docs else id for id in ids)


def said(env, row: dict) -> str:
    if row["verdict"] == "named":
        return f"names it: {rules(env, row['rules'])}"
    if row["verdict"] == "noticed":
        return f"notices that something is wrong ({rules(env, row['others'])}) but does not name the cause"
    return "misses it" + (", with an error of its own" if row.get("raised") else "")


def rates(env, found: dict) -> str:
    """The rates in words and a table, then the lists."""
    parts = [(MUSEUM, found["museum"])]
    if found.get("held_out"):
        parts.append((HELD, found["held_out"]))
    lines = [row_of(name, rows) for name, rows in parts]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        table("museum-rates", ["", "Specimens", *(verdict.capitalize() for verdict in VERDICTS)], lines)
        + "".join(list_of(env, name, rows) for name, rows in parts)
        + healthy(env, found)
        + f'<p class="measured">Measured on {found["date"]} with {found["rules"]} rules; {versions}.</p>'
    )


def row_of(name: str, rows: list[dict]) -> str:
    counts = [sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS]
    cells = [name, len(rows), *counts]
    return f"<tr>{''.join(f'<td><p>{cell}</p></td>' for cell in cells)}</tr>"


def list_of(env, name: str, rows: list[dict]) -> str:
    """Those that the doctor did not name, and the fixed twins that it complains of."""
    result = ""
    for verdict in ("noticed", "missed"):
        if names := [f'<a href="#museum-{row["name"]}">{title(row["name"])}</a>' if name == MUSEUM
                     else title(row["name"]) for row in rows if row["verdict"] == verdict]:  # fmt: skip
            result += f"<p>{name}, {'noticed only' if verdict == 'noticed' else verdict}: {'; '.join(names)}.</p>"
    if name == HELD:
        result = f"<p>{HELD} were written by somebody who had not seen the rules, each in two networks.</p>{result}"
    twins = [f"{title(row['name'])} ({rules(env, row['twin'])})" for row in rows if row["twin"]]
    said = f"an error or a warning on {len(twins)}: {'; '.join(twins)}" if twins else "no error and no warning"
    return result + f"<p>{name}, on the {len(rows)} fixed twins: {said}.</p>"


def healthy(env, found: dict) -> str:
    """The false alarms on models that are as they should be."""
    result = ""
    for part, what in (
        ("trained", "models that we trained until both losses agreed"),
        ("public", "public architectures, static rules"),
    ):
        rows = found[part]
        false = {row["name"]: [id for id in row["alarms"] if id not in row.get("right", [])] for row in rows}
        right = [f"{row['name']} ({rules(env, row['right'])})" for row in rows if row.get("right")]
        wrong = [f"{name} ({rules(env, ids)})" for name, ids in false.items() if ids]
        notes = sum(bool(row["notes"]) for row in rows)
        result += (
            f"<p>On {len(rows)} {what}: {len(wrong)} with a false alarm{': ' + '; '.join(wrong) if wrong else ''}. "
            f"{notes} have notes, which are not counted."
            + (f" The alarms on {' and '.join(right)} are right." if right else "")
            + "</p><details><summary>Which ones</summary><p>"
            + f"{escape('; '.join(row['name'] for row in rows))}.</p></details>"
        )
    return result


def setup(app: Sphinx) -> dict:
    app.add_directive("museum", MuseumDirective)
    app.add_directive("museum-rates", RatesDirective)
    return {"parallel_read_safe": True}
