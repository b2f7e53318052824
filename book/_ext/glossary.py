"""Links that nobody types: the first use of a glossary term on a page, and of another chapter's number.

The page ``glossary`` gives each of its terms an anchor, ``term-...``.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "glossary"
NOT_IN = (nodes.reference, nodes.title, nodes.literal, nodes.caption, nodes.term, nodes.literal_block, nodes.rubric)


def read_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Each term's anchor, and the names that lead to it."""
    if app.env.docname != PAGE:
        return
    app.env.bncourse_terms = terms = {}
    for item in doctree.findall(nodes.definition_list_item):
        names = [re.sub(r"\(.*?\)", "", name).strip() for name in item[0].astext().split(",")]
        anchor = f"term-{nodes.make_id(names[0])}"
        if anchor not in item[0]["ids"] and anchor not in terms.values():
            item[0]["ids"].append(anchor)
            label_it(app.env, anchor, names[0])
            terms |= {name: anchor for name in names if len(name) > 1 and name.isascii()}


def label_it(env, anchor: str, term: str) -> None:
    """Typed links lead there, ``#term-dead-kernel`` and ``glossary.md#term-dead-kernel``; others stop the build."""
    standard = env.domains["std"]
    standard.labels[anchor] = (PAGE, anchor, term)
    standard.anonlabels[anchor] = (PAGE, anchor)
    env.metadata[PAGE].setdefault("myst_slugs", {})[anchor] = (0, anchor, term)


def changed(app: Sphinx, env) -> list[str]:
    """All pages, if the terms are others than when they were written."""
    before, env.bncourse_linked = getattr(env, "bncourse_linked", None), dict(getattr(env, "bncourse_terms", {}))
    return sorted(env.found_docs) if before != env.bncourse_linked else []


def link_first_uses(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    terms = getattr(app.env, "bncourse_terms", {})
    chapters = {int(name[:2]): name for name in app.env.found_docs if re.match(r"\d\d-", name)}
    places = {name: (PAGE, anchor) for name, anchor in terms.items()} if docname != PAGE else {}
    used = {chapters.get(int(docname[:2]))} if docname[:2].isdigit() else set()
    words = "|".join(re.escape(name) for name in sorted(places, key=len, reverse=True))
    pattern = re.compile(
        r"\b(?P<chapter>[Cc]hapters? (?P<number>\d+))\b" + (rf"|\b(?P<term>{words})(?=s?\b)" if words else ""), re.I
    )
    for text in list(doctree.findall(nodes.Text)):
        if not is_prose(text):
            continue
        parts, end = [], 0
        for found in pattern.finditer(text):
            if found["chapter"]:
                target = (chapters.get(int(found["number"])), "")
                key = target[0]
            else:
                target = next(place for name, place in places.items() if name.lower() == found["term"].lower())
                key = target
                if found["term"].isupper() != any(name == found["term"] for name in places if name.isupper()):
                    continue  # "BN" is a term, "bn" a name
            if target[0] is None or key in used:
                continue
            used.add(key)
            parts += [nodes.Text(text[end : found.start()]), reference(app, docname, *target, found[0])]
            end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def is_prose(text: nodes.Text) -> bool:
    """Whether it stands in a paragraph, and not in a link, a title or code."""
    above = list(parents(text))
    return any(isinstance(one, nodes.paragraph) for one in above) and not any(isinstance(one, NOT_IN) for one in above)


def parents(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def reference(app: Sphinx, docname: str, page: str, anchor: str, text: str) -> nodes.reference:
    address = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
    classes = ["bn-term"] if anchor else []
    return nodes.reference(text, text, internal=True, refuri=address, classes=classes)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", read_terms)
    app.connect("env-updated", changed)
    app.connect("doctree-resolved", link_first_uses)
    return {"parallel_read_safe": True, "env_version": 2}
