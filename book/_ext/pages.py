"""What every page gets: the time that it ran, a download, and nothing that a reader does not need."""

import html
import re

from sphinx.application import Sphinx


def times(app: Sphinx, pagename: str, context: dict) -> str:
    """How long the notebook ran, and a link to it."""
    parts = []
    if seconds := app.env.metadata[pagename].get("seconds"):
        parts.append(f"Ran in {max(1, round(seconds))} s when this page was built")
    if context.get("sourcename", "").endswith(".ipynb") and context.get("pathto"):
        source = context["pathto"](f"_sources/{context['sourcename']}", 1)
        parts.append(f'<a href="{html.escape(source)}" download>download the notebook</a>')
    return f'<p class="times">{" · ".join(parts)}</p>'


def complete_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    if "body" in context:  # docutils calls the references a list, but their elements are no list items
        context["body"] = context["body"].replace('role="list" class="citation-list"', 'class="citation-list"')
    context["script_files"] = [script for script in context.get("script_files", []) if not is_thebe(script)]
    if doctree is not None and doctree.get("source", "").endswith(".ipynb"):
        context["body"] = re.sub(
            "</h1>", lambda match: match[0] + times(app, pagename, context), context["body"], count=1
        )


def is_thebe(script) -> bool:
    """Thebe would run cells on a server; its settings, loaded twice, are an error in every page's console."""
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {})}".lower()


def drop_launch_buttons(app: Sphinx, config) -> None:
    """No Colab button while _config.yml names no repository."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options["launch_buttons"] = {}


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", drop_launch_buttons)
    app.connect("html-page-context", complete_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
