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
        env, name = self.renderer.sphinx_env, anchor(claim["name"])
        if "ledger" in env.found_docs:  # its id leads there
            address = f"{env.app.builder.get_relative_uri(env.docname, 'ledger')}#ledger-{claim['id']}"
            strong = f"<strong>{claim['id']}.</strong>"
            for node in shown:
                text = node.astext().replace(strong, f'<a class="reference internal" href="{address}">{strong}</a>', 1)
                shown[shown.index(node)] = nodes.raw("", text, format="html", classes=node.get("classes", []))
        container = nodes.container("", *shown, ids=[name], names=[name.lower()])
        self.renderer.document.note_explicit_target(container, container)
        return [container]
