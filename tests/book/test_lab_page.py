"""The lab as its readers meet it, in a real browser: guess, train, look, share; and what must not break it."""

import importlib
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from accessibility import violations
from notebook_output import insert

from bncourse import lab
from bncourse.claims import statements, verdict
from tools.lab_presets import design, judge, load, measure, state
from tools.toc import ROOT

QUICK = ("vanishing", "eps", "one")  # the presets that take a second or two on ten seeds
HEAD = (
    '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Lab</title>'
    '<meta name="viewport" content="width=device-width">'
    "<style>body { margin: 8px } [data-theme=dark] body { background: #121212; color: #ddd }</style></head>"
)


@pytest.fixture
def visit(browser, tmp_path):
    """A function that opens the lab from a file, as on a train; at the end nothing was logged and nothing requested."""
    contexts, complaints = [], []

    def open_lab(address: str = "", *, width: int = 1280, script: str = "", content: str | None = None, **options):
        file = tmp_path / "lab.html"
        body = content or lab.html("first", address=True)
        file.write_text(f"{HEAD}<body><main><h1>The lab</h1>{body}</main></body></html>", encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: "getImageData" in message.text or complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: request.url.startswith(("data:", "blob:", "file:")) or complaints.append(request.url),
        )
        if script:
            page.add_init_script(script)
        page.goto(file.as_uri() + address)
        page.set_default_timeout(60_000)
        return page

    yield open_lab
    for context in contexts:
        context.close()
    assert complaints == []


SHORT = "#lab-first&steps=20&a.depth=2&b.depth=2&images=100"


def status(page) -> str:
    return page.locator(".bn-status").text_content()


def train(page) -> None:
    """Train to the end, with the first guess."""
    if page.locator("fieldset input:checked").count() == 0:
        page.locator("fieldset input").first.check()
    page.locator(".bn-train").click()
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")


def ink(page, selector: str) -> int:
    """How many pixels of a canvas are drawn on."""
    return page.locator(selector).first.evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((value, i) => i % 4 === 3 && value > 0).length"
    )


def test_a_reader_guesses_trains_and_compares(visit):
    page = visit(SHORT, content=lab.html("first", address=True, ledger="ledger.html"))
    page.get_by_text("B hardly learns at all").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")
    assert re.search(r"A: test accuracy \d+\.\d% \(\d+\.\d% with batch statistics\)\. B: test accuracy", status(page))
    result = page.locator(".bn-result").text_content()
    assert result.startswith("This run, with your change. Measured: accuracy (A minus B): ")
    assert "The preset without your change, on 10 seeds. With twelve layers" in result
    assert "Statement P6, which the book tests. “Deep networks are hard to train.”" in result
    assert page.get_by_role("link", name="Its verdict").get_attribute("href") == "ledger.html#ledger-P6"
    assert page.locator(".bn-progress").text_content() == "step 20 of 20"


def test_without_a_guess_the_button_says_so(visit):
    page = visit("#lab-vanishing")
    page.get_by_role("button", name="Train without a guess").click()
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")
    result = page.locator(".bn-result").text_content()
    assert re.search(r"\(A against B\): a factor of [\d,]+000\. The answer: “More than 1,000 times smaller”\.", result)
    assert "guess" not in result and re.search(r"The 95% interval of this mean is \d+,000 to [\d,]+,000\.", result)


def test_the_networks_can_be_looked_at_before_the_first_step(visit):
    page = visit("#lab-exploding&steps=100")
    page.get_by_text("Look inside the networks").click()
    rows = page.locator(".bn-inside tbody tr")
    rows.last.wait_for()
    assert [row.split()[0] for row in rows.all_inner_texts()] == ["1", *map(str, range(5, 61, 5))]
    first, last = (rows.nth(i).locator("td").first.text_content() for i in (0, -1))
    assert re.search("10[⁴⁵⁶⁷]$", first) and float(last) < 10
    assert "This is before the first step." in page.locator(".bn-says").text_content()
    before = page.locator(".bn-inside table").text_content()
    page.get_by_role("button", name="One step").click()
    page.wait_for_function("document.querySelector('.bn-inside caption')?.textContent.endsWith('at step 1')")
    page.get_by_role("button", name="Start over").click()
    page.wait_for_function("document.querySelector('.bn-inside caption')?.textContent.endsWith('at step 0')")
    assert page.locator(".bn-inside table").text_content() == before


