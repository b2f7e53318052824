"""The slides are the chapters' own figures with their texts, and move by keys; the plan fits its meetings."""

import base64
import hashlib
import json
import re
import sys

import pytest
from accessibility import violations

from tools.runs import Notebook
from tools.toc import ROOT, chapters

CHAPTERS = {path.stem: path for path in chapters()}
GUIDE = (ROOT / "book" / "instructors-guide.md").read_text(encoding="utf-8")


def figures(name):
    chapter = Notebook(CHAPTERS[name], ROOT)
    notebook = json.loads(chapter.result(chapter.newest()).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield "".join(output["data"]["image/png"]), output["metadata"]["image/png"]["alt"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_is_there_with_its_text(book, name):
    page = (book / "slides" / f"{name}.html").read_text(encoding="utf-8")
    shown = re.findall(r'src="\.\./_images/(\w+)\.png"', page)
    assert shown == [hashlib.sha256(base64.b64decode(data)).hexdigest() for data, _ in figures(name)]
    assert all((book / "_images" / f"{picture}.png").exists() for picture in shown)
    assert page.count("<figure>") == page.count("<figcaption>") == len(shown)
    assert page.count("<section") >= 3 + len(shown) and "What to remember" in page and "Predict" in page
    assert not re.search(r'(src|href)="(https?:)?//', page) and "{glue" not in page and "{cite" not in page


def test_slides_move_by_keys_and_stay_where_they_are(book, browser):
    with browser.new_context(viewport={"width": 1280, "height": 720}) as context:
        page = context.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto((book / "slides" / "12-backward-pass.html").as_uri(), wait_until="load")
        count = page.locator("section").count()
        page.wait_for_function("document.title.startsWith('1/')")
        for key, number in (
            ("ArrowRight", 2),
            (" ", 3),
            ("ArrowLeft", 2),
            ("End", count),
            ("Home", 1),
            ("ArrowLeft", 1),
        ):
            page.keyboard.press(key)
            page.wait_for_function(f"document.title.startsWith('{number}/{count} ')")
            page.wait_for_function(
                f"Math.abs(document.querySelectorAll('section')[{number - 1}].getBoundingClientRect().top) < 2"
            )
        page.goto((book / "slides" / "12-backward-pass.html").as_uri() + "#4", wait_until="load")
        page.wait_for_function(f"document.title.startsWith('4/{count} ')")
        page.wait_for_selector("mjx-container", state="attached")
        assert not problems


@pytest.fixture
def slides(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    yield pytest.importorskip("slides")
    for name in ("slides", "questions", "execution", "ledger", "lab", "links"):
        sys.modules.pop(name, None)


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def small_chapter(name, *outputs):
    """The cells of a chapter's text, and one that shows figures."""
    cells = json.loads(CHAPTERS[name].read_text(encoding="utf-8"))["cells"]
    shown = [{"data": {"image/png": PIXEL}, "metadata": {"image/png": {"alt": alt}}} for alt in outputs]
    return {"cells": [*cells, {"cell_type": "code", "source": "", "metadata": {}, "outputs": shown}]}


def test_a_chapters_algorithm_is_a_slide(slides):
    page = slides.slides_of("02-how-it-works", small_chapter("02-how-it-works"), [])
    (section,) = re.findall(r'<section class="algorithm">(.*?)</section>', page, re.DOTALL)
    assert section.startswith("<h2>The three steps</h2>") and section.count(r"\[") == 3 and "eq-" not in section
    steps = ["<strong>1. Measure.</strong>", "<strong>2. Standardize.</strong>", "<strong>3. Scale and shift.</strong>"]
    assert all(step in section for step in steps)
    assert "You will be able to" in page.split("</section>")[0]
    assert slides.algorithm("$$ a $$") == slides.algorithm("$$ a $$\n\n" * 5) == ""


def test_what_a_figure_shows_comes_with_the_next_key(slides, browser, tmp_path):
    (tmp_path / "page.html").write_text(
        slides.slides_of("02-how-it-works", small_chapter("02-how-it-works", "A", "B"), [])
    )
    with browser.new_context(viewport={"width": 1280, "height": 720}) as context:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri(), wait_until="load")
        number = page.evaluate(
            "1 + [...document.querySelectorAll('section')].findIndex((s) => s.className == 'figure')"
        )
        page.goto((tmp_path / "page.html").as_uri() + f"#{number}", wait_until="load")
        page.reload(wait_until="load")
        page.wait_for_function(f"document.title.startsWith('{number}/')")
        captions = page.locator("figcaption")
        assert not captions.nth(0).is_visible()
        page.keyboard.press("ArrowRight")
        assert captions.nth(0).is_visible() and page.title().startswith(f"{number}/")
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"document.title.startsWith('{number + 1}/')")
        assert not captions.nth(1).is_visible()
        page.locator("figure").nth(1).click()
        assert captions.nth(1).is_visible()
        page.reload(wait_until="load")
        page.emulate_media(media="print")
        assert captions.nth(0).is_visible() and captions.nth(1).is_visible()


@pytest.mark.parametrize("width", [1280, 360])
def test_slides_fit_the_screen(book, browser, width):
    with browser.new_context(viewport={"width": width, "height": 720}, color_scheme="dark") as context:
        page = context.new_page()
        page.goto((book / "slides" / "08-small-batches.html").as_uri(), wait_until="load")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert not violations(page)
        if width == 1280:
            assert max(page.evaluate("[...document.querySelectorAll('section')].map((s) => s.offsetHeight)")) <= 730


def test_the_guide_lists_all_slides(book):
    page = (book / "instructors-guide.html").read_text(encoding="utf-8")
    assert re.findall(r'href="slides/([^"]+)\.html"', page) == sorted(CHAPTERS)


PLAN = [row.strip("|").split("|") for row in GUIDE.splitlines() if "{reading}" in row]


class TestPlan:
    def test_reading_fits_an_evening(self, slides):
        assert len(PLAN) == 9
        for row in PLAN:
            numbers = list(map(int, re.search(r"`([\d ]+)`", row[2])[1].split()))
            first, last = numbers[0], numbers[-1]
            assert row[1].strip() in (f"{first} to {last}", ", ".join(map(str, numbers)))
            texts = [CHAPTERS[name] for name in CHAPTERS if int(name[:2]) in numbers]
            assert sum(slides.minutes(json.loads(path.read_text(encoding="utf-8"))) for path in texts) <= 100

    def test_the_class_has_ninety_minutes_and_the_home_two_hours_and_a_half(self):
        for row in PLAN:
            assert sum(map(int, re.findall(r"(\d+) min: ", row[3]))) == 90
            assert int(re.search(r"\((\d+) minutes\)", row[4])[1]) <= 150

    def test_the_time_is_that_of_the_exercises(self):
        from bncourse.exercises import EXERCISES

        for row in PLAN:
            named = re.findall(r"`([a-z-]+)`", row[4])
            if named and "rest" not in row[4]:
                assert int(re.search(r"\((\d+) minutes\)", row[4])[1]) == sum(EXERCISES[n].minutes for n in named)
