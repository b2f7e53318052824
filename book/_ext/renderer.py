"""Outputs with their metadata: a figure's description, caption, number and anchor; a claim's anchor and its ledger row.

MyST-NB ignores an output's metadata except for width and height. With it, ``[the figure](#fig-name)`` works in plain
Markdown, Sphinx numbers the figure, and a screen reader hears what it shows. ``nb_render_plugin`` in _config.yml names
this renderer, pyproject.toml says where it is.
"""

from docutils import nodes
from ledger import anchor
from myst_nb.core.render import MimeData, NbElementRenderer, create_figure_context


class Renderer(NbElementRenderer):
    """MyST-NB's renderer, with the parts of it that look at an output's metadata."""

    def render_image(self, data: MimeData) -> list[nodes.Element]:
        details = data.output_metadata.get(data.mime_type, {})
        (image,) = super().render_image(data)
        if details.get("alt"):
            image["alt"] = details["alt"]
        if not details.get("caption"):
            return [image]
        shown, options = nodes.Element(), details | {"align": "center"}
        with (
            self.renderer.current_node_context(shown),
            create_figure_context(self.renderer, options, data.line or 0),
        ):
            self.renderer.current_node.append(image)
        return shown.children

    def render_text_html(self, data: MimeData) -> list[nodes.Element]:
        shown = super().render_text_html(data)
        claim = data.output_metadata.get("bncourse_claim")
        if claim is None:
            return shown
        number = 1 + self.renderer.sphinx_env.new_serialno(f"claim-{claim['id']}")
        name = anchor(claim["id"], number)
        container = nodes.container("", *shown, ids=[name], names=[name.lower()])
        self.renderer.document.note_explicit_target(container, container)
        return [container]