def test_before_the_engine_answers_there_is_nothing_to_tell(visit):
    page = visit(script="window.Worker = class { postMessage() {} }")
    for name in ("Look inside the networks", "The curves as numbers"):
        page.get_by_text(name).click()
    page.get_by_role("table", name="Training loss").wait_for()
    assert page.locator(".bn-lab tbody tr").count() == 0
    assert not re.search("undefined|NaN", page.locator(".bn-lab").inner_text())


def test_a_change_ends_the_guess_and_is_named_until_it_is_undone(visit):
    page = visit("#lab-first&steps=20")
    page.evaluate("location.hash = '#lab-two'")
    page.get_by_text("It hardly matters").check()
    changed, guesses = page.locator(".bn-changed"), page.locator("fieldset input:checked")
    page.get_by_text("More controls").click()
    for label in ("seeds at once", "first seed"):
        page.get_by_label(label).press("ArrowRight")
    assert changed.is_hidden() and guesses.count() == 1
    page.get_by_label("A: batch size").press("ArrowRight")
    assert changed.text_content() == "You have changed: A’s batch size 3 instead of 2. Back to the preset"
    assert guesses.count() == 0 and page.evaluate("location.hash") == "#lab-two&a.batch=3&seed=1&seeds=2"
    page.get_by_role("button", name="Back to the preset").click()
    assert changed.is_hidden() and page.evaluate("location.hash") == "#lab-two"


IDLE = """rows => rows.flatMap((row) => [...row.querySelectorAll(".bn-idle")].filter((one) => one.offsetHeight)
    .map((one) => [one.parentElement.querySelector("b")?.textContent, row.firstChild.textContent]
        .filter(Boolean).join(": ")))"""


def test_a_control_without_effect_says_so(visit):
    page = visit("#lab-first&b.norm=layer")
    page.get_by_text("More controls").click()
    idle = lambda: set(page.locator(".bn-row").evaluate_all(IDLE))  # noqa: E731
    for_ghosts = {"A: size of a ghost batch", "B: size of a ghost batch"}
    dropped = {"A: placement of dropout", "B: placement of dropout"}
    assert idle() == {"B: momentum of the statistics"} | for_ghosts | dropped
    page.get_by_label("A: norm", exact=True).select_option("none")
    assert {"A: eps", "A: placement of the norm", "A: gamma and beta", "test batch", "test images"} <= idle()
    page.get_by_label("A: norm", exact=True).select_option("Ghost BatchNorm")
    page.get_by_label("B: dropout rate").press("ArrowRight")
    assert idle() == {"B: momentum of the statistics", "B: size of a ghost batch", "A: placement of dropout"}


def test_every_view_is_a_picture_and_a_table(visit):
    page = visit("#lab-first&steps=20&a.depth=3&b.depth=2&images=100&seeds=2&b.norm=batch")
    train(page)
    page.get_by_text("Look inside the networks").click()
    menu = page.locator(".bn-inside select").first
    seen = set()
    for index in range(menu.locator("option").count()):
        menu.select_option(index=index)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        rows = page.locator(".bn-inside tbody tr")
        assert rows.count() > 0 and re.search(r"\d", rows.last.text_content())
        assert ink(page, ".bn-inside canvas") > 300
        seen.add(page.locator(".bn-inside table").text_content())
    assert len(seen) == menu.locator("option").count() == 7
    page.get_by_text("The curves as numbers").click()
    numbers = page.get_by_role("table", name="Training loss (nats) and test accuracy")
    assert numbers.locator("tbody tr").last.locator("th").text_content() == "20"
    assert "NaN" not in page.locator(".bn-lab").inner_text()


