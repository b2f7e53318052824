"""What the build names, and stops at: each on a page of our own, with one of the course's extensions."""

import ast
import inspect
import io
import json

import nbformat
import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace

from bncourse import kernels
from tools.toc import ROOT

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
SETTINGS = {
    "root_doc": "page",
    "myst_enable_extensions": ["colon_fence", "deflist"],
    "nb_execution_mode": "off",
    "nb_render_plugin": "bncourse",
    "nb_mime_priority_overrides": [["dummy", "image/png", 0]],
}


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")


@pytest.fixture
def build(tmp_path, extensions):
    """A function that lets Sphinx read pages as the build does, with one extension, and says what it stopped at."""

    def read(extension: str, pages: dict[str, str]) -> str:
        for name, text in pages.items():
            (tmp_path / name).write_text(text)
        folders, said = (tmp_path, None, tmp_path / "built", tmp_path / "doctrees"), io.StringIO()
        settings = SETTINGS | {"extensions": ["myst_nb", extension]}
        with docutils_namespace():
            app = Sphinx(*folders, "dummy", settings, status=None, warning=said, warningiserror=True, keep_going=True)
            app.build()
        assert bool(app.statuscode) == bool(said.getvalue())
        return said.getvalue()

    return read


ALT, CAPTION = "One bar is higher than the other.", "The norm wins."
PYTHON = {"language_info": {"name": "python"}}
FIGURES = [(ALT, CAPTION, None), ("", CAPTION, "a description (alt)"), (ALT, "", "a finding (caption)")]


@pytest.mark.parametrize(("alt", "caption", "lacks"), FIGURES)
@pytest.mark.parametrize("kind", ["notebook", "text"])
def test_a_figure_without_a_description_or_a_finding(build, kind, alt, caption, lacks):
    if kind == "notebook":
        details = {"width": 100, "alt": alt, "caption": caption, "name": "fig-bars"}
        output = nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": details})
        cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell("show()", outputs=[output])]
        pages = {"page.ipynb": nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=PYTHON))}
    else:
        lines = [":::{figure} bars.svg", ":name: fig-bars", f":alt: {alt}", "", caption, ":::"]
        pages = {"page.md": "\n".join(["# A page", "", *lines]), "bars.svg": "<svg/>"}
    said = build("figures", pages)
    assert said == "" if lacks is None else f"figure fig-bars must have {lacks}, got none" in said
    assert not said or "page." in said


GLOSSARY = "# Glossary\n\ndead kernel, dead ReLU\n: A unit whose input is negative for every sample.\n"


@pytest.mark.parametrize(("target", "known"), [
    ("#term-dead-kernel", True), ("glossary.md#term-dead-kernel", True),
    ("#term-dead-colonel", False), ("glossary.md#term-dead-colonel", False),
])  # fmt: skip
def test_a_link_to_a_term_that_the_glossary_lacks(build, target, known):
    page = f"# A page\n\nIt has [dead units]({target}).\n\n:::{{toctree}}\nglossary\n:::\n"
    said = build("glossary", {"page.md": page, "glossary.md": GLOSSARY})
    assert said == "" if known else "page.md:3: WARNING:" in said and "term-dead-colonel" in said


@pytest.mark.parametrize("place", ["right", "wrong"])
@pytest.mark.parametrize("answer", [["yes"], ["yes", " "]])
def test_a_question_without_its_reasons(extensions, monkeypatch, tmp_path, place, answer):
    import questions

    row = {"id": "why", "ask": "Why?", "right": ["so", "Because."], "wrong": [["else", "No."], ["not", "Neither."]]}
    row = row | {"right": answer} if place == "right" else row | {"wrong": [*row["wrong"], answer]}
    (tmp_path / "03.toml").write_text("[[question]]\n" + "".join(f"{key} = {json.dumps(row[key])}\n" for key in row))
    monkeypatch.setattr(questions, "FOLDER", tmp_path)
    with pytest.raises(ExtensionError, match=r"questions/03\.toml, why: the answer .yes. must have its reason"):
        questions.read("03", "question", [])


@pytest.mark.parametrize("columns", [88, 89])
def test_shown_source_with_a_line_that_is_too_long(build, columns):
    """Calls get line breaks; a comment that is too long cannot, and is named."""
    comment = "# " + "x" * (columns - 2)
    code = f"{comment}\nresult = f({', '.join(f'{name}={name}' for name in ('alpha', 'beta', 'gamma') * 4)})\n"
    output = nbformat.v4.new_output("display_data", {"text/markdown": f"```python\n{code}```"})
    cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell("show_source(f)", outputs=[output])]
    said = build("cells", {"page.ipynb": nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=PYTHON))})
    expected = f"page.ipynb, cell 2: a line must have at most 88 columns, got 89: {comment}"
    assert said.count("columns") == (columns > 88) and (columns == 88 or expected in said)


def test_source_that_is_laid_out_anew_is_the_same_code(extensions):
    from cells import LISTING, laid_out

    source = inspect.getsource(kernels.forward)
    narrow = laid_out(source)
    assert ast.dump(ast.parse(narrow)) == ast.dump(ast.parse(source))
    assert max(map(len, narrow.splitlines())) <= LISTING < max(map(len, source.splitlines()))
