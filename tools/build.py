"""Build the book: run the notebooks, write the pages to _build/html, pack them into one zip, say where they are.

usage: python -m tools.build [FOLDER]

FOLDER is the course's root (default: the one this file is in). A build that fails or is interrupted leaves no pages
that a later one would trust: only finished notebooks are kept, under _build/.executed. Warnings are errors.
"""

import argparse
import shutil
import sys
import time
import zipfile
from pathlib import Path

from PIL import Image

from tools.notebooks import NotebookFailed, execute
from tools.toc import ROOT, chapters

NAME = "batch-normalization-tested"
UNASKED = (
    *("**/*.map", "_static/mathjax/**/*", "_static/locales/**/*", "_sources/**/*.md"),
    *("_static/vendor/**/*.ttf", "_static/vendor/fontawesome/**/*-brands-*"),
    *("_static/searchtools.js", "_static/language_data.js"),
)
FOR_SPHINX = (".buildinfo", "searchindex.js")  # its next build reads them, and no page does
ASKED = ("_static/mathjax/tex-chtml.js", "woff-v2/*")
PHOTOGRAPH = 30_000  # colours: more than a drawn figure has


def run_sphinx(root: Path, builder: str = "html") -> bool:
    """What ``jupyter-book build book --config ... --toc ... --path-output . -W`` does, without its last traceback."""
    from jupyter_book.sphinx import build_sphinx
    from sphinx.util.console import color_terminal, nocolor

    if not color_terminal():
        nocolor()
    result = build_sphinx(
        root / "book",
        root / "_build" / builder,
        builder=builder,
        doctreedir=root
        / "_build"
        / (".doctrees" if builder == "html" else f".doctrees-{builder}"),  # with links of its own
        noconfig=True,
        path_config=root / "_config.yml",
        confoverrides={"external_toc_path": str(root / "_toc.yml"), "latex_individualpages": False},
        warningiserror=True,
    )
    return result == 0


def discard_pages(build: Path) -> None:
    """Remove the pages and Sphinx's memory of them."""
    for name in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(build / name, ignore_errors=True)


def prune(html: Path) -> None:
    """Remove what no page asks for, and store figures with 256 colours, which are more than they have."""
    for path in [path for pattern in UNASKED for path in html.glob(pattern)]:
        if path.is_file() and not any(path.match(pattern) for pattern in ASKED):
            path.unlink()
    for path in (html / "_images").glob("*.png"):
        with Image.open(path) as picture:
            if picture.mode != "P" and picture.getcolors(PHOTOGRAPH) is not None:
                picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def pack(html: Path, archive: Path) -> None:
    """All pages in one zip, written whole or not at all."""
    unfinished = archive.with_suffix(".unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as pages:
        for path in sorted(html.rglob("*")):
            if path.is_file() and path.name not in FOR_SPHINX:
                pages.write(path, Path(archive.stem) / path.relative_to(html))
    unfinished.replace(archive)


def build(root: Path) -> int:
    folder = root / "_build"
    folder.mkdir(exist_ok=True)
    unfinished = folder / ".unfinished"  # stands while a build runs, and after one that was killed
    if unfinished.exists():
        discard_pages(folder)
    unfinished.touch()
    started = time.perf_counter()
    try:
        execute(chapters(root), root)
        succeeded = run_sphinx(root)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        succeeded = False
    except NotebookFailed as failure:
        print(f"\nA notebook failed: {failure}", file=sys.stderr)
        succeeded = False
    if not succeeded:
        discard_pages(folder)
        print("The book was not built; the reason is above.", file=sys.stderr)
        return 1
    prune(folder / "html")
    archive = folder / f"{NAME}.zip"
    pack(folder / "html", archive)
    unfinished.unlink()
    print(f"\nBuilt in {time.perf_counter() - started:.0f} s. The whole book as one file: {archive}")
    print(f"Open: {folder / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT)
    raise SystemExit(build(parser.parse_args().root.resolve()))
