"""The build, on small books of our own: what it runs again, what it refuses, what an interrupted one leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLAIM = """from bncourse.claims import claim
claim("{id}", "{verdict}", "{text}", 2.0, above=1)"""
CHAPTER = "01-small"


def notebook(*sources: str, title: str = "A chapter") -> str:
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {title}\n\nText."}]
    for number, source in enumerate(sources):
        cell = {"cell_type": "code", "id": f"c{number}", "metadata": {}, "execution_count": None, "outputs": []}
        cells.append(cell | {"source": source})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def claims(*ids: str, verdict: str = "holds", text: str = "So it is.") -> list[str]:
    return [CLAIM.format(id=id, verdict=verdict, text=text) for id in ids]


@pytest.fixture
def small(tmp_path) -> Path:
    """A course of one chapter with our configuration and extensions, and a package of one file."""
    shutil.copytree(ROOT / "book" / "_ext", tmp_path / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    for name in ("_config.yml", "book/references.bib"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bncourse").mkdir()
    (tmp_path / "bncourse" / "layer.py").write_text("eps = 1e-5\n")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    (tmp_path / "book" / "index.md").write_text("# A course\n")
    toc = f"format: jb-book\nroot: index\nchapters:\n  - file: {CHAPTER}\n"
    (tmp_path / "_toc.yml").write_text(toc)
    return tmp_path


def write(root: Path, *sources: str) -> None:
    (root / "book" / f"{CHAPTER}.ipynb").write_text(notebook(*sources))


def build(root: Path) -> tuple[bool, str]:
    command = [sys.executable, ROOT / "tools" / "build.py", root]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode == 0, result.stdout


def index(root: Path) -> str:
    return (root / "_build" / "html" / "index.html").read_text()


def was_run(output: str) -> bool:
    return f"running {CHAPTER}" in output


def test_runs_again_only_what_can_have_changed(small):
    write(small, "print('hello')")
    succeeded, output = build(small)
    assert succeeded and was_run(output), output
    assert output.splitlines()[-1] == f"Open: {small / '_build' / 'html' / 'index.html'}"
    assert (small / "_build" / "html" / f"{CHAPTER}.html").exists()

    succeeded, output = build(small)
    assert succeeded and not was_run(output)

    layer = small / "bncourse" / "layer.py"
    layer.write_text("eps = 1e-3\n")
    succeeded, output = build(small)
    assert succeeded and was_run(output)

    layer.write_text("eps = 1e-5\n")  # back: the earlier runs are still there
    succeeded, output = build(small)
    assert succeeded and not was_run(output)

    (small / "requirements.txt").write_text("torch==2.14.0\n")
    succeeded, output = build(small)
    assert succeeded and was_run(output)


def test_failing_cell_fails_every_time_and_is_named(small):
    write(small, "x = 1", "y = x / 0")
    for _ in range(2):
        succeeded, output = build(small)
        assert not succeeded
        assert f"{CHAPTER}.ipynb, cell 3 of 3: ZeroDivisionError: division by zero" in output
        assert "    y = x / 0" in output
        assert not (small / "_build" / "html").exists()


def test_warning_fails_every_time(small):
    write(small, "x = 1")
    (small / "book" / "index.md").write_text("# A course\n\n[nowhere](nowhere.md)\n")
    for _ in range(2):
        succeeded, output = build(small)
        assert not succeeded and "nowhere.md" in output


def test_interrupted_build_leaves_nothing_to_trust(small):
    write(small, "import pathlib, time", "pathlib.Path('started').touch(); time.sleep(60)")
    command = [sys.executable, ROOT / "tools" / "build.py", small]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (small / "book" / "started").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    output, _ = process.communicate(timeout=30)
    assert process.returncode != 0 and b"interrupted" in output.lower()
    assert not (small / "_build" / "html").exists()

    write(small, "import pathlib, time", "pathlib.Path('started').touch(); print('now quick')")
    succeeded, output = build(small)
    assert succeeded and was_run(output), output


def test_half_written_cache_entry_is_run_again(small):
    write(small, "print('hello')")
    assert build(small)[0]
    (entry,) = (small / "_build" / ".cache").rglob("base.ipynb")
    entry.write_text(entry.read_text()[:100])
    shutil.rmtree(small / "_build" / ".doctrees")
    succeeded, output = build(small)
    assert succeeded and was_run(output), output


def test_killed_build_is_begun_anew(small):
    write(small, "print('hello')")
    assert build(small)[0]
    page = small / "_build" / "html" / f"{CHAPTER}.html"
    page.write_text("half a page")
    (small / "_build" / ".unfinished").touch()  # as a build that was killed leaves it
    assert build(small)[0]
    assert "hello" in page.read_text()


def test_ledger_follows_the_chapters(small):
    (small / "_toc.yml").write_text((small / "_toc.yml").read_text() + "  - file: ledger\n")
    (small / "book" / "ledger.md").write_text(
        "# Ledger\n\n```{ledger}\n```\n\n[P1](#ledger-P1) [the cell](#claim-P1)\n"
    )
    ids = ("P1", "P2", "P3", "P4", "P5")
    write(small, *claims(*ids))
    succeeded, output = build(small)
    assert not succeeded and f"no claim settles P6 ({CHAPTER})" in output

    (small / "book" / "index.md").write_text("# A course\n\nVerdicts: {verdict}`P1 P6`.\n")
    write(small, *claims(*ids, "P6"), *claims("P1", text="Said twice."))
    succeeded, output = build(small)
    assert succeeded, output
    page = (small / "_build" / "html" / "ledger.html").read_text()
    assert "6 statements examined: 6 “holds”." in page
    assert re.sub("<[^>]+>", "", index(small)).count("Verdicts: P1 holds; P6 holds.") == 1
    assert f'href="{CHAPTER}.html#claim-P1"' in page and f'href="{CHAPTER}.html#claim-P1-2"' in page
    chapter = (small / "_build" / "html" / f"{CHAPTER}.html").read_text()
    assert 'id="claim-P1"' in chapter and 'id="claim-P1-2"' in chapter

    write(small, *claims(*ids), *claims("P6", verdict="does not hold", text="It is otherwise."))
    assert build(small)[0]
    page = (small / "_build" / "html" / "ledger.html").read_text()
    assert "5 “holds”, 1 “does not hold”" in page and "It is otherwise." in page and "Said twice." not in page
    assert "P6 does not hold." in re.sub("<[^>]+>", "", index(small)) and 'href="ledger.html#ledger-P6"' in index(small)

    write(small, *claims(*ids))
    for _ in range(2):
        assert not build(small)[0]


ELSEWHERE = f"""\
dataset,chapter,id,number,condition,count,mean,low,high,supported
mnist,{CHAPTER},P1,1,above 1,5,1.4,1.2,1.6,True
fashion_mnist,{CHAPTER},P1,1,above 1,5,1.4,0.8,2.0,True
cifar10,{CHAPTER},P1,1,above 1,5,0.5,0.4,0.6,False
mnist,{CHAPTER},P2,1,above 1,5,nan,nan,nan,False
mnist,{CHAPTER},P3,1,above 1,5,2,1.9,2.1,True
mnist,{CHAPTER},P4,1,above 2,5,2,1.9,2.1,True
"""


def test_the_page_on_other_data_joins_its_table_with_the_chapters_claims(small):
    """The interval decides, not the mean; a row whose threshold is another one is not that claim's."""
    (small / "_toc.yml").write_text((small / "_toc.yml").read_text() + "  - file: other-data\n")
    (small / "book" / "other-data.csv").write_text(ELSEWHERE)
    (small / "book" / "other-data.md").write_text(
        f"# Other data\n\nThere: {{elsewhere}}`cifar10 {CHAPTER} P1 1`.\n\n```{{other-data}} other-data.csv\n```\n"
    )
    claims = "from bncourse.claims import claim\nfrom bncourse.experiments import interval\n" + "\n".join(
        f'claim("{id}", "holds", "So it is.", interval([2, 3, 4, 5, 6]), above=1)' for id in ("P1", "P2", "P3", "P4")
    )
    write(small, claims)
    succeeded, output = build(small)
    assert succeeded, output
    page = re.sub("<[^>]+>", "", (small / "_build" / "html" / "other-data.html").read_text())
    assert "There: 0.5 [0.4, 0.6]." in page
    assert "MNIST, holds: 1.4" in page and "Fashion-MNIST, open: 1.4" in page and "CIFAR-10, not so: 0.5" in page
    assert "MNIST, not measurable" in page and "digits, holds: 4" in page
    assert "Other claims that hold on every data set: 1." in page
    assert "Claims that have changed since, and were not measured again: 1." in page
    (small / "book" / "other-data.md").write_text("# Other data\n\n{elsewhere}`cifar10 nowhere P1 1`\n")
    succeeded, output = build(small)
    assert not succeeded and "has no row 'cifar10 nowhere P1 1'" in output


