"""What a chapter shows: a figure with its description, a number for the text, the package's own code."""

import base64
import inspect
import textwrap

from IPython.display import Markdown, display
from matplotlib.figure import Figure

from bncourse.plotting import png

__all__ = ["glue", "show", "show_source"]


def show(fig: Figure, alt: str, caption: str = "", name: str = "", dpi: int = 200) -> None:
    """Display a figure with a description for those who do not see it.

    Args:
        alt: what the figure shows, as you would describe it over the telephone.
        caption: printed under the figure in the book, where it gets a number.
        name: the figure's anchor in the book, ``fig-...``, for links such as ``[the figure](#fig-...)``.
        dpi: dots an inch of the picture; fewer for photographs, which would weigh megabytes.

    Raises:
        ValueError: no real description.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt={alt!r} describes nothing; expected a sentence that tells what the figure shows")
    details = {"width": round(100 * fig.get_figwidth()), "alt": alt, "caption": caption, "name": name}
    picture = base64.b64encode(png(fig, dpi)).decode()
    display({"image/png": picture, "text/plain": alt}, metadata={"image/png": details}, raw=True)


def glue(name: str, value, text: str | None = None) -> None:
    """Let the book print ``text`` where a ``{glue:text}`` role has this ``name``.

    Args:
        value: printed if there is no ``text``; it is not kept otherwise.
        text: the number as readers should see it, with its unit.
    """
    shown = text if text is not None else str(value)
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    quoted = repr(shown)  # the book evaluates it: without the quotes "1,000" would become a pair
    display({"application/papermill.record/text/plain": quoted}, metadata=metadata, raw=True)


def show_source(thing) -> None:
    """Display the source of a function or class of the package, as it is run."""
    display(Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```"))
