"""The engine of the interactive figures: frames, errors, HTML, widgets; and what the seven figures say."""

import base64
import html
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bncourse import explorers
from bncourse.explorers.explorer import Explorer
from bncourse.plotting import BLUE, figure


def draw(height, colour):
    fig, ax = figure(height=2)
    ax.bar([0], [height], color=BLUE if colour == "blue" else "black")
    ax.set_ylim(0, 3)
    return fig, f"The bar is {colour} & {height} high <here>."


WORDS = {
    "title": "A bar",
    "question": "How high will it be?",
    "description": "One bar on a scale from zero to three.",
}
GRID = {"height": [1, 2, 3], "colour": ["blue", "black"]}


@pytest.fixture(scope="module")
def bar():
    return Explorer(draw, **WORDS, grid=GRID, start={"height": 2})


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


def test_letters_can_be_read_on_a_phone():
    drawn = []

    def with_small_letters(height):
        fig, text = draw(height, "blue")
        drawn.append(fig.axes[0].text(0, 1, "small", fontsize=6))
        return fig, text

    Explorer(with_small_letters, **WORDS, grid={"height": [1, 2]})
    assert [text.get_fontsize() for text in drawn] == [11.2, 11.2]  # 10 px, at 360 px for 5.6 inches


def test_same_inputs_give_the_same_html(bar):
    assert Explorer(draw, **WORDS, grid=GRID, start={"height": 2}).html == bar.html


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
        ({"grid": {"height": range(201), "colour": ["blue"]}}, "grid must have at most 200 frames, got 201"),
        ({"start": {"height": 7}}, "start must be in the grid, got {'height': 7}"),
        ({"start": {"width": 2}}, "start must be in the grid, got {'width': 2}"),
    ],
)
def test_a_grid_too_large_and_a_start_outside_it_are_refused_before_anything_is_drawn(change, message):
    with pytest.raises(ValueError, match=message):
        Explorer(None, **({"grid": GRID} | WORDS | change))


def test_parameters_may_be_called_as_the_explorers_own():
    made = Explorer(lambda start, title: draw(start, title), **WORDS, grid={"start": [1, 2], "title": ["blue"]})
    assert made.title == "A bar" and made.frames[1, "blue"].text == "The bar is blue & 1 high <here>."


def test_too_many_bytes_are_refused():
    def noise(seed):
        fig, ax = figure(height=4)
        ax.imshow(np.random.default_rng(seed).random((400, 560)))
        return fig, "Noise."

    with pytest.raises(ValueError, match=r"html must have at most 1,000,000 bytes, got [\d,]{9}"):
        Explorer(noise, **WORDS, grid={"seed": [1, 2, 3]})


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
    fig, ax = figure(height=2)
    ax.bar([0], [1 / height])
    return fig, f"{height} high"
def bar(*heights):
    words = {"title": "A bar", "question": "How high?", "description": "One bar on a scale."}
    return Explorer(draw, **words, grid={"height": heights})
"""


def test_in_a_kernel_both_forms_are_offered():
    notebook = run_cells(KERNEL_CELL, "bar(1, 2).show()", "bar(1, 2)")
    for cell in notebook.cells[1:]:
        [output] = cell.outputs
        view = output.data["application/vnd.jupyter.widget-view+json"]
        assert view["version_major"] == 2 and "text/html" in output.data
        assert view["model_id"] in notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]


def test_in_a_kernel_a_failing_draw_fails_the_cell():
    notebook = run_cells(KERNEL_CELL, "bar(1, 0).show()", "bar(1, 0)", allow_errors=True)
    assert [cell.outputs[-1].get("ename") for cell in notebook.cells[1:]] == ["ZeroDivisionError"] * 2


def run_cells(*sources, **options):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    return nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", **options).execute()


@pytest.mark.parametrize("first", ["", "import bncourse.explorers.figures.axes;"])
def test_a_figure_is_loaded_when_it_is_asked_for_and_no_other(first):
    code = (
        f"import sys; {first} from bncourse import explorers; made = explorers.axes;"
        "print(made.__name__, *sorted(name for name in sys.modules if name.startswith('bncourse.explorers.figures.')),"
        "*{'sklearn', 'bncourse.data', 'bncourse.training'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["axes", "bncourse.explorers.figures.axes"]


def test_the_package_lists_its_figures_and_knows_no_others():
    figures = {path.stem for path in Path(explorers.__path__[0], "figures").glob("[!_]*.py")}
    assert set(dir(explorers)) == set(explorers.__all__) == figures
    with pytest.raises(AttributeError, match="has no attribute 'no_figure'"):
        explorers.no_figure  # noqa: B018


@pytest.mark.parametrize("name", explorers.__all__)
def test_every_explorer_is_small_and_asks_before_it_shows(name, explorer):
    made = explorer(name)
    assert len(made.html) < 800_000
    assert made.question.rstrip().endswith("?") and len(made.description.split()) > 10
    assert made.labels.keys() == made.grid.keys()
    assert len({frame.size for frame in made.frames.values()}) == 1
    assert all(frame.text.strip() for frame in made.frames.values())
    for position, (parameter, values) in enumerate(made.grid.items()):  # each control changes picture and text
        rests = {key[:position] + key[position + 1 :] for key in made.frames}
        series = [[made.frames[*rest[:position], value, *rest[position:]] for value in values] for rest in rests]
        assert any(len({frame.picture for frame in frames}) == len(values) for frames in series), parameter
        assert any(len({frame.text for frame in frames}) == len(values) for frames in series), parameter


@pytest.mark.parametrize("name", explorers.__all__)
def test_every_explorer_follows_its_widgets(name, explorer):
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
