"""Every interactive figure in a real browser: mouse, keyboard, phone, dark mode, no script, no request."""

import base64
import importlib.util
from itertools import product
from pathlib import Path

import pytest
from accessibility import pale, violations
from notebook_output import insert

from bncourse import explorers

NAMES = explorers.__all__


def theme() -> str:
    """The style sheet of the book's theme, where it is installed."""
    found = importlib.util.find_spec("pydata_sphinx_theme")
    if found is None:
        return ""
    folder = Path(found.origin).parent / "theme/pydata_sphinx_theme/static/styles"
    return "".join(f"<style>{path.read_text()}</style>" for path in folder.glob("*.css"))


def document(*bodies: str) -> str:
    outputs = "".join(f'<div class="cell_output"><div class="output text_html">{body}</div></div>' for body in bodies)
    return (
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Explorers</title>'
        f'<meta name="viewport" content="width=device-width">{theme()}</head>'
        f'<body><main class="bd-content"><article><h1>A chapter</h1>{outputs}</article></main></body>'
    )


@pytest.fixture
def open_page(browser):
    """A function that shows explorers in a new page; at the end, nothing was logged and nothing requested."""
    contexts, complaints = [], []

    def show(*bodies: str, width: int = 1280, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("data:") or complaints.append(request.url[:200]))
        page.set_content(document(*bodies))
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


def roots(page):
    return page.locator(".bn-explorer[role=group]")


def controls(root):
    return root.locator("input, select").all()


def check_shows(root, made, values: tuple) -> None:
    """The picture, the text and what a screen reader hears are those of the frame with these values."""
    frame = made.frames[values]
    picture = root.locator("img")
    assert picture.count() == 1 and picture.is_visible()
    assert picture.get_attribute("src") == "data:image/webp;base64," + base64.b64encode(frame.picture).decode()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 2 * frame.size[0]
    assert root.locator(".bn-reading").text_content() == frame.text
    for control, value in zip(controls(root), values, strict=True):
        label = value if isinstance(value, str) else f"{value:g}".replace("e-0", "e-")
        if isinstance(value, str):
            assert control.evaluate("select => select.selectedOptions[0].text") == label
        else:
            assert control.get_attribute("aria-valuetext") == label
            assert control.evaluate("input => input.previousElementSibling.textContent") == label


@pytest.mark.parametrize("name", NAMES)
def test_every_control_by_keyboard(open_page, name, explorer):
    made = explorer(name)
    root = roots(open_page(made.html))
    shown = dict(made.start)
    check_shows(root, made, tuple(shown[parameter] for parameter in made.grid))
    for control, (parameter, values) in zip(controls(root), made.grid.items(), strict=True):
        control.focus()
        for key, value in (("End", values[-1]), ("ArrowUp" if isinstance(values[0], str) else "ArrowLeft", values[-2])):
            control.press(key)
            shown[parameter] = value
            check_shows(root, made, tuple(shown.values()))


@pytest.mark.parametrize("name", NAMES)
def test_every_control_by_mouse(open_page, name, explorer):
    made = explorer(name)
    page = open_page(made.html)
    root = roots(page)
    shown = dict(made.start)
    for control, (parameter, values) in zip(controls(root), made.grid.items(), strict=True):
        for value, share in ((values[-1], 0.99), (values[0], 0.01)):
            if isinstance(value, str):
                control.click()
                page.keyboard.press("Escape")
                control.select_option(value)  # a native menu's list is not part of the page
            else:
                box = control.bounding_box()
                page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            shown[parameter] = value
            check_shows(root, made, tuple(shown.values()))


def test_a_slider_can_be_dragged(open_page, explorer):
    made = explorer("scale_and_shift")
    page = open_page(made.html)
    root = roots(page)
    box = root.locator("input").last.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    seen = set()
    for share in (0.3, 0.6, 0.99):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        seen.add(root.locator(".bn-reading").text_content())
    page.mouse.up()
    assert len(seen) == 3
    check_shows(root, made, (1, 0, 0.1))


def test_each_frame_is_reached_by_its_values(open_page, explorer):
    made = explorer("axes")
    root = roots(open_page(made.html))
    for positions in product(*(range(len(values)) for values in made.grid.values())):
        root.evaluate(
            """(root, positions) => root.querySelectorAll("input, select").forEach((control, i) => {
                if (control.options) control.selectedIndex = positions[i]; else control.value = positions[i];
                control.dispatchEvent(new Event("input", {bubbles: true}));
            })""",
            positions,
        )
        values = tuple(choices[i] for i, choices in zip(positions, made.grid.values(), strict=True))
        assert root.locator(".bn-reading").text_content() == made.frames[values].text


