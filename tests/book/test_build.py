"""The build, on small books of our own: what its pages say, what it refuses, what an interrupted one leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from small_books import build

import tools.build
from bncourse.claims import changes, expected, last_edition, statements
from tools import verdicts
from tools.notebooks import NotebookFailed, execute
from tools.repository import place, set_repository
from tools.runs import Notebook
from tools.toc import ROOT

CHAPTER = "01-small"
START = """from bncourse.claims import card, claim, exact, less, more, same
# of the book's own runs, not of these
card.replicated = lambda: {"seeds": "100-109", "verdicts": {}}
from bncourse.experiments import Runs
runs = Runs([2, 3, 4, 5, 6], range(10, 15))"""
FIGURE = """from bncourse.plotting import figure
from bncourse.notebook import show
alt = "An empty pair of axes from zero to one"
show(figure()[0], alt, caption="Nothing, *yet*.", name="fig-empty")"""
ELSEWHERE = f"""\
dataset,chapter,name,unit,predicts,than,count,mean,low,high
mnist,{CHAPTER},P3.rates,powers of ten,more,0.0,10,1.4,1.2,1.6
fashion_mnist,{CHAPTER},P3.rates,powers of ten,more,0.0,10,1.4,-0.8,3.6
cifar10,{CHAPTER},P3.rates,powers of ten,more,0.0,10,-0.5,-0.6,-0.4
mnist,{CHAPTER},P1.plain,powers of ten,more,0.0,10,nan,nan,nan
mnist,{CHAPTER},P5.plain,powers of ten,more,0.0,10,4,3.9,4.1
mnist,{CHAPTER},P5.with-batch-norm,powers of ten,more,1.0,10,2,1.9,2.1
"""
LEDGER = "# Ledger\n\n```{ledger}\n```\n\n[P1](#ledger-P1) [the cell](#claim-P1-plain)\n"
OTHER_DATA = "# Other data\n\nThere: {elsewhere}`cifar10 P3.rates`.\n\n```{other-data} other-data.csv\n```\n"


pytestmark = pytest.mark.usefixtures("forks")


def run(root: Path) -> None:
    """Run the chapter before the build, which finds it done: here a kernel starts at once."""
    execute([root / "book" / f"{CHAPTER}.ipynb"], root, check=False)


@pytest.fixture
def small(tmp_path) -> Path:
    """A course with our configuration and extensions, of one chapter, which is to be written, and four pages."""
    shutil.copytree(ROOT / "book" / "_ext", tmp_path / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    for name in ("_config.yml", "requirements.txt", "book/references.bib"):
        shutil.copy(ROOT / name, tmp_path / name)
    pages = ("ledger", "other-data", CHAPTER, "changes")
    entries = "".join(f"  - file: {name}\n" for name in pages)
    (tmp_path / "_toc.yml").write_text(
        f"format: jb-book\nroot: index\noptions: {{numbered: true}}\nchapters:\n{entries}"
    )
    for name, text in {
        "index.md": "# A course\n\nVerdicts: {verdict}`P1 P6`. [see](#fig-empty)\n",
        "ledger.md": LEDGER,
        "other-data.md": OTHER_DATA,
        "changes.md": "# Changes\n\n```{changes}\n```\n",
        "other-data.csv": ELSEWHERE,
    }.items():
        (tmp_path / "book" / name).write_text(text)
    return tmp_path


def write(root: Path, *sources: str) -> None:
    cells = [nbformat.v4.new_markdown_cell("# A chapter\n\nText."), *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "book" / f"{CHAPTER}.ipynb")


def names(*ids: str) -> list[str]:
    return [finding.name for id in ids for finding in statements()[id].findings]


def claims(*names: str, prediction: str = "more(runs)") -> str:
    """A cell that claims each of the findings: they hold, unless the prediction is another."""
    return "\n".join([START, *(f'claim("{name}", "powers of ten", {prediction})' for name in names)])


ALL = ("P1", "P2", "P3", "P4", "P5", "P6")


def html(root: Path, name: str) -> str:
    return (root / "_build" / "html" / f"{name}.html").read_text()


def text(root: Path, name: str) -> str:
    return re.sub("<[^>]+>", "", html(root, name))


def test_pages_say_what_the_chapter_found_and_follow_it(small):
    write(small, claims(*names(*ALL)), FIGURE)
    succeeded, output = build(small)
    assert succeeded and f"running {CHAPTER}" in output, output
    assert output.splitlines()[-1] == f"Open: {small / '_build' / 'html' / 'index.html'}"

    ledger, chapter = html(small, "ledger"), html(small, CHAPTER)
    assert "6 statements examined: 6 “holds”." in ledger
    assert re.search(r"\d+ rest on a 95% interval; by chance about [\d.]+ of these intervals should miss the", ledger)
    assert f'href="{CHAPTER}.html#claim-P1-plain"' in ledger and f'href="{CHAPTER}.html#claim-P2-noise"' in ledger
    assert ledger.count('id="ledger-P1"') == 1, "a link must lead to the row"
    assert 'id="claim-P1-plain"' in chapter and 'href="ledger.html#ledger-P1"' in chapter, "linked both ways"
    assert "All in all, P4 holds." in text(small, CHAPTER)
    assert text(small, "index").count("Verdicts: P1 holds; P6 holds.") == 1
    found = json.loads((small / "_build" / "html" / "ledger.json").read_text())
    p2 = next(one for one in found["statements"] if one["id"] == "P2")
    assert p2["verdict"] == "holds" and len(p2["findings"]) == len(names("P2"))
    assert p2["findings"][0].keys() >= {"id", "text", "verdict", "low", "high", "count", "dataset", "holm", "anchor"}

    assert 'alt="An empty pair of axes from zero to one"' in chapter
    assert 'id="fig-empty"' in chapter and "Figure 3.1" in chapter and "<em>yet</em>" in chapter
    assert f'href="{CHAPTER}.html#fig-empty"' in html(small, "index")
    assert "colab.research" not in chapter

    page = text(small, "other-data")  # a row whose prediction is another one is not that claim's
    assert "There: -0.5 [-0.6, -0.4]." in page
    assert "MNIST, holds: 1.4" in page and "Fashion-MNIST, undecided here: 1.4" in page
    assert "CIFAR-10, does not hold: -0.5" in page
    assert "MNIST, not measurable" in page and "digits, holds: 4" in page
    assert "Other claims with the same verdict on every data set: 1." in page
    assert re.search(r"Claims that have changed since, and were not measured again: \d+\.", page)

    page = text(small, "changes")
    assert f"New in this edition: {len(expected().keys() - last_edition().keys())} findings." in page
    assert all(one.finding in page and one.why in page.replace("&#x27;", "'") for one in changes())

    other = claims("P6.plain", prediction="less(runs)")
    write(small, claims(*names(*ALL[:5]), *names("P6")[1:]), other, FIGURE)
    set_repository("https://github.com/someone/somewhere", small)
    run(small)
    succeeded, output = build(small)
    assert succeeded, output
    ledger = html(small, "ledger")
    assert "5 “holds”, 1 “does not hold”" in ledger and "(the opposite)" in ledger
    assert "P6 does not hold." in text(small, "index") and 'href="ledger.html#ledger-P6"' in html(small, "index")
    assert f"github/someone/somewhere/blob/{place()['branch']}/book/{CHAPTER}.ipynb" in html(small, CHAPTER)

    (small / "_build" / "html" / f"{CHAPTER}.html").write_text("half a page")
    (small / "_build" / ".unfinished").touch()  # as a build that was killed leaves it
    succeeded, output = build(small)
    assert succeeded and f"running {CHAPTER}" not in output, output
    assert "An empty pair of axes" in html(small, CHAPTER)


def test_a_verdict_that_changes_stops_the_build_until_it_is_accepted(small, capsys, monkeypatch):
    """Also where the chapter has run before, and nothing of it is run again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the folder that is made here must not pass for the package
    path, expected = small / "book" / f"{CHAPTER}.ipynb", small / "bncourse" / "claims" / "verdicts.toml"
    expected.parent.mkdir(parents=True)
    expected.write_text('"P3.rates" = "holds"\n')
    write(small, claims("P3.rates"))
    execute([path], small)
    expected.write_text('"P3.rates" = "does not hold"\n')
    with pytest.raises(
        NotebookFailed, match=f"{CHAPTER}.ipynb, P3.rates: the book expects 'does not hold', got 'holds'"
    ):
        execute([path], small)
    assert capsys.readouterr().out.count(f"running {CHAPTER}") == 1
    assert verdicts.write([Notebook(path, small)], small) == ["P3.rates: does not hold -> holds"]
    execute([path], small)


