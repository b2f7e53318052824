"""The house style: one colour a norm, nothing left behind, labels apart, a description on every figure."""

import ast
import base64
import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bncourse.models import NORMS
from bncourse.notebook import glue, show, show_source
from bncourse.plotting import NORM_STYLES, band, direct_labels, figure, house_style, log_ticks, png


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr("bncourse.notebook.display", lambda *data, **options: calls.append((*data, options)))
    return calls


def test_every_norm_has_a_colour_and_marker_of_its_own():
    assert set(NORM_STYLES) == set(NORMS)
    assert (
        len({style.colour for style in NORM_STYLES.values()})
        == len({s.marker for s in NORM_STYLES.values()})
        == len(NORMS)
    )


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    fig, ax = figure()
    ax.plot([1, 2])
    png(fig)
    assert dict(matplotlib.rcParams) == before


def test_band_draws_the_mean_and_the_interval():
    _, ax = figure()
    band(ax, [1, 2], [[0, 10], [2, 10]], "batch")
    assert ax.get_lines()[0].get_ydata() == pytest.approx([1, 10])
    edges = ax.collections[0].get_paths()[0].vertices
    assert edges[:, 1].min() == pytest.approx(1 - 12.706, rel=1e-3)  # Student's t at one degree of freedom


def test_labels_of_lines_that_end_together_are_kept_apart():
    fig, ax = figure()
    for name in ("a", "b", "c"):
        ax.plot([0, 1], [0, 1], label=name)
    direct_labels(ax)
    fig.canvas.draw()
    tops = sorted(text.get_window_extent().y0 for text in ax.texts)
    height = ax.texts[0].get_window_extent().height
    assert np.diff(tops).min() > 0.9 * height


def test_log_ticks_are_plain_numbers():
    fig, ax = figure()
    ax.plot([0.1, 10], [1, 2])
    log_ticks(ax, [0.1, 1, 10])
    fig.canvas.draw()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.1", "1", "10"]


def test_a_logarithmic_axis_has_no_exponents_which_would_be_smaller_than_its_numbers():
    _, ax = figure()
    ax.semilogy([1, 2], [3e-4, 3e3])
    with house_style():
        labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert "^" not in "".join(labels) and any("0.01" in label for label in labels)


def test_show_gives_the_picture_its_description(shown):
    fig, _ = figure(height=2)
    show(fig, alt="An empty pair of axes without lines", caption="Nothing.", name="fig-nothing")
    data, options = shown.pop()
    details = options["metadata"]["image/png"]
    assert details["alt"] == data["text/plain"] and details["name"] == "fig-nothing"
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture.width == pytest.approx(2 * details["width"], rel=0.01)


def test_show_refuses_a_figure_without_a_description(shown):
    with pytest.raises(ValueError, match="alt='A plot'"):
        show(figure()[0], alt="A plot")
    assert not shown


def test_glue_and_source_are_displayed(shown):
    glue("accuracy", 0.123, "12%")
    show_source(glue)
    show_source(Figure.clear)
    (glued, options), (source, _), (method, _) = shown
    assert options["metadata"]["scrapbook"]["name"] == "accuracy"
    assert [ast.literal_eval(text) for text in glued.values()] == ["12%"]
    assert "def glue(" in source.data and "\ndef clear(" in method.data


@pytest.mark.parametrize("fig", [figure(2)[0], Figure(figsize=(8, 3))], ids=["ours", "a reader's"])
def test_the_smallest_letters_have_ten_pixels_on_a_phone(fig):
    """Also those that a cell adds later, outside the house style, and on a screen of 360 px the figure is as wide."""
    ax = (fig.axes or [fig.subplots()])[0]
    ax.plot([1, 100], [1, 2], label="a line")
    ax.legend(fontsize=7)
    ax.annotate("a note", (1, 1))
    ax.tick_params(labelsize=5)
    fig.suptitle("a title", fontsize=30)
    png(fig)
    sizes = {text.get_text(): text.get_fontsize() for text in fig.findobj(Text) if text.get_text()}
    assert {"a line", "a note", "100"} <= sizes.keys() and sizes["a title"] == 30
    assert min(sizes.values()) / 72 * 360 / fig.get_figwidth() >= 9.99
