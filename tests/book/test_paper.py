"""On paper and in an EPUB: light colours, answers at the end, nothing that needs a click or a script."""

import base64
import io
import re
import zipfile
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from tools.epub import finish, still
from tools.pdf import one_document
from tools.toc import ROOT, pages


@pytest.fixture
def page(browser, book):
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto((book / "02-how-it-works.html").as_uri(), wait_until="load")
        yield page


COLOURS = """() => ['.bd-article p', '.bd-article h2', '.cell_input pre'].map(
    (selector) => getComputedStyle(document.querySelector(selector)).color)"""


def test_a_dark_page_is_printed_in_light_colours_with_its_answers_last(page):
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_selector(".bn-answers-printed")
    assert all(max(map(int, re.findall(r"\d+", colour)[:3])) < 110 for colour in page.evaluate(COLOURS))
    last = page.locator(".bd-article section").last
    assert last.get_attribute("class") == "bn-answers-printed"
    assert "1.60. μ = 3" in last.inner_text()
    assert not page.locator(".bd-article .bn-moved").first.is_visible()
    assert page.locator(".bd-article details:not(.hide, .bn-moved):not([open])").count() == 0
    assert page.locator(".bd-article h1").inner_text().startswith("2. ")
    assert page.locator(".bd-article h2").first.evaluate("one => getComputedStyle(one).breakAfter") == "avoid"
    page.emulate_media(media="screen")
    page.wait_for_function("!document.querySelector('.bn-answers-printed, .bn-moved')")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_one_document_leads_only_to_itself(book):
    whole = BeautifulSoup(one_document(book, pages()), "html.parser")
    ids = [one["id"] for one in whole.find_all(id=True)]
    inside = [link["href"].removeprefix("#") for link in whole.find_all("a", href=re.compile("^#"))]
    assert len(whole.find_all("article")) == len(pages()) and len(inside) > 500
    assert not set(inside) - set(ids) - {""}
    assert all((book / picture["src"]).exists() for picture in whole.find_all("img", src=re.compile("^(?!data:)")))


def test_an_epub_page_needs_no_script_and_is_well_formed():
    source = r"""<html><head></head><body><p>So <span class="math">\(x<1\)</span><br>
        <a href="slides/1.html">slides</a> <a href="b.xhtml?verdict=holds#x">there</a> <a href="https://a.org/?q=1">out</a></p>
        <fieldset class="bn-asked" data-kind="question"><legend>Why?</legend><label><input type="radio" data-right>
        <span>this</span></label><p class="bn-why" hidden>Right. So it is.</p></fieldset><button>Check</button>
        <details><summary>Answer<p class="expanded">Hide</p></summary>it</details>
        <script>1 < 2</script></body></html>"""
    made = still(BeautifulSoup(source, "html.parser"), {("x<1", False): "<math><mi>x</mi></math>"}, {"b.xhtml"})
    ElementTree.fromstring(made)
    assert (
        "<math><mi>x</mi></math>" in made and "script" not in made and "<button" not in made and "Not right" not in made
    )
    assert (
        "slides" in made
        and "slides/1" not in made
        and 'href="b.xhtml#x"' in made
        and 'href="https://a.org/?q=1"' in made
    )
    assert 'open="open"' in made and "Hide" not in made and made.index("Answers") < made.index("this. So it is.")


def test_an_epub_lists_all_pages_and_shows_explorers(browser, tmp_path, monkeypatch):
    """With the book's settings, on two pages."""
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    Image.new("RGB", (4, 2), "red").save(frame := io.BytesIO(), "webp")
    picture = f'<img alt="A frame" src="data:image/webp;base64,{base64.b64encode(frame.getvalue()).decode()}"/>'
    data = {"text/html": f'<div class="bn-explorer">{picture}<p class="bn-reading">What it says</p></div>'}
    data["application/vnd.jupyter.widget-view+json"] = {"model_id": "1", "version_major": 2, "version_minor": 0}
    shown = nbformat.v4.new_code_cell("show()", outputs=[nbformat.v4.new_output("display_data", data)])
    cells = [nbformat.v4.new_markdown_cell("# A chapter\n\n$x < 1$"), shown]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    (tmp_path / "index.md").write_text("# A book\n\n```{toctree}\n:hidden:\nchapter\n```\n")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    settings = {name: value for name, value in settings.items() if name.startswith(("epub_", "nb_"))}
    settings |= {"project": "A book", "version": "1", "author": "us", "copyright": "2026", "nb_execution_mode": "off"}
    settings |= {"extensions": ["myst_nb"], "myst_enable_extensions": ["dollarmath"]}
    with docutils_namespace():
        folders = (tmp_path, None, tmp_path / "made", tmp_path / "doctrees")
        app = Sphinx(*folders, "epub", settings, status=None, warning=io.StringIO(), warningiserror=True)
        app.build()
    finish(next((tmp_path / "made").glob("*.epub")), tmp_path / "book.epub", browser)
    with zipfile.ZipFile(tmp_path / "book.epub") as book:
        assert book.infolist()[0].filename == "mimetype" and book.infolist()[0].compress_type == zipfile.ZIP_STORED
        package, nav, page = (book.read(name).decode() for name in ("content.opf", "nav.xhtml", "chapter.xhtml"))
        assert 'href="chapter.xhtml"' in nav and "unknown" not in package
        assert "What it says" in page and "<math" in page and "data:" not in page
        assert re.search(r'href="chapter.xhtml" media-type="application/xhtml\+xml" properties="mathml"', package)
        (source,) = re.findall(r'src="(_images/\w+\.png)"', page)
        assert f'href="{source}" media-type="image/png"' in package
        assert Image.open(io.BytesIO(book.read(source))).getpixel((0, 0))[0] > 200
        for name in book.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx")):
                ElementTree.fromstring(book.read(name))