def test_the_address_keeps_everything_and_reading_it_gives_it_back(visit):
    page = visit("#lab-two")
    assert page.locator(".bn-title").text_content() == lab.presets()["two"]["title"]
    slider = page.get_by_label("A: batch size")
    slider.focus()
    slider.press("ArrowRight")
    assert page.evaluate("location.hash") == "#lab-two&a.batch=3"
    page.evaluate("location.hash = '#lab-first&b.norm=rms&seed=3'")
    page.wait_for_function("document.querySelector('.bn-title').textContent.startsWith('Twelve')")
    assert page.get_by_label("B: norm", exact=True).locator("option:checked").text_content() == "RMSNorm"
    assert page.evaluate("location.hash") == "#lab-first&b.norm=rms&seed=3"
    page.reload()
    assert page.get_by_label("B: norm", exact=True).locator("option:checked").text_content() == "RMSNorm"


def test_a_link_to_a_preset_leads_to_the_lab_and_not_to_its_row(visit):
    far = '<div style="height: 3000px"></div>'
    rows = "".join(f'<p id="lab-{name}"><a href="#lab-{name}">{name}</a></p>' for name in ("two", "one"))
    page = visit("#lab-two", content=far + lab.html("first", address=True) + far + rows + far)
    in_sight = (
        "() => { const y = document.querySelector('.bn-title').getBoundingClientRect().y; return y > 0 && y < 300 }"
    )
    page.wait_for_function(in_sight)
    for name in ("two", "one", "one"):
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_function(in_sight)
        assert page.locator(".bn-title").text_content() == lab.presets()[name]["title"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("#lab-nonsense", "There is no preset “nonsense”."),
        ("#lab-first&a.depth=1000", "hidden layers cannot be “1000”: took 64."),
        ("#lab-first&a.depth=-3&b.rate=NaN", "hidden layers cannot be “-3”: took 1."),
        ("#lab-first&a.rate=Infinity", "learning rate cannot be “Infinity”: took"),
        ("#lab-first&a.norm=%E0%A4%A&b.norm=<b>x</b>", "norm cannot be"),
        ("#lab-first&colour=red", "The address has “colour=red”, which is not a setting."),
        ("#lab-first&a.seed=3&constructor=1", "which is not a setting"),
        ("#lab-first&&&=", "which is not a setting"),
        ("#lab-first&b.rate=", "learning rate cannot be “”: took 0."),
    ],
)
def test_an_address_that_somebody_wrote_is_taken_as_far_as_it_goes(visit, address, said):
    page = visit(address)
    assert said in page.locator(".bn-notes").text_content()
    assert page.locator(".bn-train").is_enabled() and page.locator(".bn-notes b").count() == 0


def test_a_number_may_be_written_otherwise(visit):
    page = visit("#lab-first&a.eps=0.00001&b.eps=1E-3&a.rate=0.10")
    assert page.locator(".bn-notes").is_hidden() and page.evaluate("location.hash") == "#lab-first&b.eps=0.001"


def test_another_pages_anchor_is_not_the_labs(visit):
    page = visit("#what-the-lab-computes")
    assert page.locator(".bn-notes").is_hidden() and page.evaluate("location.hash") == "#what-the-lab-computes"


def test_a_run_that_diverges_says_so_and_keeps_its_curves(visit):
    page = visit("#lab-gain&steps=20&a.depth=2&b.depth=40&b.gain=20&b.width=16")
    train(page)
    said = page.locator(".bn-notes").text_content()
    assert said == "B stopped at step 1: diverged, its loss is no longer a finite number."
    assert ink(page, ".bn-charts canvas") > 1000 and "A: test accuracy" in status(page)


def test_a_batch_of_one_stops_with_torchs_error(visit):
    page = visit("#lab-one&steps=20")
    train(page)
    said = page.locator(".bn-notes").text_content()
    assert said.startswith("A stopped at step 1: Expected more than 1 value per channel when training")
    assert re.fullmatch(r"Done\. A stopped at step 1\. B: test accuracy \d+\.\d%\.", status(page))


