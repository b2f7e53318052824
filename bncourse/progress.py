"""Progress bars: a widget in a notebook, a line in a terminal, nothing in a log."""

import os
import sys

from tqdm.auto import tqdm

__all__ = ["progress", "watched"]


def progress(total: int, description: str, unit: str) -> tqdm:
    """A bar to ``update`` while work goes on; it appears after two seconds and goes away at the end."""
    return tqdm(total=total, desc=description, unit=unit, delay=2, leave=False, disable=not watched())


def watched() -> bool:
    """Whether someone is watching: in a notebook or a terminal, unless tqdm's variable ``TQDM_DISABLE`` is set."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    ipython = sys.modules.get("IPython")  # a kernel has loaded it
    if ipython and getattr(ipython.get_ipython(), "kernel", None):
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
