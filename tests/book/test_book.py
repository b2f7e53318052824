"""The built book, page by page: what it says, that it is whole, and that it reads well in a real browser.

Each page is opened once, in light and in dark, wide and narrow, and its explorers are moved; what was seen is kept, and
the tests ask about it.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from accessibility import all_but_pale, pale, violations

from tools.toc import ROOT, notebooks, pages

PAGES = pages()
SEARCH = "search.html?q=dropout"


def page_of(name: str) -> str:
    return f"{name}.html"


@pytest.mark.parametrize("name", PAGES)
class TestFile:
    """What can be seen without a browser."""

    def test_has_its_title(self, book, name):
        html = (book / page_of(name)).read_text(encoding="utf-8")
        titles = [re.sub("<.*?>", "", title) for title in re.findall(r"<h1>(.*?)<a class=\"headerlink", html)]
        assert len(titles) == 1 and titles[0].endswith(first_heading(name))

    def test_has_no_traceback(self, book, name):
        html = (book / page_of(name)).read_text(encoding="utf-8")
        assert "Traceback (most recent call last)" not in html
        assert 'class="output traceback' not in html

    def test_shows_a_picture_for_every_figure_of_the_notebook(self, book, name):
        executed = book.parent / "jupyter_execute" / f"{name}.ipynb"
        if not executed.exists():
            pytest.skip("not a notebook")
        outputs = [
            output
            for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
            for output in cell["outputs"]
        ]
        expected = sum("image/png" in output.get("data", {}) for output in outputs)
        shown = (book / page_of(name)).read_text(encoding="utf-8").count('src="_images/')
        assert shown >= expected

    def test_adds_little_to_the_shared_files(self, book, name):
        html = (book / page_of(name)).read_text(encoding="utf-8")
        pictures = {book / "_images" / Path(source).name for source in re.findall(r'src="([^"]*_images/[^"]+)"', html)}
        assert len(html.encode()) + sum(path.stat().st_size for path in pictures) < 1_500_000


def first_heading(name: str) -> str:
    source = next(path for end in (".md", ".ipynb") if (path := ROOT / "book" / f"{name}{end}").exists())
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    heading = re.search(r"^# (.*)$", text, re.MULTILINE)[1]
    return heading.replace("&", "&amp;").replace("`", "").replace("'", "’")


def test_whole_book_is_in_one_archive(book):
    import zipfile

    (archive,) = book.parent.glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        packed_names = {Path(entry).relative_to(archive.stem).as_posix() for entry in packed.namelist()}
    assert {page_of(name) for name in PAGES} <= packed_names
    assert any(entry.endswith("tex-chtml.js") for entry in packed_names)
    assert archive.stat().st_size <= 8_000_000
    assert not [entry for entry in packed_names if entry.endswith((".map", ".ttf"))]
    assert len([entry for entry in packed_names if entry.endswith(".whl")]) == 1


def test_solutions_are_not_in_the_book(book):
    leaks = [
        path.relative_to(book).as_posix()
        for path in book.rglob("*")
        if path.suffix in {".html", ".ipynb", ".md", ".txt"} and "# BEGIN SOLUTION" in path.read_text(encoding="utf-8")
    ]
    assert not leaks


class Sight(NamedTuple):
    """What a browser saw on one page."""

    errors: list[str]
    requests: list[str]
    links: list[str]
    images: list[dict]
    formulas: tuple[int, int]
    violations: list[str]
    overflow: int
    small: list[str]
    cut: dict[int, list[str]]
    wrapped: dict[int, list[str]]
    explorers: list[str]


EYES = """() => ({
    links: [...document.querySelectorAll('a[href]')].map((a) => a.href),
    images: [...document.images].map((i) => ({
        alt: i.getAttribute('alt'), seen: i.complete && i.naturalWidth > 0, src: i.getAttribute('src').slice(0, 80)})),
    formulas: [document.querySelectorAll('.math').length, document.querySelectorAll('mjx-container').length],
})"""
ON_A_PHONE = """() => ({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    small: [...document.querySelectorAll('.bd-article figure img, .bn-explorer img')]
        .filter((one) => one.clientWidth < 360 || parseFloat(getComputedStyle(one).paddingLeft))
        .map((one) => `${one.clientWidth} px: ${one.alt}`),
})"""
CODE = """() => {
    for (const one of document.querySelectorAll('.bd-article details')) one.open = true
    const seen = [...document.querySelectorAll('.bd-article pre')].filter((pre) => pre.clientWidth)
    const lines = (pre) => pre.textContent.replace(/\\n$/, '').split('\\n').length
    const shown = (pre) => {
        const style = getComputedStyle(pre)
        const padding = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom)
        return (pre.clientHeight - padding) / parseFloat(style.lineHeight)
    }
    const apparatus = (pre) => pre.closest('details.hide')
    const breaks = (pre) => pre.textContent.trim().includes(' ') // an address does not
    const begin = (pre) => pre.textContent.trim().slice(0, 60)
    return [
        seen.filter((pre) => pre.scrollWidth > pre.clientWidth).map(begin),
        seen.filter((pre) => !apparatus(pre) && breaks(pre) && Math.round(shown(pre)) > lines(pre)).map(begin),
    ]
}"""
ONE_OF_EACH_CLASS = """() => {
    const seen = new Set()
    for (const token of document.querySelectorAll('.highlight span[class]'))
        if (seen.has(token.className)) token.replaceWith(...token.childNodes)
        else seen.add(token.className)
}"""
IN_ITS_COLOURS = """async (scheme) => {
    while (document.documentElement.dataset.theme !== scheme) await new Promise(requestAnimationFrame)
    await Promise.all(document.getAnimations().map((animation) => animation.finished))
}"""
USED = """async (train) => {
    for (const field of document.querySelectorAll('.bn-asked'))
        for (const one of ['input', 'button']) field.querySelector(one).click()
    for (const menu of document.querySelectorAll('.bn-line select')) {
        menu.selectedIndex = 1
        menu.dispatchEvent(new Event('change', { bubbles: true }))
    }
    if (!train) return
    for (const one of ['fieldset input', '.bn-train']) document.querySelector(`.bn-lab ${one}`).click()
    while (!document.querySelector('.bn-lab .bn-result').innerText) await new Promise(requestAnimationFrame)
}"""
HEADER, LAPTOP = 48, 720  # px


@pytest.fixture(scope="module")
def look(site, browser):
    """Open a page, once in a run, and say what was seen. The pages share a reader's cache."""
    seen: dict[str, Sight] = {}
    with browser.new_context(color_scheme="dark") as context:

        def look_at(address: str) -> Sight:
            if address not in seen:
                seen[address] = open_page(context, site, address)
            return seen[address]

        yield look_at


