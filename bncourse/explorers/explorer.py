"""Interactive figures: one drawing function, moved by whatever controls the front end has.

An ``Explorer`` draws one picture for each combination of its parameters' values, when it is made. Where no kernel runs,
and in the built book, it is a piece of HTML with native controls that needs no file and no request; where one runs, the
same pictures sit under ipywidgets controls.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import product
from string import Template
from typing import NamedTuple

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from bncourse.plotting import enlarge_letters, house_style

__all__ = ["Explorer", "Frame"]

MAX_FRAMES = 200
MAX_BYTES = 1_000_000
DPI = 200  # two pixels for each CSS pixel: sharp on a retina screen
TONES = [5 * round(tone / 5) for tone in range(256)]  # fewer shades: a quarter smaller, and looks the same

STYLE, SCRIPT, HTML = (files(__package__).joinpath(f"explorer.{kind}").read_text() for kind in ("css", "js", "html"))
_, *_parts = re.split(r"<!-- (\w+) -->\n", HTML)
PARTS = dict(zip(_parts[::2], map(Template, _parts[1::2]), strict=True))  # by the names in the comments above them


class Frame(NamedTuple):
    """One picture of an explorer: a WebP file, its size in CSS pixels, and what it says, as text."""

    picture: bytes
    size: tuple[int, int]
    text: str

    @property
    def url(self) -> str:
        return "data:image/webp;base64," + base64.b64encode(self.picture).decode()


class Explorer:
    """An interactive figure made from ``draw`` and a small grid of values for each of its parameters.

    Every frame is drawn here and not when the explorer is displayed, so that a ``draw`` that fails also fails the cell.

    Args:
        draw: a pure function of the parameters that returns a figure (made by ``plotting.figure``) and the numbers
            that it shows, as a sentence. All figures have one size.
        title: the explorer's name.
        question: what the reader should predict before moving anything.
        description: what the picture shows, for those who do not see it; the sentences of ``draw`` add the numbers.
        grid: the values of each parameter: numbers become a slider, strings a menu.
        start: the values shown first, where they are not the first of the grid.
        labels: the parameters' names for the reader, where they are not those of ``draw``.

    Raises:
        ValueError: more than 200 frames, more than 1 MB of HTML, or a start that is not in the grid.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        *,
        title: str,
        question: str,
        description: str,
        grid: Mapping[str, Sequence[float | str]],
        start: Mapping[str, float | str] | None = None,
        labels: Mapping[str, str] | None = None,
    ):
        self.title, self.question, self.description, self.grid = title, question, description, grid
        self._common = {name: escape(getattr(self, name)) for name in ("title", "question", "description")}
        self._common |= {"style": STYLE, "script": SCRIPT}
        self.start = {name: values[0] for name, values in grid.items()} | (start or {})
        self.labels = {name: name.replace("_", " ") for name in grid} | (labels or {})
        combinations = list(product(*grid.values()))
        if len(combinations) > MAX_FRAMES:
            raise ValueError(f"grid must have at most {MAX_FRAMES} frames, got {len(combinations)}")
        if tuple(self.start.values()) not in combinations:
            raise ValueError(f"start must be in the grid, got {start}")
        self.frames = {values: _frame(draw, dict(zip(grid, values, strict=True))) for values in combinations}
        self.first = self.frames[tuple(self.start.values())]
        self.html = self._html()
        if (size := len(self.html.encode())) > MAX_BYTES:
            raise ValueError(f"html must have at most {MAX_BYTES:,} bytes, got {size:,}")

    def show(self) -> None:
        """Display the explorer: widgets where a kernel and a widget manager run, HTML everywhere else."""
        display(self)

    def widget(self):
        """The explorer as ipywidgets: a box with one control for each parameter over the picture."""
        controls, picture = [], ipywidgets.HTML()
        look = {"style": {"description_width": "initial"}, "layout": {"width": "100%", "max_width": "36rem"}}
        for name, values in self.grid.items():
            kind = ipywidgets.Dropdown if isinstance(values[0], str) else ipywidgets.SelectionSlider
            options = [(_value_label(value), value) for value in values]
            controls.append(kind(options=options, value=self.start[name], description=self.labels[name], **look))

        def redraw(_=None) -> None:
            frame = self.frames[tuple(control.value for control in controls)]
            picture.value = self._fill("widget", content=self._picture(frame))

        for control in controls:
            control.observe(redraw, names="value")
        redraw()
        opening = ipywidgets.HTML(self._fill("widget", content=self._fill("opening")))
        return ipywidgets.VBox([opening, *controls, picture])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = {"text/plain": f"{self.title}\n{self.question}\n{self.first.text}", "text/html": self.html}
        if hasattr(get_ipython(), "kernel"):
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget().model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    def _html(self) -> str:
        """The explorer as HTML that stands alone: the first frame as it is, the others as data for the script."""
        others = [None if frame is self.first else [frame.url, frame.text] for frame in self.frames.values()]
        return self._fill(
            "page",
            opening=self._fill("opening"),
            controls="".join(map(self._control, self.grid)),
            picture=self._picture(self.first),
            frames=json.dumps(others, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        )

    def _control(self, name: str) -> str:
        values, position = list(map(_value_label, self.grid[name])), self.grid[name].index(self.start[name])
        options = [f"<option>{escape(value)}</option>" for value in values]
        options[position] = options[position].replace("<option", "<option selected")
        return self._fill(
            "menu" if isinstance(self.grid[name][0], str) else "slider",
            label=escape(self.labels[name]),
            options="".join(options),
            value=values[position],
            values=escape(json.dumps(values)),
            position=position,
            last=len(values) - 1,
        )

    def _picture(self, frame: Frame) -> str:
        width, height = frame.size
        return self._fill("picture", text=escape(frame.text), source=frame.url, width=width, height=height)

    def _fill(self, part: str, **fields: str | int) -> str:
        """One part of explorer.html, filled with ``fields`` and what all parts share."""
        return PARTS[part].substitute(self._common, **fields)


def _value_label(value: float | str) -> str:
    """A value as the reader sees it: ``1e-5`` for 0.00001."""
    return value if isinstance(value, str) else f"{value:g}".replace("e-0", "e-")


@house_style()
def _frame(draw: Callable[..., tuple[Figure, str]], values: dict[str, float | str]) -> Frame:
    fig, text = draw(**values)
    enlarge_letters(fig)
    fig.set_dpi(DPI)
    fig.canvas.draw()
    picture = Image.frombuffer("RGBA", fig.canvas.get_width_height(), fig.canvas.buffer_rgba()).convert("RGB")
    file = io.BytesIO()
    picture.point(TONES * 3).save(file, "WEBP", lossless=True, method=4)
    return Frame(file.getvalue(), (100 * picture.width // DPI, 100 * picture.height // DPI), text)
