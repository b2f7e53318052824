"""Search by section, with a line of context, from a folder as from a server.

``search-index.js`` has the text of each section, term and statement; ``search.js`` looks in it. Sphinx's own index has
no sentences, and its page fetches those from a server.
"""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from bncourse.claims import statements

HERE = Path(__file__).parent


def records(env) -> Iterator[tuple[str, str, str, str, str]]:
    """Page, anchor, the page's title, the section's and the text."""
    for page in sorted(env.found_docs):
        doctree = env.get_doctree(page)
        title = env.titles[page].astext()
        for section in doctree.findall(nodes.section):
            text = " ".join(" ".join(words(section)).split())
            yield page, section["ids"][0], title, section.next_node(nodes.title).astext(), text
        if page == "glossary":
            for item in doctree.findall(nodes.definition_list_item):
                if anchor := next((id for id in item[0]["ids"] if id.startswith("term-")), ""):
                    yield page, anchor, title, item[0].astext(), item[1].astext()
    if "ledger" in env.found_docs:
        for one in statements().values():
            yield "ledger", f"ledger-{one.id}", env.titles["ledger"].astext(), f"Statement {one.id}", one.source


def words(node: nodes.Node) -> Iterator[str]:
    """What a reader reads in a section, without its title, its subsections and what has a record of its own."""
    for child in node.children:
        if isinstance(child, nodes.raw):
            text = re.sub(r"<(script|style).*?</\1>", " ", child.astext(), flags=re.DOTALL)
            yield unescape(re.sub(r"<[^>]+>", " ", text))
        elif isinstance(child, nodes.TextElement):
            yield "" if isinstance(child, nodes.title) else child.astext()
        elif not isinstance(child, nodes.section):
            yield from words(child)


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    text = json.dumps(list(records(app.env)), ensure_ascii=False, separators=(",", ":"))
    Path(app.outdir, "search-index.js").write_text(f"window.searchIndex = {text}\n", encoding="utf-8")
    shutil.copy(HERE / "search.js", Path(app.outdir, "_static"))


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", lambda app, config: config.templates_path.append(str(HERE / "templates")))
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
