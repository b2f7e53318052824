"""The page Changes: which verdicts differ from those of the previous edition, and why.

``bncourse/claims/changes.toml`` has the reasons; the tests see that none is missing.
"""

from html import escape

from docutils import nodes
from ledger import colour, shown, table
from links import link
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bncourse.claims import Change, changes, expected, last_edition, statements


class ChangesDirective(SphinxDirective):
    """``{changes}``: for each edition a table of the verdicts that have changed, the newest first."""

    def run(self) -> list[nodes.Node]:
        new = [name for name in expected() if name not in last_edition()]
        result = f"<p>New in this edition: {len(new)} findings.</p>" if new else ""
        for edition in dict.fromkeys(change.edition for change in changes()):
            rows = [row(self.env, change) for change in changes() if change.edition == edition]
            result += f'<p class="rubric">Edition {escape(edition)}</p>'
            result += table("ledger changes", ["Finding", "Before", "Now", "Why"], rows)
        return [shown(self.env, result)]


def row(env, change: Change) -> str:
    """A finding, linked to its statement in the ledger, with both verdicts and the reason."""
    id = change.finding.partition(".")[0]
    name = link(env, "ledger", change.finding, f"ledger-{id}") if id in statements() else escape(change.finding)
    cells = [name, verdict(change.before), verdict(change.after), escape(change.why)]
    return f"<tr>{''.join(f'<td><p>{cell}</p></td>' for cell in cells)}</tr>"


def verdict(text: str) -> str:
    return f'<span class="verdict {colour(text)}">{escape(text)}</span>'


def setup(app: Sphinx) -> dict:
    app.add_directive("changes", ChangesDirective)
    return {"parallel_read_safe": True}
