"""A formula in a line of text stays with its full stop, its bracket, its "-th": no line begins with one of these."""

import re

from docutils import nodes
from sphinx.application import Sphinx


def keep_together(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        before, after = (parent[at] if 0 <= at < len(parent) else None for at in (place - 1, place + 1))
        whole = nodes.inline("", "", classes=["bn-whole"])
        parts: list[nodes.Node] = [formula]
        if isinstance(after, nodes.Text) and (close := re.match(r"\S+", after)):
            parts.append(nodes.Text(close[0]))
            parent.replace(after, nodes.Text(after[close.end() :]))
        if isinstance(before, nodes.Text) and (open := re.search(r"\S+$", before)):
            parts.insert(0, nodes.Text(open[0]))
            parent.replace(before, nodes.Text(before[: open.start()]))
        if len(parts) > 1:
            parent.replace(formula, whole)
            whole.extend(parts)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
