"""The book as one PDF: the built pages, one after another, printed by the chromium that the tests use.

usage: python -m tools.pdf        (writes _build/batch-normalization-tested.pdf; build the book first)
"""

import posixpath
import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup

from tools.browser import program, started
from tools.build import NAME
from tools.toc import ROOT, pages

FOOT = '<p style="width: 100%; text-align: center; font-size: 8px"><span class="pageNumber"></span></p>'
BREAKS = ".bd-article + .bd-article { break-before: page; }"


def one_document(html: Path, names: list[str]) -> str:
    """All pages' articles in one document, with links between them that lead inside it."""
    whole = BeautifulSoup((html / "index.html").read_text(encoding="utf-8"), "html.parser")
    for script in whole.find_all("script"):
        script.decompose()
    articles = [article_of(html, name, names) for name in names]
    whole.body.clear()
    whole.html["data-theme"] = "light"
    whole.body.append(content := whole.new_tag("div", attrs={"class": "bd-content"}))
    content.extend(articles)
    whole.head.append(style := whole.new_tag("style"))
    style.string = BREAKS
    for source in ("_static/mathjax/tex-chtml.js", "_static/print.js"):
        if source.endswith("print.js"):
            whole.body.append(whole.new_tag("script", src=source))
        else:
            whole.head.append(settings := whole.new_tag("script"))
            settings.string = 'window.MathJax = {options: {processHtmlClass: "math"}, startup: {typeset: true}}'
            whole.head.append(whole.new_tag("script", src=source))
    return str(whole)


def article_of(html: Path, name: str, names: list[str]):
    """A page's article; its ids begin with the page's name, and its addresses are seen from the folder of all pages."""
    article = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser").select_one("article")
    for script in article.find_all("script"):
        script.decompose()
    for one in article.find_all(id=True):
        one["id"] = f"{name}--{one['id']}"
    for one in article.find_all("label", attrs={"for": True}):
        one["for"] = f"{name}--{one['for']}"
    article["id"] = name
    folder = posixpath.dirname(name)
    for link in article.find_all("a", href=True):
        if (address := inside(link["href"], name, folder, names)) is None:
            del link["href"]
        else:
            link["href"] = address
    for picture in article.find_all("img", src=True):
        if not re.match(r"\w+:", picture["src"]):
            picture["src"] = posixpath.normpath(posixpath.join(folder, picture["src"]))
    return article


def inside(address: str, name: str, folder: str, names: list[str]) -> str | None:
    """An address of a page or of a place on one as a place of the one document; None for another file of the book."""
    if re.match(r"\w+:", address):
        return address
    page, _, anchor = address.partition("#")
    page = posixpath.normpath(posixpath.join(folder, page.partition("?")[0])).removesuffix(".html") if page else name
    if page not in names:
        return None
    return f"#{page}--{anchor}" if anchor else f"#{page}"


def write(root: Path = ROOT) -> Path:
    """Print the built pages of a course; return the file."""
    html, target = root / "_build" / "html", root / "_build" / f"{NAME}.pdf"
    path = program()
    if path is None or not (html / "index.html").exists():
        sys.exit("The PDF needs the built pages (python -m tools.build) and a chromium; one of them is missing.")
    whole = html / "whole-book.html"  # among the pages, whose files it shows
    try:
        whole.write_text(one_document(html, pages(root)), encoding="utf-8")
        with started(path) as chromium:
            page = chromium.new_page()
            page.goto(whole.as_uri(), wait_until="load", timeout=120_000)
            page.evaluate("async () => { await MathJax.startup.promise }")
            page.pdf(path=target, format="A4", scale=0.8, outline=True, tagged=True, prefer_css_page_size=True,
                     display_header_footer=True, header_template="<p></p>", footer_template=FOOT)  # fmt: skip
    finally:
        whole.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    print(f"The whole book as one PDF: {write()}")
