"""Links between the pages, in HTML that is made from data."""

from html import escape

__all__ = ["link"]


def link(env, page: str, text: str, anchor: str = "") -> str:
    """A link from the page that is being read to another page of the book."""
    address = env.app.builder.get_relative_uri(env.docname, page) + (f"#{anchor}" if anchor else "")
    return f'<a class="reference internal" href="{address}">{escape(text)}</a>'
