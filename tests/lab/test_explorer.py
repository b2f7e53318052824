"""The engine of the interactive figures: frames, errors, HTML, widgets; and what the seven figures say."""

import base64
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from explorer_cases import explorer
from PIL import Image

from bncourse import explorers
from bncourse.explorers.explorer import Explorer
from bncourse.plotting import BLUE, figure


def draw(height, colour):
    drawn, axes = figure(height=2)
    axes.bar([0], [height], color=BLUE if colour == "blue" else "black")
    axes.set_ylim(0, 3)
    return drawn, f"The bar is {colour} & {height} high <here>."


WORDS = {
    "title": "A bar",
    "question": "How high will it be?",
    "description": "One bar on a scale from zero to three.",
}
GRID = {"height": [1, 2, 3], "colour": ["blue", "black"]}


@pytest.fixture(scope="module")
def bar():
    return Explorer(draw, **WORDS, start={"height": 2}, **GRID)


def pixels(explorer, **values):
    frame = explorer.frames[tuple(values[name] for name in explorer.grid)]
    return np.asarray(Image.open(io.BytesIO(frame.picture)).convert("RGB"))


def test_one_frame_for_each_combination(bar):
    assert list(bar.frames) == [(h, c) for h in (1, 2, 3) for c in ("blue", "black")]
    assert bar.frames[2, "black"].text == "The bar is black & 2 high <here>."


def test_frames_show_what_was_drawn_sharp_and_in_its_colour(bar):
    shown = pixels(bar, height=2, colour="blue")
    assert shown.shape == (400, 1120, 3)  # 2 x 5.6 inches at twice 100 pixels
    blue = np.abs(shown.astype(int) - [0x00, 0x72, 0xB2]).max(-1) <= 3
    higher = np.abs(pixels(bar, height=3, colour="blue").astype(int) - [0x00, 0x72, 0xB2]).max(-1) <= 3
    assert blue.sum() > 50_000
    assert higher.sum() / blue.sum() == pytest.approx(1.5, rel=0.02)
    assert (shown[0, 0] == 255).all()


def test_same_inputs_give_the_same_html(bar):
    assert Explorer(draw, **WORDS, start={"height": 2}, **GRID).html == bar.html


def test_html_needs_no_other_file_and_has_no_ids(bar):
    assert not re.search(r"""(src|href)=["'](?!data:)""", bar.html)
    assert not re.search(r"https?:|//|@import|import\(|require|fetch", re.sub(r"base64,[^\"]*|// .*", "", bar.html))
    assert " id=" not in bar.html


def test_html_carries_every_frame_once(bar):
    assert bar.html.count("data:image/webp") == 6
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', bar.html).group(1))
    assert [text for _, text in (frame for frame in data if frame)] == [
        frame.text for values, frame in bar.frames.items() if values != (2, "blue")
    ]
    url, _ = data[0]
    assert base64.b64decode(url.split(",")[1]) == bar.frames[1, "blue"].picture


def test_without_scripts_the_first_frame_and_its_text_stand(bar):
    static = re.sub(r"<(script|style).*?</\1>", "", bar.html, flags=re.DOTALL)
    assert static.count("<img") == 1 and "2 high &lt;here&gt;" in static
    assert 'class="bn-controls" hidden' in static and "need JavaScript" in static


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": [], "colour": ["blue"]}, r"height=\[\] has no values"),
        (
            {"height": range(201), "colour": ["blue"]},
            r"201 frames \(201 of height x 1 of colour\); expected at most 200",
        ),
        ({"height": [1, "two"]}, r"height=\[1, 'two'\] is mixed"),
        ({"height": [1, 2, 1]}, r"height=\[1, 2, 1\] has a value twice"),
        ({"labels": {"hight": "h"}}, r"labels has hight; expected parameters"),
        ({"start": {"height": 7}}, r"start has height=7; expected one of the grid's values"),
        ({"start": {"width": 7}}, r"start has width=7"),
        ({"description": "Figure"}, r"description='Figure' describes nothing"),
    ],
)
def test_bad_grids_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Explorer(draw, **(WORDS | GRID | change))


def test_one_value_without_a_list_is_named():
    with pytest.raises(TypeError, match="height=5 is no sequence"):
        Explorer(draw, **(WORDS | GRID | {"height": 5}))
    assert len(Explorer(draw, **(WORDS | GRID | {"height": np.array([1.0, 2.0])})).frames) == 4


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="grid is empty"):
        Explorer(draw, **WORDS)


def broken(value):
    if value == 2:
        raise ZeroDivisionError("no such bar")
    return draw(value, "blue")


