"""The book as an EPUB: made by Sphinx's builder, then made to be read without scripts.

usage: python -m tools.epub        (writes _build/batch-normalization-tested.epub; run the notebooks first)

What a reader's program cannot do is done here: formulas become MathML, by the MathJax of the pages in the chromium that
the tests use; explorers stay with their first frame; what is behind a click is open.
"""

import base64
import hashlib
import io
import posixpath
import re
import shutil
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path

from bs4 import BeautifulSoup
from PIL import Image

from tools.browser import program, started
from tools.build import NAME, run_sphinx
from tools.toc import ROOT

GONE = (
    "script, style, button, input, select, noscript, canvas, .bn-controls, .bn-fallback, .bn-answers, .bn-buttons, "
    ".headerlink, .times, summary .expanded"
)
MATHJAX = next(file for file in files("sphinx-mathjax-offline") if file.name == "tex-chtml.js")
STYLE = """pre { white-space: pre-wrap; overflow-wrap: anywhere } .highlight { background: #f4f4f4 }
.bn-map, .bn-bar { list-style: none; padding: 0 }"""
FORMULA = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)


def formulas(pages: dict[str, BeautifulSoup]) -> list[tuple[str, bool]]:
    """All formulas as TeX, each once, and whether it is displayed."""
    found = (FORMULA.search(one.text) for page in pages.values() for one in page.select(".math"))
    return list(dict.fromkeys((one[1] or one[2], one[2] is not None) for one in found if one))


def as_mathml(texts: list[tuple[str, bool]], browser) -> dict[tuple[str, bool], str]:
    page = browser.new_page()
    page.add_script_tag(path=MATHJAX.locate())
    page.evaluate("async () => { await MathJax.startup.promise }")
    code = "texts => Promise.all(texts.map(([tex, display]) => MathJax.tex2mmlPromise(tex, {display})))"
    result = page.evaluate(code, texts)
    page.close()
    return dict(zip(texts, result, strict=True))


def still(page: BeautifulSoup, mathml: dict[tuple[str, bool], str], names: set[str]) -> str:
    """A page that needs no script, as well-formed XHTML; ``names`` are the book's files, as seen from this page."""
    for one in page.select(".math"):
        if found := FORMULA.search(one.text):
            formula = BeautifulSoup(mathml[found[1] or found[2], found[2] is not None], "html.parser")
            for number in one.select(".eqno"):
                number.insert_after(" ")
            for text in one.find_all(string=FORMULA):
                text.replace_with(formula)
    for one in page.select("a[href], link[href]"):
        address = re.split("[#?]", one["href"])[0]
        if address and not re.match(r"\w+:", address) and address not in names:
            one.unwrap()
        else:
            one["href"] = re.sub(r"\?[^#]*", "", one["href"]) if address in names else one["href"]
    answers_to_the_end(page)
    for one in page.select(GONE):
        one.decompose()
    for one in page.select("details"):
        one["open"] = "open"
    for one in page.select("[hidden]"):
        del one["hidden"]
    if page.head:
        page.head.append(style := page.new_tag("style"))
        style.string = STYLE
    return page.decode(formatter="minimal")


def answers_to_the_end(page: BeautifulSoup) -> None:
    """The right answers to a page's questions as its last section; what would give a prediction away goes."""
    section = page.new_tag("section")
    for field in page.select('.bn-asked[data-kind="question"]'):
        if right := field.select_one("[data-right]"):
            label = right.find_parent("label")
            section.append(line := page.new_tag("p"))
            line.append(ask := page.new_tag("strong"))
            ask.string = field.legend.get_text()
            why = label.find_next_sibling("p").get_text().removeprefix("Right. ")
            line.append(f" {label.get_text().strip()}. {why}")
    for one in page.select(".bn-why"):
        one.decompose()
    if section.contents:
        section.insert(0, heading := page.new_tag("h2"))
        heading.string = "Answers"
        page.body.append(section)


def first_frames(page: BeautifulSoup, name: str) -> dict[str, bytes]:
    """The pictures that explorers carry in the page as files of the book: PNG, which every reader's program knows."""
    found = {}
    for picture in page.select('img[src^="data:"]'):
        data = base64.b64decode(picture["src"].partition(",")[2])
        file = f"_images/{hashlib.sha256(data).hexdigest()}.png"
        Image.open(io.BytesIO(data)).save(png := io.BytesIO(), "png", optimize=True)
        found[file] = png.getvalue()
        picture["src"] = posixpath.relpath(file, posixpath.dirname(name) or ".")
    return found


def complete(package: str, parts: dict[str, bytes]) -> str:
    """The list of the book's files with those that came later, and with what a page holds, as EPUB 3 wants it said."""
    kind = 'media-type="application/xhtml+xml"'
    for name in parts:
        if b"<math" in parts[name]:
            package = package.replace(f'href="{name}" {kind}', f'href="{name}" {kind} properties="mathml"')
    new = [name for name in parts if name.endswith(".png") and f'href="{name}"' not in package]
    items = "".join(f'<item id="late-{n}" href="{name}" media-type="image/png"/>' for n, name in enumerate(new))
    return package.replace("</manifest>", f"{items}</manifest>")


def seen_from(name: str, names: set[str]) -> set[str]:
    folder = posixpath.dirname(name) or "."
    return {posixpath.relpath(one, folder) for one in names}


def finish(made: Path, target: Path, browser) -> None:
    """Sphinx's EPUB as one that needs no script."""
    with zipfile.ZipFile(made) as book:
        parts = {entry.filename: book.read(entry) for entry in book.infolist()}
    pages = {name: BeautifulSoup(data, "html.parser") for name, data in parts.items() if name.endswith(".xhtml")}
    mathml = as_mathml(formulas(pages), browser)
    for name, page in pages.items():
        parts |= first_frames(page, name)
        parts[name] = still(page, mathml, seen_from(name, set(parts))).encode()
    parts["content.opf"] = complete(parts["content.opf"].decode(), parts).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as book:
        for name, data in parts.items():
            book.writestr(name, data, zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED)


def write(root: Path = ROOT) -> Path:
    """Build it; return the file."""
    path = program()
    if path is None:
        sys.exit("The EPUB needs a chromium, which turns formulas into MathML; there is none on this machine.")
    shutil.rmtree(root / "_build" / "epub", ignore_errors=True)  # what lies there from before would be packed too
    if not run_sphinx(root, "epub"):
        sys.exit("The EPUB was not built; the reason is above.")
    (made,), target = (root / "_build" / "epub").glob("*.epub"), root / "_build" / f"{NAME}.epub"
    with started(path) as chromium:
        finish(made, target, chromium)
    return target


if __name__ == "__main__":
    print(f"The whole book as one EPUB: {write()}")
