"""What pages that are made from data share: links, text with code in it, and when they are made anew."""

import re
from html import escape
from importlib.resources import files
from pathlib import Path

__all__ = ["chapter_link", "link", "marked", "read_again_with"]


def link(env, page: str, text: str, anchor: str = "") -> str:
    """A link from the page that is being read to another page of the book."""
    address = env.app.builder.get_relative_uri(env.docname, page) + (f"#{anchor}" if anchor else "")
    return f'<a class="reference internal" href="{address}">{escape(text)}</a>'


def chapter_link(env, number: int, text: str) -> str:
    """A link to a chapter; the text alone in a book that lacks it."""
    page = next((name for name in sorted(env.found_docs) if name.startswith(f"{number:02d}-")), None)
    return link(env, page, text) if page else text


def marked(text: str) -> str:
    """Text of a docstring, with its literals."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(text, quote=False))


def read_again_with(env, package: str) -> None:
    """The page is read anew when a file of the package has changed."""
    for path in Path(str(files(package))).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            env.note_dependency(str(path))
