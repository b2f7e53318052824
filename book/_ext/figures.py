"""Every figure says what it shows and what follows: the build names one that does not, and stops."""

from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def lacking(doctree: nodes.document) -> Iterator[tuple[nodes.image, str]]:
    """The images of a page that lack something, each with what it lacks."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            yield image, "a description (alt)"
        if not any(isinstance(beside, nodes.caption) and beside.astext().strip() for beside in image.parent):
            yield image, "a finding (caption)"


def name_them(app: Sphinx, doctree: nodes.document) -> None:
    for image, what in lacking(doctree):
        name = " ".join(image.parent.get("names", ())) or image["uri"]
        logger.warning(f"figure {name} must have {what}, got none", location=image)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", name_them)
    return {"parallel_read_safe": True}
