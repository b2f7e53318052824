"""A page's download runs where nobody has installed the course: it carries the package, also from a folder."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.toc import ROOT

PAGES = ("12-backward-pass", "exercises/ex-01-normalizing-a-batch")


def download(page, address: str, folder: Path) -> Path:
    page.goto(address)
    with page.expect_download() as found:
        page.get_by_role("link", name="download the notebook").click()
    path = folder / found.value.suggested_filename
    found.value.save_as(path)
    return path


@pytest.fixture
def page(browser):
    with browser.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("opened", ["from a folder", "from a server"])
def test_download_is_the_notebook_with_the_package(page, book, site, name, opened, tmp_path):
    address = f"{site}{name}.html" if opened == "from a server" else (book / f"{name}.html").as_uri()
    path = download(page, address, tmp_path)
    assert path.name == f"{Path(name).name}.ipynb"
    carried, committed = (json.loads(file.read_text()) for file in (path, ROOT / "book" / f"{name}.ipynb"))
    (setup,) = [cell for cell in carried["cells"] if "setup" in cell["metadata"].get("tags", [])]
    assert len("".join(setup["source"])) > 100_000 and "PACKAGE" not in "".join(setup["source"])
    for cells in (carried["cells"], committed["cells"]):
        cells[:] = [cell for cell in cells if "setup" not in cell["metadata"].get("tags", [])]
    assert carried == committed


def test_without_a_script_the_bare_notebook_is_there(browser, book):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((book / f"{PAGES[0]}.html").as_uri())
        link = page.get_by_role("link", name="download the notebook").get_attribute("href")
    assert json.loads((book / link).read_text()) == json.loads((ROOT / f"book/{PAGES[0]}.ipynb").read_text())


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A Python that has what the course depends on, and not the course."""
    folder = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    Path(place, "others.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read: no bncourse
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    has = "import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))"
    assert [subprocess.run([python, "-c", has, name]).returncode for name in ("torch", "bncourse")] == [0, 1]
    return python


@pytest.mark.environments
def test_download_runs_in_a_bare_environment(page, book, bare, tmp_path, monkeypatch):
    path = download(page, (book / f"{PAGES[0]}.html").as_uri(), tmp_path)
    kernel = tmp_path / "jupyter" / "kernels" / "bare"
    kernel.mkdir(parents=True)
    start = [str(bare), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "bare", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_code_cell("import bncourse; print(bncourse.__file__)"))
    NotebookClient(notebook, kernel_name="bare", timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[-1].outputs[0].text.startswith(str(tmp_path / "bncourse-"))


@pytest.mark.environments
def test_the_wheel_beside_the_pages_can_be_installed(book, bare, tmp_path):
    (wheel,) = book.glob("*.whl")
    assert wheel.name in (book / "run-it.html").read_text()
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        bare,
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        wheel,
    ]
    subprocess.run(command, check=True)
    said = subprocess.run([bare.parent / "bncourse", "--help"], capture_output=True, text=True, check=True).stdout
    assert "doctor" in said
    code = "from bncourse import lab; print(len(lab.html('first')))"  # its files are inside
    assert subprocess.run([bare, "-c", code], capture_output=True, text=True, check=True).stdout.strip().isdigit()