def test_the_largest_network_is_refused_with_a_sentence(visit):
    page = visit("#lab-first&a.depth=64&a.width=128&a.batch=256&a.accumulate=16")
    assert "the lab stops at 200 million: choose fewer layers or units" in status(page)
    assert page.locator(".bn-train").is_disabled()
    page.get_by_role("button", name="One step").click()
    assert "the lab stops at" in status(page)


def test_without_workers_a_look_must_be_short_too(visit):
    large = "#lab-first&a.depth=64&a.width=128&a.batch=2"
    assert visit(large).locator(".bn-train").is_enabled()
    page = visit(large, script="delete window.Worker")
    assert "the lab stops at 100 million" in status(page) and page.locator(".bn-train").is_disabled()


@pytest.mark.parametrize("how", ["none", "refused", "late"])
def test_without_workers_it_trains_on_the_pages_own_thread(visit, how):
    script = {
        "none": "delete window.Worker",
        "refused": "window.Worker = class { constructor() { throw new Error('no'); } }",
        "late": """window.Worker = class {
            constructor() { setTimeout(() => this.onerror()); }
            postMessage() {}
            terminate() {}
        }""",
    }[how]
    page = visit(SHORT, script=script)
    train(page)
    assert "A: test accuracy" in status(page)


def test_a_page_in_the_background_pauses(visit):
    page = visit("#lab-first&steps=10000")
    page.locator("fieldset input").first.check()
    page.locator(".bn-train").click()
    page.wait_for_function("!document.querySelector('.bn-progress').textContent.startsWith('step 0')")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert status(page).startswith("Paused, because the page was in the background.")
    page.wait_for_timeout(300)
    step = page.locator(".bn-progress").text_content()
    page.wait_for_timeout(300)
    assert page.locator(".bn-progress").text_content() == step
    page.get_by_role("button", name="Go on").click()
    page.wait_for_function("(step) => document.querySelector('.bn-progress').textContent !== step", arg=step)


def test_one_step_start_over_and_speed(visit):
    page = visit(SHORT)
    page.get_by_role("button", name="One step").click()
    page.wait_for_function("document.querySelector('.bn-progress').textContent === 'step 1 of 20'")
    page.get_by_role("button", name="Start over").click()
    page.wait_for_function("document.querySelector('.bn-progress').textContent === 'step 0 of 20'")
    page.get_by_label("speed").select_option("2 steps a second")
    page.locator("fieldset input").first.check()
    page.locator(".bn-train").click()
    page.wait_for_function("/step [12] of/.test(document.querySelector('.bn-progress').textContent)")
    assert status(page) == "Training."


def test_the_keyboard_is_enough_and_the_status_is_quiet(visit):
    page = visit(SHORT)
    page.evaluate("""() => {
        window.said = [];
        const status = document.querySelector("[role=status]");
        new MutationObserver(() => window.said.push(status.textContent)).observe(status, {childList: true});
    }""")
    page.locator("fieldset input").first.focus()
    page.keyboard.press("Space")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "bn-train":
            break
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")
    assert len(page.evaluate("window.said")) <= 4  # the guess, the start, the end


FRAMES = """() => new Promise((done) => {
    const times = [];
    const gaps = () => times.slice(1).map((time, i) => time - times[i]);
    const note = (time) => times.push(time) < 40 ? requestAnimationFrame(note) : done(gaps());
    requestAnimationFrame(note);
})"""


def test_the_page_stays_smooth_while_it_trains(visit):
    page = visit("#lab-first&steps=10000&seeds=3")
    page.get_by_text("Look inside the networks").click()
    page.locator(".bn-inside tbody tr").first.wait_for()
    resting = sorted(page.evaluate(FRAMES))[20]  # others may use the machine, too
    page.locator("fieldset input").first.check()
    page.locator(".bn-train").click()
    page.wait_for_function("!document.querySelector('.bn-progress').textContent.startsWith('step 0')")
    gaps = sorted(page.evaluate(FRAMES))
    print(f"between two frames: median {gaps[20]:.1f} ms, longest {gaps[-1]:.0f} ms; at rest {resting:.1f} ms")
    assert gaps[20] < max(25, 2 * resting)


