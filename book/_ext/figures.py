"""Figures from notebooks: description, caption, number and anchor come from the metadata that ``bncourse.show`` leaves.

MyST-NB ignores an output's metadata but for width and height. With it, ``[the figure](#fig-name)`` works in plain
Markdown, Sphinx numbers the figure, and a screen reader hears what it shows.
"""

import myst_nb.sphinx_
from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx


class Renderer(NbElementRenderer):
    """MyST-NB's renderer, with the parts of it that look at an output's metadata."""

    def render_nb_finalise(self, metadata: dict) -> None:
        """Leave the widgets' state out of the page: explorers bring their own HTML."""

    def render_image(self, data: MimeData) -> list[nodes.Element]:
        details = data.output_metadata.get(data.mime_type, {})
        (image,) = super().render_image(data)
        if details.get("alt"):
            image["alt"] = details["alt"]
        if not details.get("caption"):
            return [image]
        figure = nodes.figure("", image, align="center")
        caption = nodes.caption()
        with self.renderer.current_node_context(caption):
            self.renderer.nested_render_text(details["caption"], data.line or 0, inline=True)
        figure += caption
        if details.get("name"):
            figure["names"].append(nodes.fully_normalize_name(details["name"]))
            self.renderer.document.note_explicit_target(figure, figure)
        return [figure]

    def render_text_html(self, data: MimeData) -> list[nodes.Element]:
        shown = super().render_text_html(data)
        claim = data.output_metadata.get("bncourse_claim")
        if claim is None:
            return shown
        from ledger import record

        anchor = record(self.renderer.sphinx_env, claim)
        container = nodes.container("", *shown, ids=[anchor], names=[anchor.lower()])
        self.renderer.document.note_explicit_target(container, container)
        return [container]


def setup(app: Sphinx) -> dict:
    myst_nb.sphinx_.load_renderer = lambda name: Renderer
    return {"parallel_read_safe": True}
