"""The book's questions: complete as data, right where a number can be computed, and alive in a real browser."""

import csv
import io
import json
import tomllib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bncourse.claims import finding, statements
from tools.toc import ROOT, chapters

FILES = {path.stem[:2]: ROOT / "book" / "questions" / f"{path.stem[:2]}.toml" for path in chapters()}
PAGES = {path.stem[:2]: path.stem for path in chapters()}


def read(chapter):
    return tomllib.loads(FILES[chapter].read_text(encoding="utf-8"))


def question(chapter, id):
    return next(q for kind in ("question", "prediction") for q in read(chapter).get(kind, []) if q["id"] == id)


@pytest.mark.parametrize("chapter", FILES)
class TestData:
    def test_enough_and_every_answer_is_explained(self, chapter):
        data = read(chapter)
        assert set(data) == {"question", "prediction"} and len(data["question"]) >= 4 and data["prediction"]
        for one in (*data["question"], *data["prediction"]):
            if "claim" in one:
                assert set(one) == {"id", "ask", "claim"}
                continue
            assert set(one) == {"id", "ask", "right", "wrong"} and len(one["wrong"]) >= 2, one["id"]
            answers = [one["right"], *one["wrong"]]
            assert len({text for text, _ in answers}) == len({why for _, why in answers}) == len(answers)
            assert all(len(why.split()) >= 2 and why.rstrip('"').endswith((".", "?")) for _, why in answers), one["id"]

    def test_ids_are_not_used_twice(self, chapter):
        ids = [one["id"] for kind in read(chapter).values() for one in kind]
        assert len(ids) == len(set(ids))

    def test_claims_are_those_of_the_chapter(self, chapter):
        for one in read(chapter)["prediction"]:
            if "claim" in one:
                assert f"{statements()[finding(one['claim']).statement].chapter:02}" == chapter

    def test_the_chapter_has_the_place_for_them(self, chapter):
        cells = json.loads((ROOT / "book" / f"{PAGES[chapter]}.ipynb").read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        assert sum("## What to remember" in text for text in texts) == 1 and cells[0]["cell_type"] == "markdown"


def spread(scale):
    return nn.BatchNorm1d(1)(scale * torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))).std().item()


def of_all(first, second):
    return torch.tensor([*first, *second]).var(correction=0)


def after_dropout(mean, p):
    x = mean + torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return x.var() / F.dropout(x, p).var()


@pytest.mark.parametrize(
    ("chapter", "id", "value", "digits"),
    [
        ("02", "tiny", lambda: spread(1e-3), 1),
        ("02", "paper", lambda: F.batch_norm(torch.tensor([[1.0], [2], [3], [6]]), None, None, training=True)[3, 0], 2),
        ("07", "means", lambda: 16 * nn.GroupNorm(4, 32).num_groups, 0),
        ("09", "output", lambda: after_dropout(0.0, 0.5), 1),
        ("09", "not-zero", lambda: after_dropout(3.0, 0.2), 2),
        ("11", "values", lambda: torch.zeros(16, 32, 10, 10)[:, 0].numel(), 0),
        ("14", "merge", lambda: of_all([1.0, 3.0], [7.0, 9.0]), 0),
    ],
)
def test_a_number_that_can_be_computed_is_right(chapter, id, value, digits):
    assert f"{float(value()):.{digits}f}" in question(chapter, id)["right"][0].replace(",", "")


