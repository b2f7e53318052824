"""Interactive figures: one drawing function, and every front end moves it with what it has.

An ``Explorer`` draws one picture for each combination of its parameters' values, when it is made. Where no kernel runs,
and in the built book, it is a piece of HTML with native controls that needs no file and no request; where one runs, the
same pictures sit under ipywidgets controls.
"""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import product
from numbers import Real
from typing import NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bncourse.plotting import RC_PARAMS

__all__ = ["Explorer", "Frame"]

MAX_FRAMES = 200
MAX_BYTES = 1_000_000
DPI = 200  # two pixels for each CSS pixel: sharp on a retina screen
TONES = [5 * round(tone / 5) for tone in range(256)]  # fewer shades: a quarter smaller, and looks the same


class Frame(NamedTuple):
    """One picture of an explorer: a WebP file, its size in CSS pixels, and what it says, as text."""

    picture: bytes
    size: tuple[int, int]
    text: str


class Explorer:
    """An interactive figure made from ``draw`` and a small grid of values for each of its parameters.

    Every frame is drawn here and not when the explorer is displayed, so that a ``draw`` that fails also fails the cell.

    Args:
        draw: a pure function of the parameters that returns a Figure and the numbers it shows, as a sentence. All
            figures have one size.
        title: the explorer's name.
        question: what the reader should predict before moving anything.
        description: what the picture shows, for those who do not see it; the sentences of ``draw`` add the numbers.
        start: the values shown first, where they are not the first of the grid.
        labels: the parameters' names for the reader, where they are not those of ``draw``.
        grid: the values of each parameter: numbers become a slider, strings a menu.

    Raises:
        TypeError: a parameter whose values are no sequence.
        ValueError: an empty grid, a value twice, a label for no parameter, more than 200 frames, more than 1 MB, a
            value to start from that is not in the grid, or a description that describes nothing.
        RuntimeError: ``draw`` failed or drew nothing; the message has the parameters' values.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        *,
        title: str,
        question: str,
        description: str,
        start: Mapping[str, Real | str] | None = None,
        labels: Mapping[str, str] | None = None,
        **grid: Sequence[Real | str],
    ):
        self.draw, self.title, self.question, self.description = draw, title, question, description
        self.grid = {name: _values(name, values) for name, values in grid.items()}
        self.start = {name: values[0] for name, values in self.grid.items() if values} | dict(start or {})
        self.labels = {name: name.replace("_", " ") for name in self.grid} | dict(labels or {})
        self._check()
        self.frames: dict[tuple, Frame] = {}
        for values in product(*self.grid.values()):
            self.frames[values] = self._frame(values)
        self.html = self._html()

    def show(self) -> None:
        """Display the explorer: widgets where a kernel and a widget manager run, HTML everywhere else."""
        from IPython.display import display

        display(self)

    def widget(self):
        """The explorer as ipywidgets: a box with one control for each parameter over the picture."""
        import ipywidgets

        layout = ipywidgets.Layout(width="100%", max_width="36rem")
        controls, shown = [], ipywidgets.HTML()
        for name, values in self.grid.items():
            kind = ipywidgets.Dropdown if isinstance(values[0], str) else ipywidgets.SelectionSlider
            options = [(value_label(value), value) for value in values]
            style = {"description_width": "initial"}
            name_and_value = {"description": self.labels[name], "value": self.start[name]}
            controls.append(kind(options=options, **name_and_value, style=style, layout=layout))

        def redraw(_=None) -> None:
            frame = self.frames[tuple(control.value for control in controls)]
            shown.value = STYLE + _tag("div", "bn-explorer", self._picture(frame))

        for control in controls:
            control.observe(redraw, names="value")
        redraw()
        opening = STYLE + _tag("div", "bn-explorer", self._opening())
        return ipywidgets.VBox([ipywidgets.HTML(opening), *controls, shown])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = {"text/plain": f"{self.title}\n{self.question}\n{self._first.text}", "text/html": self.html}
        if _has_kernel():
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget().model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    def _check(self) -> None:
        if not self.grid:
            raise ValueError("grid is empty; expected at least one parameter and its values, such as gamma=[0.5, 1, 2]")
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"{name}=[] has no values; expected at least one")
            if not (all(isinstance(v, str) for v in values) or all(isinstance(v, Real) for v in values)):
                raise ValueError(f"{name}={values!r} is mixed; expected numbers only or strings only")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={values!r} has a value twice; expected different values")
        if unknown := self.labels.keys() - self.grid.keys():
            raise ValueError(f"labels has {', '.join(sorted(unknown))}; expected parameters of the grid, {self.grid}")
        count = math.prod(map(len, self.grid.values()))
        if count > MAX_FRAMES:
            sizes = " x ".join(f"{len(values)} of {name}" for name, values in self.grid.items())
            raise ValueError(f"grid has {count} frames ({sizes}); expected at most {MAX_FRAMES}")
        for name, value in self.start.items():
            if name not in self.grid or value not in self.grid[name]:
                raise ValueError(f"start has {name}={value!r}; expected one of the grid's values, {self.grid}")
        if len(self.description.split()) < 5:
            raise ValueError(f"description={self.description!r} describes nothing; expected what the picture shows")

    def _frame(self, values: tuple) -> Frame:
        """Draw one frame, in the house style."""
        parameters = dict(zip(self.grid, values, strict=True))
        try:
            with matplotlib.rc_context(RC_PARAMS):
                frame = _frame(self.draw(**parameters))
            for first in self.frames.values():
                if first.size != frame.size:
                    raise ValueError(f"size={frame.size} is not that of the first frame; expected {first.size}")
        except Exception as error:
            call = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
            name = getattr(self.draw, "__name__", "draw")
            raise RuntimeError(f"{name}({call}) failed: {type(error).__name__}: {error}") from error
        return frame

    @property
    def _first(self) -> Frame:
        return self.frames[tuple(self.start[name] for name in self.grid)]

    def _html(self) -> str:
        """The explorer as HTML that stands alone: the first frame as it is, the others as data for the script."""
        first = self._first
        others = [None if frame is first else [_data_url(frame), frame.text] for frame in self.frames.values()]
        data = json.dumps(others, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        controls = _tag("div", "bn-controls", "".join(map(self._control, self.grid)), "hidden")
        page = _tag(
            "div",
            "bn-explorer",
            STYLE + self._opening() + controls + self._picture(first) + FALLBACK,
            f'role="group" aria-label="{html.escape(self.title)}"',
            f'<script type="application/json">{data}</script><script>{SCRIPT}</script>',
        )
        size = len(page.encode())
        if size > MAX_BYTES:
            count = len(self.frames)
            raise ValueError(f"explorer has {size:,} bytes in {count} frames; expected at most {MAX_BYTES:,} bytes")
        return page

    def _opening(self) -> str:
        question = f"<strong>Predict first.</strong> {html.escape(self.question)}"
        return _tag("p", "bn-title", html.escape(self.title)) + _tag("p", "bn-question", question)

    def _control(self, name: str) -> str:
        values = [value_label(value) for value in self.grid[name]]
        chosen = self.grid[name].index(self.start[name])
        label = html.escape(self.labels[name])
        if isinstance(self.grid[name][0], str):
            options = "".join(
                f"<option{' selected' if i == chosen else ''}>{html.escape(value)}</option>"
                for i, value in enumerate(values)
            )
            return f'<label><span>{label}</span><select autocomplete="off">{options}</select></label>'
        return (
            f'<label><span>{label}</span><span class="bn-value" aria-hidden="true">{values[chosen]}</span>'
            f'<input type="range" min="0" max="{len(values) - 1}" value="{chosen}" autocomplete="off" '
            f'aria-valuetext="{values[chosen]}" data-values="{html.escape(json.dumps(values))}"></label>'
        )

    def _picture(self, frame: Frame) -> str:
        width, height = frame.size
        return (
            f'<img class="dark-light" decoding="sync" width="{width}" height="{height}" '
            f'alt="{html.escape(self.description)}" src="{_data_url(frame)}">'
            + _tag("p", "bn-reading", html.escape(frame.text), 'aria-live="polite"')
        )


def _values(name: str, values: Sequence[Real | str]) -> list[Real | str]:
    try:
        return list(values)
    except TypeError:
        raise TypeError(
            f"{name}={values!r} is no sequence of values; expected for example {name}=[0.5, 1, 2]"
        ) from None


def value_label(value: Real | str) -> str:
    """A value as the reader sees it: ``1e-5`` for 0.00001."""
    return value if isinstance(value, str) else f"{value:g}".replace("e-0", "e-")


def _frame(drawn: tuple[Figure, str]) -> Frame:
    """What ``draw`` returned, as a frame."""
    if not (isinstance(drawn, tuple) and len(drawn) == 2):
        raise TypeError(f"draw returned {type(drawn).__name__}; expected a figure and a text")
    figure, text = drawn
    if not text.strip():
        raise ValueError(f"text={text!r} says nothing; expected the numbers that the figure shows")
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    if all(low == high for low, high in picture.getextrema()):
        raise ValueError("the picture is blank")
    stream = io.BytesIO()
    picture.point(TONES * 3).save(stream, "WEBP", lossless=True, method=4)
    return Frame(stream.getvalue(), (width, height), text)


def _data_url(frame: Frame) -> str:
    return "data:image/webp;base64," + base64.b64encode(frame.picture).decode()


def _tag(name: str, kind: str, content: str, attributes: str = "", after: str = "") -> str:
    return f'<{name} class="{kind}" {attributes}>{content}{after}</{name}>'


def _has_kernel() -> bool:
    """Whether this process is a Jupyter kernel with ipywidgets."""
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


STYLE = f"<style>{files(__package__).joinpath('explorer.css').read_text()}</style>"
SCRIPT = files(__package__).joinpath("explorer.js").read_text()
FALLBACK = _tag("p", "bn-fallback", "Shown without its controls: they need JavaScript, or a notebook that is trusted.")