def test_figure_has_its_description_caption_number_and_anchor(small):
    write(
        small,
        "from bncourse.plotting import figure\nfrom bncourse.notebook import show\ndrawn, axes = figure()",
        "show(drawn, alt='An empty pair of axes from zero to one', caption='Nothing, *yet*.', name='fig-empty')",
    )
    (small / "book" / "index.md").write_text("# A course\n\n[see](#fig-empty)\n")
    toc = (small / "_toc.yml").read_text().replace("chapters:", "options: {numbered: true}\nchapters:")
    (small / "_toc.yml").write_text(toc)
    succeeded, output = build(small)
    assert succeeded, output
    page = (small / "_build" / "html" / f"{CHAPTER}.html").read_text()
    assert 'alt="An empty pair of axes from zero to one"' in page
    assert 'id="fig-empty"' in page and "Figure 1.1" in page and "<em>yet</em>" in page
    assert f'href="{CHAPTER}.html#fig-empty"' in (small / "_build" / "html" / "index.html").read_text()


def test_colab_button_is_there_only_when_the_repository_is(small):
    write(small, "x = 1")
    assert build(small)[0]
    page = small / "_build" / "html" / f"{CHAPTER}.html"
    assert "colab.research" not in page.read_text()

    from repository import set_repository

    set_repository("https://github.com/someone/somewhere", small)
    assert build(small)[0]
    assert f"github/someone/somewhere/blob/v0.2.0/book/{CHAPTER}.ipynb" in page.read_text()
