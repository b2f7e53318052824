"""On paper and in an EPUB: light colours, answers at the end, nothing that needs a click or a script."""

import re
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

from tools.epub import still
from tools.pdf import one_document
from tools.toc import pages


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
        <details><summary>Answer</summary>it</details><script>1 < 2</script></body></html>"""
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
    assert 'open="open"' in made and made.index("Answers") < made.index("this. So it is.")
