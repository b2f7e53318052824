"""One look for every figure; a norm has the same colour, marker and name in every chapter.

Colours are from Okabe and Ito's palette, which people with the common colour blindnesses can tell apart. Figures are
narrow and their letters large, so that they can be read on a phone.
"""

import io
from functools import partial
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator

from bncourse.moved import names_of

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6B6B6B"
OLIVE = "#857A00"  # Okabe and Ito's yellow, darkened to be seen on white

WIDTH = 5.6  # inches; shown at 100 px an inch


class NormStyle(NamedTuple):
    label: str
    colour: str
    marker: str


NORM_STYLES = {
    "none": NormStyle("no norm", BLACK, "x"),
    "batch": NormStyle("BatchNorm", BLUE, "o"),
    "layer": NormStyle("LayerNorm", RED, "s"),
    "instance": NormStyle("InstanceNorm", PINK, "D"),
    "group": NormStyle("GroupNorm", GREEN, "^"),
    "rms": NormStyle("RMSNorm", ORANGE, "v"),
    "ghost": NormStyle("Ghost BatchNorm", SKY, "P"),
    "renorm": NormStyle("BatchRenorm", OLIVE, "*"),
}

RC_PARAMS = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.min_exponent": 5,  # 0.001 on a logarithmic axis: an exponent would be too small to read
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK]),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 11.5,  # 10 px on a screen of 360
    "ytick.labelsize": 11.5,
    "legend.fontsize": 11.5,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
}
house_style = partial(matplotlib.rc_context, RC_PARAMS)


@house_style()
def figure(rows: int = 1, columns: int = 1, height: float | None = None, **subplots) -> tuple[Figure, Any]:
    """A new figure in the house style and its axes, ``height`` inches high; it takes no part in pyplot's state."""
    fig = Figure(figsize=(WIDTH, height or 1.2 + 2.2 * rows), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **subplots)


def enlarge_letters(figure: Figure) -> None:
    """Letters of at least 10 px on a screen of 360 px, where a figure is as wide as the screen."""
    smallest = 2 * figure.get_figwidth()  # points, with 72 to an inch
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), smallest))


@house_style()
def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG file, in the house style, with letters that can be read on a phone."""
    enlarge_letters(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def band(axes: Axes, x, samples, norm: str | None = None, *, label: str = "", colour: str | None = None) -> None:
    """The mean of ``samples`` (seeds, len(x)) over the seeds as a line, and its 95% interval as a band around it."""
    from bncourse.experiments import interval

    samples = np.asanyarray(samples, dtype=float)  # which leaves Runs what they know
    intervals = [interval(column) for column in samples.T]
    style = NORM_STYLES[norm] if norm else NormStyle(label, colour or BLUE, "o")
    axes.plot(x, [i.mean for i in intervals], color=style.colour, marker=style.marker, label=label or style.label)
    axes.fill_between(x, [i.low for i in intervals], [i.high for i in intervals], color=style.colour, alpha=0.2, lw=0)


def log_ticks(axes: Axes, values, axis: str = "x") -> None:
    """A logarithmic ``axis`` whose ticks are ``values``, written as plain numbers."""
    getattr(axes, f"set_{axis}scale")("log")
    chosen = getattr(axes, f"{axis}axis")
    chosen.set_major_locator(FixedLocator(list(values)))
    chosen.set_major_formatter("{x:g}")
    chosen.set_minor_locator(NullLocator())


def direct_labels(axes: Axes) -> None:
    """Name each labelled line at its right end, in its colour, instead of in a legend; names are kept apart."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())]
    axes.get_ylim()  # brings the limits up to date, which the transforms do not
    to_axes = axes.transScale + axes.transLimits
    ends = np.array([to_axes.transform(line.get_xydata()[-1])[1] for line in lines])
    order = np.argsort(ends)
    lines, ends = [lines[index] for index in order], ends[order].clip(0, 1)
    letter = 0.19 / max(axes.get_position().height * axes.figure.get_figheight(), 0.5)
    heights = np.array([letter * (1 + line.get_label().count("\n")) for line in lines])
    stacked = heights.cumsum() - heights / 2  # the centres, if each stood on the one below and the lowest at 0
    shifts = np.fmin.accumulate((ends - stacked)[::-1])[::-1]  # from the top down: each below the one above
    for line, y in zip(lines, stacked + np.maximum(shifts, -stacked[:1]), strict=True):  # and none below the axes
        look = {"color": line.get_color(), "fontsize": RC_PARAMS["legend.fontsize"], "va": "center"}
        axes.text(1.01, y, line.get_label(), transform=axes.transAxes, **look)


__getattr__ = names_of(__name__)