def test_with_reduced_motion_it_draws_once_a_second(visit):
    drawn = """window.drawn = [];
        const clear = CanvasRenderingContext2D.prototype.clearRect;
        CanvasRenderingContext2D.prototype.clearRect = function (...all) {
            if (this.canvas.ariaLabel?.startsWith("Test accuracy")) window.drawn.push(performance.now());
            return clear.apply(this, all);
        };"""
    page = visit("#lab-first&steps=10000", script=drawn, reduced_motion="reduce")
    page.locator(".bn-train").click()
    page.wait_for_function("document.querySelector('.bn-progress').textContent > 'step 1'")
    page.evaluate("window.drawn = []")
    page.wait_for_function("window.drawn.length === 3")
    first, second, third = page.evaluate("window.drawn")
    assert second - first > 900 and third - second > 900


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_all_can_use_it(visit, dark):
    pytest.importorskip("axe_playwright_python")
    page = visit(SHORT, width=360, has_touch=True, reduced_motion="reduce")
    page.evaluate("dark => { document.documentElement.dataset.theme = dark ? 'dark' : 'light' }", dark)
    page.get_by_text("B hardly learns at all").tap()
    page.locator(".bn-train").tap()
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")
    for name in ("More controls", "Look inside the networks", "The curves as numbers"):
        page.get_by_text(name, exact=True).tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = "all => all.filter((one) => one.offsetHeight && one.offsetHeight < 17).map((one) => one.outerHTML)"
    assert page.locator("button, select, input").evaluate_all(small) == []
    assert violations(page) == []


def test_a_small_lab_starts_with_one_button(visit):
    page = visit(content=lab.html("first", small=True, page="lab.html"))
    assert page.locator("button").count() == 1
    before = ink(page, "canvas")
    page.get_by_role("button", name="Train both").click()
    page.wait_for_function("/step [1-9]/.test(document.querySelector('.bn-progress').textContent)")
    page.wait_for_function("document.querySelector('.bn-status').textContent.startsWith('Done')")
    assert ink(page, "canvas") > before + 200
    assert page.get_by_role("link").get_attribute("href") == "lab.html#lab-first"
    said = page.locator(".bn-legend").text_content()
    assert said.startswith("A: BatchNorm. B: no norm. Both: 12 hidden layers, SGD at rate 0.1, batches of 32, gain")


def test_two_labs_on_one_page_and_one_inserted_later(visit):
    """Its HTML comes first, and new copies of its scripts then."""
    one = lab.html("two", small=True)
    page = visit(content=lab.html("first", small=True) + one)
    insert(page, "main", lab.html("eps"))
    assert page.locator(".bn-title").all_text_contents() == [
        lab.presets()[name]["title"] for name in ("first", "two", "eps")
    ]


def test_without_scripts_the_question_stands(visit):
    page = visit(java_script_enabled=False)
    assert page.get_by_text("The lab needs JavaScript").is_visible()


def test_in_a_notebook_it_is_one_call(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda one: shown.append(one._repr_mimebundle_()))
    lab.show("first")
    assert shown[0]["text/html"].startswith('<div class="bn-lab"') and "twelve hidden layers" in shown[0]["text/plain"]
    with pytest.raises(ValueError, match=r"preset must be one of first, .*, got 'nonsense'"):
        lab.show("nonsense")


def test_it_is_light():
    whole = lab.html("first", address=True)
    digits = sum(map(len, lab.digits.packed_digits().values()))
    print(f"the lab: {len(whole.encode()) / 1000:.0f} kB, the digits {digits / 1000:.0f} kB of it")
    assert digits <= 120_000 and len(whole.encode()) <= 300_000
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|importScripts", whole)