@pytest.fixture
def page(browser, book):
    """A page that is opened from disk, as a reader without a server does."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True) as context:
        page = context.new_page()
        page.go = lambda name: page.goto((book / f"{name}.html").as_uri(), wait_until="load")
        page.set_default_timeout(30_000)  # ms
        yield page


def answer(field, text):
    field.locator("label", has=field.page.get_by_text(text, exact=True)).locator("input").check()
    field.get_by_role("button").click()


def plain(page, html):
    """A text of the data as the page shows it."""
    return html.replace("`", "").replace("*", "")


class TestInTheBrowser:
    def test_every_wrong_answer_has_its_own_reaction(self, page):
        page.go(PAGES["05"])
        for one in read("05")["question"]:
            field = page.locator(f"#question-05-{one['id']}")
            for number, (text, why) in enumerate([*one["wrong"], one["right"]]):
                answer(field, plain(page, text))
                said = field.get_by_role("status").inner_text()
                assert said.startswith("Right." if number == len(one["wrong"]) else "Not right.")
                assert said.endswith(plain(page, why))
        assert "5 of 5 answered, 0 right at once" in page.locator(".bn-score").inner_text()

    def test_by_keyboard_alone(self, page):
        page.go(PAGES["03"])
        field = page.locator("#question-03-no-grad")
        field.locator("input").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert field.get_by_role("status").inner_text().split(".")[0] in ("Right", "Not right")
        assert page.get_by_role("group", name="A model in training mode").count() == 1

    def test_nothing_chosen_is_no_answer(self, page):
        page.go(PAGES["03"])
        field = page.locator("#question-03-no-grad")
        field.get_by_role("button").click()
        assert field.get_by_role("status").inner_text() == "Choose an answer first."
        assert "0 of 5" in page.locator(".bn-score").inner_text()

    def test_a_prediction_is_recorded_once_and_scored_at_the_end(self, page):
        page.go(PAGES["02"])
        field = page.locator("#question-02-tiny")
        answer(field, "1")
        assert "Recorded" in field.get_by_role("status").inner_text()
        assert field.locator("input").first.is_disabled() and not field.get_by_role("button").is_visible()
        page.reload()
        assert field.locator("input").first.is_disabled()
        assert page.locator("[data-of='02-tiny'] .bn-said").inner_text() == "You predicted “1”: not right."
        assert "Predictions: 1 made, 0 right." in page.locator(".bn-score").inner_text()

    def test_a_verdict_is_the_measured_one(self, page, book):
        verdicts = {
            one["name"]: one["verdict"]
            for statement in json.loads((book / "ledger.json").read_text(encoding="utf-8"))["statements"]
            for one in statement["findings"]
        }
        page.go(PAGES["03"])
        field = page.locator("#question-03-sorted")
        assert verdicts["T5.sorted"] == "holds"
        answer(field, "yes")
        assert "right" in page.locator("[data-of='03-sorted'] .bn-said").inner_text().split(": ")[1]
        assert "costs" in page.locator("[data-of='03-sorted'] details").text_content()

    def test_pages_share_answers_and_all_can_be_exported_erased_and_read_again(self, page, tmp_path):
        page.go(PAGES["01"])
        answer(page.locator("#question-01-shift"), "the shift does not exist")
        page.go("questions")
        row = page.locator("tr[data-chapter='01']")
        assert row.inner_text().split("\t")[1:3] == ["1 of 4", "0"]
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        download.value.save_as(tmp_path / "answers.json")
        assert list(json.loads((tmp_path / "answers.json").read_text())) == ["01-shift"]
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Erase all").click()
        assert row.inner_text().split("\t")[1] == "1 of 4"
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Erase all").click()
        assert row.inner_text().split("\t")[1] == "0 of 4" and "01-shift" not in page.evaluate(STORED)
        page.get_by_label("Import").set_input_files(tmp_path / "answers.json")
        page.get_by_text("Answers read: 1.").wait_for()
        assert row.inner_text().split("\t")[1] == "1 of 4"
        (tmp_path / "other.json").write_text("[1, 2")
        page.get_by_label("Import").set_input_files(tmp_path / "other.json")
        page.get_by_text("This file has no answers.").wait_for()
        assert row.inner_text().split("\t")[1] == "1 of 4"

    @pytest.mark.parametrize(
        "storage", ["get() { throw new Error('blocked') }", "value: { getItem: () => '{\"a\": 3' }"]
    )
    def test_without_a_store_it_reacts_all_the_same(self, page, storage):
        page.add_init_script(f"Object.defineProperty(window, 'localStorage', {{ {storage} }})")
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.go(PAGES["01"])
        answer(page.locator("#question-01-shift"), "the shift does not exist")
        assert "Not right." in page.locator("#question-01-shift .bn-said").inner_text()
        assert "keeps nothing" in page.locator(".bn-score").inner_text()
        assert not [error for error in errors if "questions.js" in error or "bn-" in error]

    def test_without_a_script_every_explanation_shows(self, browser, book):
        with browser.new_context(java_script_enabled=False) as context:
            page = context.new_page()
            page.goto((book / f"{PAGES['01']}.html").as_uri())
            assert page.locator("#question-01-shift .bn-why").first.is_visible()
            assert not page.locator("#question-01-plain .bn-why").first.is_visible()  # nothing to predict otherwise


STORED = "localStorage.getItem('batch-normalization-tested: answers')"


def test_the_deck_is_what_anki_imports(book):
    text = (book / "review-deck.txt").read_text(encoding="utf-8")
    head = dict(line[1:].split(":", 1) for line in text.splitlines() if line.startswith("#"))
    assert head["separator"] == "tab" and head["html"] == "true" and head["guid column"] == "1"
    assert head["columns"].split("\t")[int(head["tags column"]) - 1] == "Tags"
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    rows = list(csv.reader(io.StringIO(body), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {len(row) for row in rows} == {4} and len({row[0] for row in rows}) == len(rows)
    assert len(rows) == sum(len(kind) for chapter in FILES for kind in read(chapter).values())
    assert all(row[2].startswith("<b>") for row in rows)