def open_page(context, site: str, address: str) -> Sight:
    """Load a page once, dark and wide, and look at it narrow and light too."""
    errors, requests, found = [], [], []
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 900})
    listeners = {
        "console": lambda message: errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: errors.append(str(error)),
        "request": lambda request: requests.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(site + address, wait_until="load")
    page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise }")
    facts = page.evaluate(EYES)
    explorers = [said for one in page.locator(EXPLORERS).all() for said in try_explorer(page, one)]
    cut, wrapped = {}, {}
    for width in (360, 1440, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        if width == 360:
            facts |= page.evaluate(ON_A_PHONE)
        cut[width], wrapped[width] = page.evaluate(CODE)
    page.evaluate(USED, address == "lab.html")  # what shows only after a click
    for event, listener in listeners.items():
        page.remove_listener(event, listener)  # axe asks for style sheets itself
    page.mouse.move(0, 0)  # it would lie on something else when the page is short
    page.evaluate(ONE_OF_EACH_CLASS)  # thousands of tokens, some twenty colours
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(IN_ITS_COLOURS, scheme)
        found += [f"{scheme}: {one}" for one in pale(page)]
    found += all_but_pale(page)
    page.close()
    facts["formulas"] = tuple(facts["formulas"])
    return Sight(errors, requests, violations=found, cut=cut, wrapped=wrapped, explorers=explorers, **facts)


EXPLORERS = ".bn-explorer[role=group]"
CHANGED = """([root, picture, reading]) =>
    root.querySelector('img').src !== picture && root.querySelector('.bn-reading').textContent !== reading"""
HEIGHT = """root => root.querySelector('.bn-reading').getBoundingClientRect().bottom
    - root.querySelector('.bn-controls').getBoundingClientRect().top"""


def try_explorer(page, explorer) -> list[str]:
    """Move each control by keyboard and by mouse, after a guess, on a laptop's screen; say what does not work."""
    from playwright.sync_api import TimeoutError as NothingChanged

    name, problems = explorer.get_attribute("aria-label"), []
    page.set_viewport_size({"width": 1280, "height": LAPTOP})
    explorer.get_by_label("Your guess").fill("half")
    explorer.get_by_role("button", name="Keep it").click()
    controls = explorer.locator(".bn-controls").locator("input, select").all()
    if not controls:
        problems.append(f"{name} has no control")
    for control in controls:
        for move in (by_keyboard, by_mouse):
            before = shown(explorer)
            move(control)
            try:
                page.wait_for_function(CHANGED, arg=[explorer.element_handle(), *before], timeout=5000)
            except NothingChanged:
                problems.append(f"{name}: {control.evaluate('one => one.parentElement.innerText')}, {move.__name__}")
            if (height := explorer.evaluate(HEIGHT)) > LAPTOP - HEADER:
                problems.append(f"{name}: controls, picture and reading take {height:.0f} px")
    return problems


def shown(explorer) -> tuple[str, str]:
    return explorer.locator("img").get_attribute("src"), explorer.locator(".bn-reading").text_content()


def is_menu(control) -> bool:
    return control.evaluate("control => control.tagName") == "SELECT"


def by_keyboard(control) -> None:
    """Step away from the end that the control stands at."""
    control.focus()
    if is_menu(control):
        last = control.evaluate("control => control.selectedIndex === control.options.length - 1")
        control.press("ArrowUp" if last else "ArrowDown")
    else:
        last = control.evaluate("control => control.value === control.max")
        control.press("ArrowLeft" if last else "ArrowRight")


def by_mouse(control) -> None:
    """Click at the other end of a slider; choose another entry of a menu."""
    if is_menu(control):
        chosen = control.evaluate("control => control.selectedIndex")
        control.select_option(index=0 if chosen else 1)
        return
    control.scroll_into_view_if_needed()
    box = control.bounding_box()
    high = control.evaluate("control => Number(control.value) > Number(control.max) / 2")
    control.click(position={"x": 4 if high else box["width"] - 4, "y": box["height"] / 2})


@pytest.mark.parametrize("address", [*map(page_of, PAGES), SEARCH])
class TestSeen:
    """What a reader sees."""

    def test_console_is_clean(self, look, address):
        assert not look(address).errors

    def test_no_request_leaves_the_host(self, look, site, address):
        assert not [url for url in look(address).requests if not url.startswith((site, "data:", "blob:"))]

    def test_formulas_are_rendered(self, look, address):
        written, rendered = look(address).formulas
        assert rendered >= written

    def test_images_are_there_and_described(self, look, address):
        bad = [image for image in look(address).images if not image["seen"] or len((image["alt"] or "").split()) < 2]
        assert not bad

    def test_no_serious_accessibility_violation(self, look, address):
        assert not look(address).violations

    def test_page_does_not_scroll_sideways_on_a_phone(self, look, address):
        assert look(address).overflow <= 0

    def test_figures_are_as_wide_as_a_phone(self, look, address):
        """Then their smallest letters have 10 px: test_plotting."""
        assert not look(address).small

    def test_explorers_move_and_fit_on_a_laptop(self, look, address):
        assert not look(address).explorers

    def test_no_code_and_no_output_is_cut(self, look, address):
        assert not any(look(address).cut.values()), look(address).cut

    def test_no_line_of_code_or_output_is_wrapped_on_a_wide_page(self, look, address):
        wide = {width: look(address).wrapped[width] for width in (1280, 1440)}
        assert not any(wide.values()), wide

    def test_internal_links_and_anchors_lead_somewhere(self, look, site, book, address):
        broken = []
        for link in {link.removeprefix(site) for link in look(address).links if link.startswith(site)}:
            page, _, anchor = link.partition("#")
            target = book / (page.partition("?")[0] or "index.html")
            if not target.is_file() or (anchor and anchor not in ids(target)):
                broken.append(link)
        assert not broken


@pytest.mark.parametrize(("text", "found"), [
    ("<p style='color: #999'>pale</p>", 1),
    ("<p hidden style='color: #999'>pale, but hidden</p>", 0),
    ("<div style='background: #333'><p>dark on dark</p></div>", 1),
])  # fmt: skip
def test_one_pale_text_among_many_is_found(browser, text, found):
    """Of texts that look alike only some are tried."""
    others = "<p hidden>hidden</p>" * 9 + "<p>a text with <a href='/'>a link</a></p>" * 9
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content(f"<body style='background: #fff; color: #111'>{others}{text}{others}</body>")
        assert len(pale(page)) == found
        assert page.locator("p:not([data-again])").count() == 3 + found


@cache
def ids(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def test_the_landing_page_says_first_what_was_found(site, browser, book):
    """The bar's numbers are the ledger's, and a first screen has the buttons."""
    ledger = json.loads((book / "ledger.json").read_text(encoding="utf-8"))
    verdicts = [one["verdict"] for one in ledger["statements"] if one["verdict"]]
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(site)
        numbers = [int(text.split()[0]) for text in page.locator(".bn-bar li").all_inner_texts()]
        assert sum(numbers) == len(verdicts) and sorted(numbers) == sorted(map(verdicts.count, set(verdicts)))
        for name in ("Start with chapter 1", "All verdicts", "I have a bug"):
            assert page.get_by_role("link", name=name).first.bounding_box()["y"] < 900
        linked = set(page.locator(".bn-map a").evaluate_all("all => all.map(a => a.getAttribute('href'))"))
        assert linked == {page_of(path.relative_to(ROOT / "book").with_suffix("").as_posix()) for path in notebooks()}
        assert page.locator(".bn-card").count() == 3


@pytest.mark.parametrize("name", PAGES)
def test_every_page_has_a_preview(book, name):
    html = (book / page_of(name)).read_text(encoding="utf-8")
    said = re.search(r'<meta name="description" content="([^"]+)"', html)[1]
    assert len(said.split()) >= 4 and f'<meta property="og:description" content="{said}"' in html
    assert ("tex-chtml.js" in html) == ('class="math' in html)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("dropout", "09-dropout"),
        ("layer norm vs batch norm", "07-variants"),
        ("momentum", "03-training-vs-inference"),
        ("gradient accumulation", "08-small-batches"),
    ],
)
def test_search_leads_to_the_section_from_a_file(book, browser, query, page):
    """As on a train: no server, the pages opened from disk. The hit is marked, and in view."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        seen, problems = context.new_page(), []
        seen.on("pageerror", lambda error: problems.append(str(error)))
        seen.on("requestfailed", lambda request: problems.append(request.url))
        seen.goto(f"{(book / 'search.html').as_uri()}?q={query}")
        first = seen.locator(".bn-results li").first
        assert first.locator("p mark").count() >= 1
        first.get_by_role("link").click()
        seen.wait_for_url(f"**/{page}.html?found=*")
        seen.wait_for_selector(".bd-article mark")
        seen.wait_for_function(
            "[...document.querySelectorAll('.bd-article p mark')].some(mark => "
            "mark.getBoundingClientRect().top > 0 && mark.getBoundingClientRect().bottom < innerHeight)"
        )
        assert not problems


def test_a_term_is_linked_where_it_first_stands(book):
    html = (book / "03-training-vs-inference.html").read_text(encoding="utf-8")
    links = re.findall(r'<a class="[^"]*bn-term[^"]*" href="glossary.html#([^"]+)"', html)
    assert len(links) > 3 and len(links) == len(set(links))
    glossary = (book / "glossary.html").read_text(encoding="utf-8")
    assert all(f'id="{anchor}"' in glossary for anchor in links)
    assert "bn-term" not in glossary
    exercises = (book / "exercises" / "ex-01-normalizing-a-batch.html").read_text(encoding="utf-8")
    assert 'href="../02-how-it-works.html"' in exercises.partition('class="bd-article"')[2]
    assert (
        'href="exercises/ex-01-normalizing-a-batch.html"'
        in (book / "02-how-it-works.html").read_text().partition('class="times"')[2]
    )


def test_the_ledger_filters_and_opens_what_the_address_names(book, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((book / "ledger.html").as_uri() + "?chapter=2#ledger-P1")
        page.wait_for_selector("#ledger-P1[open]")
        shown = page.locator(".bn-statement:not([hidden])")
        assert {one.get_attribute("data-chapter") for one in shown.all()} == {"1", "2"} and shown.count() > 3
        page.get_by_label("Chapter").select_option("")
        assert shown.count() == page.locator(".bn-statement").count() > 50
        found = page.locator(".bn-statement").first.get_attribute("data-verdict")
        page.get_by_label("Verdict").select_option(found)
        assert {one.get_attribute("data-verdict") for one in shown.all()} == {found}
        assert f"verdict={found}" in page.url
        page.get_by_role("button", name="Open all").click()
        assert page.locator(".bn-statement[open]").count() >= shown.count()


def test_an_explorer_keeps_the_guess_beside_the_result_and_its_state_in_the_address(book, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((book / "02-how-it-works.html").as_uri())
        explorer = page.locator(".bn-explorer[role=group]").first
        page.keyboard.press("Tab")
        guess = explorer.get_by_label("Your guess")
        guess.focus()
        page.keyboard.type("half")
        page.keyboard.press("Enter")
        assert explorer.locator(".bn-guessed").inner_text() == "You guessed: half. It shows:"
        slider = explorer.locator("input[type=range]").first
        slider.press("End")
        reading, address = explorer.locator(".bn-reading").inner_text(), page.url
        other = context.new_page()
        other.goto(address)
        assert other.locator(".bn-explorer[role=group] .bn-reading").first.inner_text() == reading
        other.goto(address.replace("=", "=nonsense"))
        assert other.locator(".bn-explorer[role=group] .bn-reading").first.inner_text() != reading


def test_every_page_of_exercises_shows_what_a_check_says(book):
    for path in (book / "exercises").glob("*.html"):
        html = path.read_text(encoding="utf-8")
        sample = html.partition("What a check says.")[2].partition("</pre>")[0]
        assert "cases fail" in sample and "FAIL" in sample and "Hint" in sample, path.name


def test_the_wrong_line_of_a_creature_is_found_by_a_click_and_by_the_keyboard(book, browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto((book / "exercises" / "ex-04-bug-zoo.html").as_uri())
        assert page.locator(".bn-line").count() == 7
        first = page.locator(".bn-line").first
        page.get_by_text("is_grad_enabled", exact=True).first.click()
        assert "yes, here it is" in first.get_by_role("status").inner_text()
        page.get_by_text("register_buffer", exact=True).first.click()
        assert "no, this one" in first.get_by_role("status").inner_text()
        first.get_by_role("combobox").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        assert first.get_by_role("status").inner_text().startswith("Line 1: no")
        assert "if self.training:" not in page.content().partition("class Sleepless")[2].partition("bn-line")[0]


def test_a_table_or_a_formula_that_does_not_fit_says_that_it_scrolls(book, browser):
    with browser.new_context(viewport={"width": 360, "height": 800}) as context:
        page = context.new_page()
        page.goto((book / "13-deployment.html").as_uri(), wait_until="load")
        for what, box in (("table", ".pst-scrollable-table-container"), ("formula", "div.math")):
            page.wait_for_selector(f"{box}.bn-scrolls[data-says^='This {what}']")
            wide = page.locator(box).evaluate_all(
                "all => all.map(box => [[box, ...box.querySelectorAll('mjx-container[display]')].some("
                "one => one.scrollWidth > one.clientWidth + 1), box.classList.contains('bn-scrolls')])"
            )
            assert all(scrolls == says for scrolls, says in wide)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.wait_for_function("!document.querySelector('.bn-scrolls')")


def test_formulas_are_rendered_from_a_file(book, browser):
    with browser.new_context() as context:
        page = context.new_page()
        failed = []
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.goto((book / "glossary.html").as_uri(), wait_until="load")
        page.wait_for_selector("mjx-container")
        page.wait_for_timeout(500)
        assert not failed


def test_search_field_is_there_once(site, browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(site)
        fields = page.locator("button.search-button-field, form.bd-search input:visible")
        assert sum(fields.nth(index).is_visible() for index in range(fields.count())) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_under_the_mouse_is_not_pale(site, browser, scheme):
    with browser.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(site + "03-training-vs-inference.html")
        link = page.locator(".bd-article p > a.internal[href='#fig-warming']").first
        colour = "one => getComputedStyle(one).color"
        before = link.evaluate(colour)
        link.hover()
        page.evaluate(IN_ITS_COLOURS, scheme)
        assert link.evaluate(colour) != before and not violations(page, runOnly=["color-contrast"])


def test_theme_can_be_switched_to_dark(site, browser):
    with browser.new_context(color_scheme="light") as context:
        page = context.new_page()
        page.goto(site)
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        button = page.locator("button.theme-switch-button").first
        for _ in range(3):
            button.click()
            if page.evaluate("document.documentElement.dataset.theme") == "dark":
                break
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", background)[:3])) < 60
