"""The table of contents: the book's pages in reading order, and the notebooks among them."""

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path = ROOT) -> list[str]:
    """The names of the book's pages, as _toc.yml has them."""

    def walk(node) -> Iterator[str]:
        if isinstance(node, list):
            for item in node:
                yield from walk(item)
        elif isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    yield node[key]
            for key in ("parts", "chapters", "sections"):
                yield from walk(node.get(key, []))

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))))


def notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks among them."""
    return [path for name in pages(root) if (path := root / "book" / f"{name}.ipynb").exists()]


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks that the book shows executed; the cells of the exercises wait for the reader's answers."""
    return [path for path in notebooks(root) if path.parent.name != "exercises"]
