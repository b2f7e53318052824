"""The chromium of this machine, which prints the book, turns its formulas into MathML and opens it in the tests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager


def program() -> str | None:
    """Where it is, if there is one. Playwright is told, since it cannot download its own everywhere."""
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


@contextmanager
def started(path: str) -> Iterator:
    """A browser of Playwright's, closed after the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
