"""What every page gets: the time that it ran, a download, and nothing that a reader does not need."""

import html
import re
import textwrap

from docutils import nodes
from downloads import FOLDER, course
from sphinx.application import Sphinx

from bncourse.exercises import EXERCISES
from tools.toc import notebooks


def times(app: Sphinx, pagename: str, context: dict) -> str:
    """How long the notebook ran, and a link to it."""
    parts = []
    if seconds := app.env.metadata[pagename].get("seconds"):
        parts.append(f"Ran in {max(1, round(seconds))} s when this page was built")
    if context.get("sourcename", "").endswith(".ipynb") and context.get("pathto"):
        source, folder = (context["pathto"](f"{name}", 1) for name in (f"_sources/{context['sourcename']}", FOLDER))
        carried = f' data-notebooks="{folder}" data-name="{pagename}"' if course(app) else ""
        name = pagename.rpartition("/")[2]
        parts.append(f'<a href="{html.escape(source)}" download="{name}.ipynb"{carried}>download the notebook</a>')
        parts += [
            f'<a href="{app.builder.get_relative_uri(pagename, page)}">exercises {page[13:15].lstrip("0")}</a>'
            for page in exercises_of(pagename)
            if page in app.env.found_docs
        ]
        if "run-it" in app.env.found_docs:
            parts.append(f'<a href="{app.builder.get_relative_uri(pagename, "run-it")}">run it</a>')
    return f'<p class="times">{" · ".join(parts)}</p>'


def complete_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    if "body" in context:  # docutils calls the references a list, but their elements are no list items
        context["body"] = context["body"].replace('role="list" class="citation-list"', 'class="citation-list"')
    context["script_files"] = [script for script in context.get("script_files", []) if not is_thebe(script)]
    if 'class="math' not in context.get("body", ""):  # a megabyte that a page without a formula does not need
        context["script_files"] = [script for script in context["script_files"] if not is_mathjax(script)]
    if pagename == app.config.root_doc:
        context["docstitle"] = ""  # it would say the same twice
    if doctree is not None:
        context["metatags"] = context.get("metatags", "") + preview(app, pagename, context, doctree)
    if doctree is not None and doctree.get("source", "").endswith(".ipynb"):
        context["body"] = re.sub(
            "</h1>", lambda match: match[0] + times(app, pagename, context), context["body"], count=1
        )


def exercises_of(pagename: str) -> list[str]:
    """The sets of exercises that belong to a chapter."""
    chapter = int(pagename[:2]) if pagename[:2].isdigit() else None
    names = {one.name for one in EXERCISES.values() if one.chapter == chapter}
    found = {}
    for path in notebooks():
        if path.parent.name == "exercises":
            asked = re.findall(r'check\(\\"([\w-]+)\\"', path.read_text(encoding="utf-8"))
            if names & set(asked):
                found[f"exercises/{path.stem}"] = None
    return list(found)


def preview(app: Sphinx, pagename: str, context: dict, doctree) -> str:
    """What a search engine or a chat shows of the page: its title and its first paragraph."""
    first = next(doctree.findall(nodes.paragraph), None)
    said = " ".join(first.astext().split()) if first is not None else app.config.html_title
    said = html.escape(textwrap.shorten(said, 200, placeholder=" …"))
    title = html.escape(html.unescape(re.sub("<[^>]+>", "", context.get("title", ""))))
    tags = {"og:type": "article", "og:site_name": app.config.html_title, "og:title": title, "og:description": said}
    return f'<meta name="description" content="{said}" />' + "".join(
        f'<meta property="{name}" content="{value}" />' for name, value in tags.items()
    )


def is_thebe(script) -> bool:
    """Thebe would run cells on a server; its settings, loaded twice, are an error in every page's console."""
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {})}".lower()


def is_mathjax(script) -> bool:
    return "mathjax" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {})}".lower()


def drop_launch_buttons(app: Sphinx, config) -> None:
    """No Colab button while _config.yml names no repository."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options["launch_buttons"] = {}


def name_the_edition(app: Sphinx, config) -> None:
    """For the EPUB, which has to say its version and its title."""
    config.project = config.html_title
    config.version = config.html_theme_options.get("repository_branch", "").removeprefix("v")


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", name_the_edition)
    app.connect("config-inited", drop_launch_buttons)
    app.connect("html-page-context", complete_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