def test_several_explorers_and_one_twice_live_apart(open_page, explorer):
    first, second = explorer("scale_and_shift"), explorer("variance_shift")
    page = open_page(first.html, second.html, first.html)
    start = [tuple(made.start[parameter] for parameter in made.grid) for made in (first, second, first)]
    roots(page).nth(2).locator("input").first.press("End")
    for position, made, values in ((0, first, start[0]), (1, second, start[1]), (2, first, (2, 0, 1e-5))):
        check_shows(roots(page).nth(position), made, values)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_changes_within_the_event(open_page, name, explorer):
    """Nothing is left to wait for but its decoding; ``benchmarks/waiting.py`` says how long that is."""
    page = open_page(explorer(name).html)
    changed = page.evaluate(
        """() => {
            const root = document.querySelector(".bn-explorer[role=group]"), changed = [];
            for (const control of root.querySelectorAll("input")) {
                control.focus();
                for (let value = 0; value <= Number(control.max); value++) {
                    if (Number(control.value) === value) continue;
                    const before = root.querySelector("img");
                    control.value = value;
                    control.dispatchEvent(new Event("input", {bubbles: true}));
                    const after = root.querySelector("img");
                    changed.push(after !== before && after.complete);
                }
            }
            return changed;
        }"""
    )
    assert changed and all(changed)


@pytest.mark.parametrize("name", NAMES)
def test_on_a_phone_nothing_runs_over_and_all_can_use_it(open_page, name, explorer):
    pytest.importorskip("axe_playwright_python")
    page = open_page(explorer(name).html, width=360, device_scale_factor=2, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    edges = "all => all.map(element => element.getBoundingClientRect()).filter(box => box.left < 0 || box.right > 360)"
    assert roots(page).locator("*").evaluate_all(edges) == []
    picture = roots(page).locator("img").bounding_box()
    assert picture["x"] >= 0 and picture["x"] + picture["width"] <= 360 and picture["width"] > 270
    for control in controls(roots(page)):
        assert control.bounding_box()["height"] >= 24
    assert violations(page) == []
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert pale(page) == []


def test_in_the_dark_the_theme_does_not_paint_it_white(open_page, explorer):
    if not theme():
        pytest.skip("the book's theme is not installed")
    page = open_page(explorer("variance_shift").html)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    style = "element => [getComputedStyle(element).backgroundColor, getComputedStyle(element).color]"
    background, _ = page.locator(".text_html").evaluate(style)
    _, letters = roots(page).locator(".bn-reading").evaluate(style)
    assert background == "rgba(0, 0, 0, 0)"
    assert min(map(int, letters.removeprefix("rgb(").removesuffix(")").split(","))) > 150


def test_right_to_left_and_on_paper(open_page, explorer):
    page = open_page(explorer("variance_shift").html)
    page.evaluate("document.documentElement.dir = 'rtl'")
    right_edge = """element => {
        const range = document.createRange()
        range.selectNodeContents(element)
        return element.getBoundingClientRect().right - range.getClientRects()[0].right
    }"""
    assert abs(roots(page).locator(".bn-title").evaluate(right_edge)) < 2
    page.emulate_media(media="print")
    assert roots(page).evaluate("element => getComputedStyle(element).breakInside") == "avoid"


@pytest.mark.parametrize("name", NAMES)
def test_without_scripts_the_first_frame_stands_with_its_text(open_page, name, explorer):
    made = explorer(name)
    page = open_page(made.html, java_script_enabled=False)
    assert roots(page).locator("img").bounding_box()["width"] > 400
    first = made.frames[tuple(made.start[parameter] for parameter in made.grid)]
    assert page.get_by_text(first.text.split("\n")[0]).is_visible()
    assert page.get_by_text("Shown without its controls").is_visible()
    assert not roots(page).locator("input, select").first.is_visible()


def test_it_lives_where_a_notebook_inserts_it_later(open_page, explorer):
    """Its HTML comes first, and new copies of its scripts then."""
    made = explorer("variance_shift")
    page = open_page()
    insert(page, "article", made.html)
    roots(page).locator("input").press("End")
    check_shows(roots(page), made, (made.grid["order"][0], made.grid["inputs"][0], 0.7))
