"""The book's verdicts hold it up: a layer that is broken once, and the tools that explore and replicate."""

import shutil
import tomllib

import nbformat
import pytest

from tools import explore, replicate
from tools.notebooks import NotebookFailed, execute
from tools.toc import ROOT

CHAPTER = "03-training-vs-inference"


def test_a_broken_layer_breaks_the_book(tmp_path):
    """Chapter 3's cells on the running variance, with a layer that remembers the biased one."""
    shutil.copytree(ROOT / "bncourse", tmp_path / "bncourse")  # with the loops that numba has compiled
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    chapter = nbformat.read(ROOT / "book" / f"{CHAPTER}.ipynb", 4)
    cells = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    start = [cell for cell in cells if "import" in cell or cell.startswith("dataset = ") or "split = Splits" in cell]
    variance = [cell for cell in cells if "maps = [" in cell or "T2.running" in cell]
    assert len(variance) == 2
    chapter.cells = [nbformat.v4.new_code_cell(source) for source in start + variance]
    path = tmp_path / "book" / f"{CHAPTER}.ipynb"
    path.parent.mkdir()
    nbformat.write(chapter, path)
    execute([path], tmp_path)

    functional = tmp_path / "bncourse" / "functional.py"
    right = functional.read_text(encoding="utf-8")
    broken = right.replace("variance * (count / (count - 1))", "variance")
    assert broken != right
    functional.write_text(broken, encoding="utf-8")
    with pytest.raises(NotebookFailed, match=r"T2\.running: the book expects 'holds', got 'does not hold'"):
        execute([path], tmp_path)


CHOICE = """\
from bncourse.exploration import choose
rate = choose("01 rate", {0.1: lambda seed: seed, 0.3: lambda seed: seed + 1, 1: lambda seed: -seed})
print("the rate is", rate)"""


def test_an_exploration_keeps_what_it_chose_and_what_it_chose_it_from(tmp_path):
    path, table = tmp_path / "01-small.ipynb", tmp_path / "chosen.toml"
    table.write_text('["02 depth"]\nvalue = 8\namong = [2, 8]\nmeans = [0.1, 0.2]\n')
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CHOICE)]), path)
    assert explore.explore(path, table) == ["chosen: 01 rate = 0.3"]
    assert tomllib.loads(table.read_text()) == {
        "01 rate": {"value": 0.3, "among": [0.1, 0.3, 1], "means": [2.0, 3.0, -2.0]},
        "02 depth": {"value": 8, "among": [2, 8], "means": [0.1, 0.2]},
    }


@pytest.mark.parametrize("seeds", ["0-9", "10-19", "100", "a-b"])
def test_a_replication_takes_seeds_that_nothing_has_used(seeds, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["replicate.py", "--seeds", seeds])
    with pytest.raises(SystemExit):
        replicate.main()
    assert f"expected seeds above 19, such as 100-109, got '{seeds}'" in capsys.readouterr().err
