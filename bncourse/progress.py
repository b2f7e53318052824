"""Show how far long work is: a bar where someone looks, a line in a book, nothing in a log."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from tqdm import tqdm

__all__ = ["progress"]

DELAY = 2.0  # seconds: what is done sooner shows nothing
_someone_shows = False


@contextmanager
def progress(total: int | None, description: str, unit: str) -> Iterator[tqdm]:
    """A bar to ``update`` while work goes on.

    In a notebook it is a widget, in a terminal one line that goes away; a redirected output gets nothing. Where a book
    is built (``BNCOURSE_BOOK`` is set, to anything) one line of text at the end says what was done, because a widget
    leaves nothing on a page; so it is where ipywidgets are missing. Work inside other work shows nothing of its own.
    Where ``total`` is not known yet it is None, and the bar's own is set later.
    """
    global _someone_shows
    outermost, _someone_shows = not _someone_shows, True
    place = _place() if outermost else "log"
    make = tqdm
    if place == "notebook":
        from tqdm.notebook import tqdm as make
    options = {"unit": unit, "unit_scale": unit == "B", "delay": DELAY, "leave": False}
    started = time.monotonic()
    try:
        with make(total=total, desc=description, disable=place in ("book", "log"), **options) as bar:
            yield bar
        seconds = time.monotonic() - started
        if place == "book" and seconds > DELAY and bar.total:
            done = f"{bar.total / 1e6:.0f} MB" if unit == "B" else f"{bar.total} {unit}s"
            print(f"{description}: {done} in {seconds:.0f} s")
    finally:
        if outermost:
            _someone_shows = False


def _place() -> str:
    """Where the output goes: "notebook", "book", "terminal" or "log"."""
    if _in_kernel():
        return "book" if os.environ.get("BNCOURSE_BOOK") or find_spec("ipywidgets") is None else "notebook"
    try:
        return "terminal" if sys.stderr.isatty() else "log"
    except (AttributeError, ValueError):  # there is none, something else is in its place, or it was closed
        return "log"


def _in_kernel() -> bool:
    if "IPython" not in sys.modules:  # then this is no kernel, and IPython need not be loaded to say so
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
