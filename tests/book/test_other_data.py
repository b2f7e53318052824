"""Chapters on other data than the book's: run in a kernel of their own, the classical sets from a local server."""

import asyncio
import json
import tomllib
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from data_files import cifar_archive, serve, sha256

from bncourse import exploration
from bncourse.data import DATA_SETS, photo_digits
from bncourse.experiments import Splits
from tools.explore import explore
from tools.notebooks import NotebookFailed
from tools.other_data import chapters_with_data, main, merge, read, run

pytestmark = pytest.mark.usefixtures("forks")


def chapter(folder, *cells):
    """A notebook whose first cell chooses the data."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    path = folder / "01-small.ipynb"
    nbformat.write(notebook, path)
    return path


CLAIMS = """\
from bncourse.claims import claim, exact, more
from bncourse.data import load
from bncourse.experiments import Runs
colours = load(dataset, train=2, test=1).train.images.shape[1]
claim("P3.rates", "points", more(Runs([colours, colours, 4], (10, 11, 12)), than=3), dataset=dataset)
claim("P6.plain", "points", more(Runs([1, 1, 1], (10, 11, 12))))  # on the book's data, whatever the set
exact("A1.mean", 0, dataset=dataset)"""


def test_only_the_data_changes_and_a_claim_that_is_not_so_is_kept(tmp_path):
    rows = run(chapter(tmp_path, 'dataset = "digits"', CLAIMS), "photo_digits")
    (row,) = rows  # neither what is exact nor what has not seen the data
    assert (row["name"], row["unit"], row["predicts"], row["than"]) == ("P3.rates", "points", "more", 3.0)
    assert (row["dataset"], row["chapter"], row["mean"], row["count"]) == ("photo_digits", "01-small", "3.333", 3)


def test_a_row_that_has_not_seen_the_data_is_not_kept():
    """It would be the same to the last digit on two data sets; only a censored number, a grid's, or none, may be."""
    seen = {}
    for row in read():
        numbers = row["name"], row["mean"], row["low"], row["high"]
        may_be = row["name"] in ("P4.vanishes", "P3.rates") or row["mean"] == "nan"
        assert may_be or seen.setdefault(numbers, row["dataset"]) == row["dataset"], row


def test_the_rates_of_another_data_set_are_its_own(tmp_path, monkeypatch, capsys):
    choice = """from bncourse.experiments import Splits
from bncourse.exploration import choose
rates = {0.1: lambda seed: -seed, 0.3: lambda seed: seed}
print(choose("01 rate", rates, splits=Splits(dataset)))"""
    table = tmp_path / "chosen.toml"
    table.write_text('["01 rate"]\nvalue = 0.1\namong = [0.1, 0.3]\nmeans = [1.0, 0.0]\n')
    path = chapter(tmp_path, 'dataset = "digits"', choice)
    assert explore(path, table, "mnist") == ["chosen: 01 rate, mnist = 0.3"]
    monkeypatch.setattr(exploration, "_chosen", lambda: tomllib.loads(table.read_text()))
    for dataset, value in (("digits", 0.1), ("mnist", 0.3), ("cifar10", 0.1)):
        rates = {0.1: None, 0.3: None}
        assert exploration.choose("01 rate", rates, splits=Splits(dataset)) == value
    assert capsys.readouterr().out.endswith("01 rate: chosen on digits, not on cifar10\n")


def test_a_cell_that_fails_is_no_finding(tmp_path):
    with pytest.raises(NotebookFailed, match="NameError"):
        run(chapter(tmp_path, 'dataset = "digits"', "no_such_name"), "photo_digits")


def test_a_chapter_runs_where_an_event_loop_is_running(tmp_path):
    """As in a notebook, or after a test that drives a browser."""

    async def inside():
        return run(chapter(tmp_path, 'dataset = "digits"', CLAIMS), "photo_digits")

    with ThreadPoolExecutor(1) as thread:  # whose loop it is: a browser may have left one running in this one
        assert len(thread.submit(asyncio.run, inside()).result()) == 1


def test_new_rows_take_the_place_of_their_own_only():
    def row(dataset, chapter, mean):
        return {"dataset": dataset, "chapter": chapter, "mean": mean}

    old = [
        row("mnist", "01", "old"),
        row("mnist", "01", "old too"),
        row("mnist", "02", "kept"),
        row("cifar10", "01", "kept"),
    ]
    merged = merge(old, [row("mnist", "01", "new"), row("photo_digits", "02", "first")])
    assert [(r["dataset"], r["mean"]) for r in merged] == [
        ("photo_digits", "first"),
        ("mnist", "new"),
        ("mnist", "kept"),
        ("cifar10", "kept"),
    ]


def test_chapters_that_are_not_there_are_named(monkeypatch, capsys):
    """A wrong number would otherwise run nothing, and look like success."""
    monkeypatch.setattr("sys.argv", ["other_data.py", "photo_digits", "--chapters", "12", "99"])
    monkeypatch.setattr("tools.other_data.run", lambda *_: pytest.fail("nothing may run"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "no chapter starts with 99; expected 01-the-problem" in capsys.readouterr().err


def test_every_chapter_that_measures_on_data_takes_another_data_set():
    """One line chooses the data, and nothing else in the notebook loads the default by its name."""
    names = [path.stem[:2] for path in chapters_with_data()]
    assert names == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "12", "13", "14"]
    choices = ", ".join(f'"{name}"' for name in DATA_SETS)
    for path in chapters_with_data():
        notebook = nbformat.read(path, 4)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        assert cell.source == f'dataset = "digits"  # @param [{choices}]', path.stem
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        assert "(dataset" in code and 'load("digits")' not in code, path.stem
        assert "\nclaim(" not in code or "partial(claim, dataset=" in code, path.stem


def test_a_chapter_runs_on_cifar10_that_a_server_sends(tmp_path, monkeypatch):
    """The real loader in the chapter's own process: download, hash, records; then everything the chapter does."""
    made = photo_digits(train=1400, test=397)

    def records(examples):
        pixels = examples.images.mul(255).round().byte().numpy()
        return [(int(label), image.tobytes()) for image, label in zip(pixels, examples.labels, strict=True)]

    archive = cifar_archive({"data_batch_1.bin": records(made.train), "test_batch.bin": records(made.test)})
    (path,) = [path for path in chapters_with_data() if path.stem == "12-backward-pass"]
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    with serve({"cifar-10-binary.tar.gz": archive}) as (address, asked):
        hashes = json.dumps({"cifar-10-binary.tar.gz": sha256(archive)})
        (startup / "mirror.py").write_text(
            "import joblib\n"
            "from bncourse.data import downloads\n"
            "joblib.cpu_count = lambda: 1  # other processes would not know the mirror\n"
            f'downloads.SOURCES["cifar10"] = downloads.Source(("{address}/right/",), {hashes})\n'
        )
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("BNCOURSE_QUICK", "1")  # that it runs is what is asked
        monkeypatch.setenv("BNCOURSE_DATA", str(tmp_path / "data"))
        run(path, "cifar10")
    assert asked == ["/right/cifar-10-binary.tar.gz"]