class TestPresets:
    def test_there_are_enough_and_each_asks_first(self):
        assert len(lab.presets()) >= 24
        for name, preset in lab.presets().items():
            assert preset["question"].endswith("?") and len(preset["answers"]) >= 3, name
            assert "{value}" in preset["sentence"] and preset["of"] in ("A", "B", "A - B"), name
            assert preset["predicts"] in ("more", "less", "same") and preset["d"] > 0, name

    @pytest.mark.parametrize("name", lab.presets())
    def test_its_settings_exist(self, name):
        chosen, settings = state(lab.presets()[name], 0), lab.settings()
        for side, of in (("a", "network"), ("b", "network"), ("shared", "both")):
            assert set(chosen[side]) == {one for one, setting in settings.items() if setting["of"] == of}
            assert all(value in settings[one]["choices"] for one, value in chosen[side].items())
        assert set(lab.presets()[name]["show"]) <= set(settings)

    @pytest.mark.parametrize("name", lab.presets())
    def test_answers_leave_no_gap_and_the_measured_one_is_among_them(self, name):
        ranges = sorted((one.get("from", -1e9), one.get("to", 1e9)) for one in lab.presets()[name]["answers"])
        mean = lab.measured()[name]["mean"]
        assert any(low <= mean <= high for low, high in ranges)

    def test_the_place_of_the_right_answer_does_not_give_it_away(self):
        places = Counter()
        for name, preset in lab.presets().items():
            right = [
                one.get("from", -1e9) <= lab.measured()[name]["mean"] <= one.get("to", 1e9) for one in preset["answers"]
            ]
            places["first" if right[0] else "last" if right[-1] else "between"] += 1
        assert 5 <= min(places.values()) and max(places.values()) <= 15, places

    def test_every_sentence_held_on_ten_seeds(self):
        assert set(lab.measured()) == set(lab.presets())
        wrong = {name: one for name, one in lab.measured().items() if one["verdict"] != "holds" or one["count"] < 10}
        assert not wrong, "change the preset, then run python -m tools.lab_presets"

    @pytest.mark.parametrize("name", lab.presets())
    def test_it_was_measured_as_it_is(self, name):
        now = lab.presets()[name]
        assert lab.measured()[name]["design"] == design(now), "run python -m tools.lab_presets"
        assert design(now) != design(now | {"both": now.get("both", {}) | {"steps": 1}})

    def test_some_of_them_again(self, browser):
        page = browser.new_page()
        load(page)
        for name in QUICK:
            found = judge(lab.presets()[name], measure(page.evaluate, lab.presets()[name]))
            assert found["verdict"] == "holds", (name, found)
        page.close()

    @pytest.mark.parametrize(
        ("predicts", "low", "high", "found"),
        [
            ("more", 2, 9, "holds"), ("more", 1, 3, "undecided here"), ("more", -3, 1, "does not hold"),
            ("less", -9, -2, "holds"), ("less", -3, -1, "undecided here"), ("less", -1, 5, "does not hold"),
            ("same", -1, 1, "holds"), ("same", -1, 3, "undecided here"), ("same", 2, 3, "does not hold"),
        ],
    )  # fmt: skip
    def test_the_rule(self, predicts, low, high, found):
        assert verdict(predicts, low, high, d=2)[0] == found

    def test_the_ledgers_button(self, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
        refute = importlib.import_module("lab").refute
        builder = SimpleNamespace(get_relative_uri=lambda here, page: f"{page}.html")
        env = SimpleNamespace(found_docs={"lab"}, docname="ledger", app=SimpleNamespace(builder=builder))
        assert 'href="lab.html#lab-first">Try to refute it in the lab</a>' in refute(env, "P6")
        assert "Not in the lab: a page has one device" in refute(env, "S3")
        env.found_docs.clear()
        assert refute(env, "P6") == ""

    def test_every_statement_has_a_preset_or_a_reason(self):
        for name in statements():
            found = lab.link(name)
            assert found.preset in lab.presets() or (found.preset is None and len(found.text.split()) > 5), name
