"""A smoke test of each other environment, and of the tools for publishing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.colab import packed_package, write_all
from tools.environments import ENVIRONMENTS, choose, find_python
from tools.repository import disagreements, set_repository, setup_cell, student_notebooks
from tools.toc import ROOT


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_where_only_the_pinned_torch_has_a_cpu_build_it_stays(name, monkeypatch):
    ours = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    monkeypatch.setattr("tools.environments.find_python", lambda version: f"python{version}")
    monkeypatch.setattr("tools.environments.has_builds", lambda python, pins, any_build: ours in pins)
    python, pins = choose(name)
    others = {pin for pin in ENVIRONMENTS[name].pins if not pin.startswith("torch==")}
    assert python == "python3.13" and set(pins) == {ours} | others


def test_the_wanted_torch_goes_before_the_newest_python(monkeypatch):
    """The floor of torch has builds for some Python, but for none newer."""
    monkeypatch.setattr("tools.environments.find_python", lambda version: f"python{version}")
    monkeypatch.setattr(
        "tools.environments.has_builds", lambda python, pins, any_build: python == "python3.12" and "torch==2.4" in pins
    )
    assert choose("oldest")[0] == "python3.12"
    monkeypatch.setattr("tools.environments.PYTHONS", ("3.13",))
    with pytest.raises(SystemExit, match="Is there a network"):
        choose("oldest")


def test_a_python_is_found_that_is_this_version():
    found = find_python(f"{sys.version_info.major}.{sys.version_info.minor}")
    code = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run([found or sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.split() == list(map(str, sys.version_info[:2])) and find_python("3.99") is None


@pytest.mark.environments
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_chapter_and_the_widgets_run_in_it(name):
    """A second process, with the other versions really installed."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "tqdm"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("pip reaches no package registry")
    command = [sys.executable, "-m", "tools.environments", name, "--smoke"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    ran_with = dict(line.split() for line in result.stdout.partition("This ran with ")[2].splitlines())
    for pin in map(Requirement, ENVIRONMENTS[name].pins):
        assert pin.name == "torch" or pin.specifier.contains(ran_with[pin.name])


@pytest.mark.parametrize("options", [[], ["--smoke"]], ids=["full", "smoke"])
def test_without_a_registry_the_end_says_so(options):
    """The registry is asked first, and no traceback of ours hides pip's words."""
    command = [sys.executable, "-m", "tools.environments", "oldest", *options]
    offline = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    offline |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=offline)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.endswith("Is there a network?\n")


@pytest.fixture
def course(tmp_path) -> Path:
    """A copy of what says where the course is published."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "book", tmp_path / "book")
    shutil.copytree(ROOT / "bncourse", tmp_path / "bncourse", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "instructor").mkdir()
    return tmp_path


def test_repository_is_set_and_unset_everywhere(course):
    set_repository("", course)
    before = {path: path.read_text() for path in student_notebooks(course)}
    assert set_repository("https://github.com/someone/somewhere.git", course) == len(before)
    assert not disagreements(course)
    cell = setup_cell(course)
    assert len(cell.splitlines()) <= 3
    assert re.search(r"somewhere/archive/refs/tags/v\d+\.\d+\.\d+\.zip", cell)

    path = student_notebooks(course)[0]
    path.write_text(path.read_text().replace("someone/somewhere", "else/where"))
    assert len(disagreements(course)) == 1

    set_repository("", course)
    assert {path: json.loads(path.read_text()) for path in before} == {p: json.loads(t) for p, t in before.items()}


@pytest.mark.parametrize(
    "url",
    [
        "github.com/a/b",
        "https://github.com/a",
        "https://example.org/a/b",
        "https://github.com/a/b/c",
        "x y",
        "https://github.com/a/..",
    ],
)
def test_repository_refuses_what_colab_cannot_open(course, url):
    before = (course / "_config.yml").read_text()
    with pytest.raises(ValueError, match="must be https://github"):
        set_repository(url, course)
    assert (course / "_config.yml").read_text() == before


def test_a_notebook_that_cannot_be_read_is_named_and_nothing_is_set(course):
    before = (course / "_config.yml").read_text()
    (course / "book" / "99-torn.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"99-torn\.ipynb"):
        set_repository("https://github.com/someone/somewhere", course)
    assert (course / "_config.yml").read_text() == before


def test_copies_that_jupyter_keeps_are_no_notebooks_of_the_course(course):
    """It saves one of every notebook that somebody opens, as it was then."""
    first = student_notebooks(course)[0]
    (first.parent / ".ipynb_checkpoints").mkdir()
    shutil.copy(first, first.parent / ".ipynb_checkpoints")
    set_repository("https://github.com/someone/somewhere", course)
    assert not disagreements(course)
    assert first.read_text() != (first.parent / ".ipynb_checkpoints" / first.name).read_text()


def test_the_command_without_an_address_changes_nothing():
    """It would take the address away."""
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # make test runs this
    for arguments, ending in ([], "tools.repository"), (["URL="], 'tools.repository ""'):
        command = ["make", "--dry-run", "--no-print-directory", "repository", *arguments]
        asked = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
        assert asked.stdout.splitlines()[-1].strip().endswith(ending)


def test_carrying_notebook_runs_where_the_package_is_not(course, tmp_path):
    """Its first cell makes bncourse importable in a Python that does not see this checkout."""
    written = write_all(tmp_path / "carried", course)
    assert written and packed_package(course) == packed_package(course)
    cell = next(c for c in json.loads(written[0].read_text())["cells"] if "setup" in c["metadata"].get("tags", []))
    code = "".join(cell["source"])
    assert len(code.splitlines()) <= 3
    hide = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
    hide += f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    show = "\nimport bncourse; print(bncourse.__file__); print(os.environ['PYTHONPATH'])"
    (tmp_path / "carried.py").write_text(hide + code + show)
    for before in ("", "/somewhere"):  # Colab has one, which its programs need
        result = subprocess.run(
            [sys.executable, "-I", "carried.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": before},
        )
        assert result.returncode == 0, result.stderr
        place, handed_on = result.stdout.splitlines()
        assert place.startswith(str(tmp_path / "bncourse-"))
        assert handed_on.split(os.pathsep) == [str(Path(place).parent.parent), *filter(None, [before])]
