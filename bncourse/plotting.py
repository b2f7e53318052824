"""One look for every figure; a norm has the same colour, marker and name in every chapter.

Colours are from Okabe and Ito's palette, which people with the common colour blindnesses can tell apart. Figures are
narrow and their letters large, so that they can be read on a phone.
"""

import io
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bncourse.moved import names_of

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "NORM_STYLES",
    "ORANGE",
    "PINK",
    "RED",
    "SKY",
    "WIDTH",
    "band",
    "direct_labels",
    "figure",
    "log_ticks",
    "png",
]

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
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK]),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
}


def figure(
    rows: int = 1, columns: int = 1, height: float | None = None, **subplots
) -> tuple[Figure, Axes | np.ndarray]:
    """A new figure in the house style and its axes, ``height`` inches high; it takes no part in pyplot's state."""
    with matplotlib.rc_context(RC_PARAMS):
        new = Figure(figsize=(WIDTH, height or 1.2 + 2.2 * rows), layout="constrained")
        FigureCanvasAgg(new)
        return new, new.subplots(rows, columns, **subplots)


def png(drawn: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG file, in the house style."""
    stream = io.BytesIO()
    with matplotlib.rc_context(RC_PARAMS):
        drawn.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def band(axes: Axes, x, samples, norm: str | None = None, *, label: str = "", colour: str | None = None) -> None:
    """The mean of ``samples`` (seeds, len(x)) over the seeds as a line, and its 95% interval as a band around it."""
    from bncourse.experiments import interval

    samples = np.asarray(samples, dtype=float)
    intervals = [interval(column) for column in samples.T]
    style = NORM_STYLES[norm] if norm else NormStyle(label, colour or BLUE, "o")
    axes.plot(x, [i.mean for i in intervals], color=style.colour, marker=style.marker, label=label or style.label)
    axes.fill_between(x, [i.low for i in intervals], [i.high for i in intervals], color=style.colour, alpha=0.2, lw=0)


def log_ticks(axes: Axes, values, axis: str = "x") -> None:
    """A logarithmic ``axis`` whose ticks are ``values``, written as plain numbers."""
    getattr(axes, f"set_{axis}scale")("log")
    chosen = getattr(axes, f"{axis}axis")
    chosen.set_major_locator(FixedLocator(list(values)))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_locator(NullLocator())


def direct_labels(axes: Axes) -> None:
    """Name each labelled line at its right end, in its colour, instead of in a legend; names are kept apart."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())]
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    scale = np.log10 if log else np.asarray
    low, high = scale(low), scale(high)
    ends = np.array([(float(scale(line.get_ydata()[-1])) - low) / (high - low) for line in lines])
    letter = 0.19 / max(axes.get_position().height * axes.figure.get_figheight(), 0.5)
    heights = np.array([letter * (1 + line.get_label().count("\n")) for line in lines])
    placed, order, ceiling = ends.clip(0, 1), np.argsort(ends), np.inf
    for index in order[::-1]:  # from the top down: each below the one above
        placed[index] = min(placed[index], ceiling - heights[index] / 2)
        ceiling = placed[index] - heights[index] / 2
    floor = -heights[order[0]] / 2 if lines else 0
    for index in order:  # from the bottom up: none below the axes
        placed[index] = max(placed[index], floor + heights[index] / 2)
        floor = placed[index] + heights[index] / 2
    for index, line in enumerate(lines):
        axes.annotate(
            line.get_label(),
            (1.01, placed[index]),
            xycoords="axes fraction",
            color=line.get_color(),
            va="center",
            fontsize=11,
        )


__getattr__ = names_of(__name__)