def blank(value):
    drawn, axes = figure()
    axes.remove()
    return drawn, "Nothing."


def mute(value):
    return draw(value, "blue")[0], " "


def without_text(value):
    return draw(value, "blue")[0]


def growing(value):
    return figure(height=value)[0], "It grows."


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, r"broken\(value=2\) failed: ZeroDivisionError: no such bar"),
        (blank, r"blank\(value=1\) failed: ValueError: the picture is blank"),
        (mute, r"mute\(value=1\) failed: ValueError: text=' ' says nothing"),
        (without_text, r"without_text\(value=1\) failed: TypeError: .* a figure and a text"),
        (growing, r"growing\(value=2\) failed: ValueError: size=\(560, 200\) .* expected \(560, 100\)"),
    ],
)
def test_a_draw_that_fails_names_its_values(function, message):
    with pytest.raises(RuntimeError, match=message):
        Explorer(function, **WORDS, value=[1, 2])


def test_too_many_bytes_are_refused():
    def noise(seed):
        drawn, axes = figure(height=4)
        axes.imshow(np.random.default_rng(seed).random((400, 560)))
        return drawn, "Noise."

    with pytest.raises(ValueError, match=r"explorer has [\d,]+ bytes in 3 frames; expected at most 1,000,000"):
        Explorer(noise, **WORDS, seed=[1, 2, 3])


def test_widget_redraws_when_its_controls_move(bar):
    box = bar.widget()
    opening, height, colour, shown = box.children
    assert "How high" in opening.value
    assert (height.value, colour.value) == (2, "blue")
    for wanted in bar.frames:
        height.value, colour.value = wanted
        assert base64.b64encode(bar.frames[wanted].picture).decode() in shown.value
        assert f"{wanted[0]} high" in shown.value and WORDS["description"] in shown.value


def test_outside_a_kernel_there_is_html_and_text_only(bar):
    bundle = bar._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "2 high" in bundle["text/plain"]


KERNEL_CELL = """
from bncourse.explorers.explorer import Explorer
from bncourse.plotting import figure
def draw(height):
    drawn, axes = figure(height=2)
    axes.bar([0], [1 / height])
    return drawn, f"{height} high"
def bar(*heights):
    return Explorer(draw, title="A bar", question="How high?", description="One bar on a scale.", height=heights)
"""


@pytest.mark.parametrize("display", ["bar(1, 2).show()", "bar(1, 2)"])
def test_in_a_kernel_both_forms_are_offered(display):
    notebook = run_cells(KERNEL_CELL, display)
    output = notebook.cells[1].outputs[0]
    view = output.data["application/vnd.jupyter.widget-view+json"]
    assert view["version_major"] == 2 and "text/html" in output.data
    assert view["model_id"] in notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]


@pytest.mark.parametrize("display", ["bar(1, 0).show()", "bar(1, 0)"])
def test_in_a_kernel_a_failing_draw_fails_the_cell(display):
    nbclient = pytest.importorskip("nbclient")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"draw\(height=0\) failed: ZeroDivisionError"):
        run_cells(KERNEL_CELL, display)


def run_cells(*sources):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    return nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


def test_importing_the_explorers_draws_and_trains_nothing():
    code = (
        "import sys, bncourse.explorers; assert 'ipywidgets' not in sys.modules and 'IPython' not in sys.modules;"
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", explorers.__all__)
def test_every_explorer_is_small_and_asks_before_it_shows(name):
    made = explorer(name)
    assert len(made.html) < 800_000
    assert made.question.rstrip().endswith("?")
    for position, (parameter, values) in enumerate(made.grid.items()):  # each control changes picture and text
        rests = {key[:position] + key[position + 1 :] for key in made.frames}
        series = [[made.frames[*rest[:position], value, *rest[position:]] for value in values] for rest in rests]
        assert any(len({frame.picture for frame in frames}) == len(values) for frames in series), parameter
        assert any(len({frame.text for frame in frames}) == len(values) for frames in series), parameter


@pytest.mark.parametrize("name", explorers.__all__)
def test_every_explorer_follows_its_widgets(name):
    made = explorer(name)
    _, *controls, shown = made.widget().children
    values = dict(made.start)
    for control, (parameter, choices) in zip(controls, made.grid.items(), strict=True):
        assert control.description == made.labels[parameter]
        for value in choices:
            control.value = values[parameter] = value
            frame = made.frames[tuple(values[each] for each in made.grid)]
            assert base64.b64encode(frame.picture).decode() in shown.value
            assert html.escape(frame.text) in shown.value