@pytest.mark.parametrize(
    ("ids", "page", "warning"),
    [
        (ALL[:5], OTHER_DATA, f"no claim settles P6.plain, P6.with-batch-norm, P6.deeper ({CHAPTER})"),
        (ALL, "# Other data\n\n{elsewhere}`cifar10 P9.nothing`\n", "has no row 'cifar10 P9.nothing'"),
    ],
    ids=["a statement without a claim", "a number that is not there"],
)
def test_a_warning_fails_every_time(small, ids, page, warning):
    (small / "book" / "other-data.md").write_text(page)
    write(small, claims(*names(*ids)), FIGURE)
    run(small)
    for _ in range(2):
        succeeded, output = build(small)
        assert not succeeded and warning in output
        assert not (small / "_build" / "html").exists()


def test_a_failing_cell_fails_every_time_and_is_named(small, capfd):
    write(small, "x = 1", "y = x / 0")
    for _ in range(2):
        assert tools.build.build(small) == 1
        output = capfd.readouterr().err
        assert f"{CHAPTER}.ipynb, cell 3 of 3: ZeroDivisionError: division by zero" in output
        assert "    y = x / 0" in output
        assert not (small / "_build" / "html").exists()


def test_an_interrupted_build_says_so_and_leaves_no_pages(small):
    write(small, "import pathlib, time", "pathlib.Path('started').touch(); time.sleep(300)")
    (small / "_build" / "html").mkdir(parents=True)
    command = [sys.executable, "-m", "tools.build", small]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (small / "book" / "started").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    output, _ = process.communicate(timeout=30)
    assert process.returncode != 0 and b"Interrupted" in output and b"Traceback" not in output
    assert not (small / "_build" / "html").exists()


def test_a_formula_stays_with_its_bracket_and_its_full_stop(monkeypatch):
    from docutils import nodes
    from docutils.utils import new_document

    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    from formulas import keep_together

    parts = enumerate("for any $a$ (or $b$). The ($c$-th".split("$"))
    paragraph = nodes.paragraph("", "", *(nodes.math("", part) if at % 2 else nodes.Text(part) for at, part in parts))
    document = new_document("")
    document += paragraph
    keep_together(None, document, "page")
    assert [one.astext() for one in document.findall(nodes.inline)] == ["b).", "(c-th"]
    assert paragraph.astext() == "for any a (or b). The (c-th"
