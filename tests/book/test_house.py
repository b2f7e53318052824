"""The house is in order: bare notebooks, a complete toc, one set-up cell, exact pins, imports one way, style."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tools.repository import disagreements, setup_cell
from tools.toc import ROOT, chapters, notebooks, pages

NOTEBOOKS, CHAPTERS = notebooks(), chapters()
ROOMS = (  # a room imports only what stands before it
    *("moved", "files", "checks", "loops", "cpu", "kernels", "standardize", "functional", "layers", "models"),
    *("progress", "devices", "data", "checkpoint", "training", "probes", "experiments", "exploration", "surgery"),
    *("claims", "plotting", "museum", "notebook", "studies", "explorers", "lab", "doctor", "exercises", "grading"),
    "cli",
)


def tracked(*patterns: str) -> list[Path]:
    """The committed files; all files where git does not run."""
    try:
        found = subprocess.run(
            ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is needed to know which files are part of the course")
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_notebooks_are_committed_bare():
    dirty = []
    for path in tracked("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if "widgets" in notebook["metadata"]:
            dirty.append(f"{name_of(path)}: widget metadata")
        for cell in cells(path, "code"):
            if cell["outputs"] or cell["execution_count"]:
                dirty.append(f"{name_of(path)}: outputs or a count at {''.join(cell['source'])[:40]!r}")
    assert not dirty


def test_every_page_of_the_toc_exists_and_every_notebook_of_the_book_is_in_it():
    book = ROOT / "book"
    missing = [name for name in pages() if not any((book / f"{name}{end}").exists() for end in (".md", ".ipynb"))]
    assert not missing
    forgotten = [name_of(path) for path in tracked("book/*.ipynb") if path not in NOTEBOOKS]
    assert not forgotten


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
class TestNotebook:
    def test_first_code_cell_is_the_setup_cell(self, path):
        first = cells(path, "code")[0]
        assert "setup" in first["metadata"].get("tags", [])
        assert "".join(first["source"]) == setup_cell()

    def test_runs_with_the_default_kernel(self, path):
        assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"

    def test_imports_nothing_that_only_the_book_has(self, path):
        source = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
        assert not re.search(r"import (myst_nb|IPython\.core|sphinx)|from (myst_nb|sphinx)", source)


def test_a_visible_line_that_is_too_long_is_named_with_its_cell(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from cells import WIDTH, as_taught, too_wide

    def cell(source: str, *tags: str) -> dict:
        return {"cell_type": "code", "source": source, "metadata": {"tags": [*tags]}}

    wide, narrow = "x" * (WIDTH + 1), "x" * WIDTH
    text = {"cell_type": "markdown", "source": wide, "metadata": {}}
    notebook = {"cells": [text, cell(narrow), cell(wide, "hide-input"), cell(f"{narrow}\n{wide}")]}
    assert too_wide(notebook) == [(4, wide)]
    form = {"cells": [cell('dataset = "digits"  # @param ["digits", "mnist"]')]}
    assert "".join(as_taught(form)["cells"][0]["source"]) == 'dataset = "digits"'


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_visible_line_is_too_long(path, monkeypatch):
    """Nor does the build accept one; here it is found without building."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from cells import as_taught, too_wide

    assert not too_wide(as_taught(json.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_imports_are_behind_a_click(path):
    """A cell that only imports, in more than a line or two, is not what a reader came for."""
    for cell in cells(path, "code"):
        statements = ast.parse(re.sub("^[%!].*", "", "".join(cell["source"]), flags=re.MULTILINE)).body
        if len(statements) > 2 and all(isinstance(one, (ast.Import, ast.ImportFrom)) for one in statements):
            assert "hide-input" in cell["metadata"].get("tags", []), "".join(cell["source"])[:60]


def test_the_zoo_asks_for_the_line_only_where_the_bug_stands(monkeypatch):
    """Not in the edition with solutions, whose creatures are fixed."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from zoo import bug_lines

    sources = ["".join(cell["source"]) for cell in cells(ROOT / "book" / "exercises" / "ex-04-bug-zoo.ipynb", "code")]
    bugs = bug_lines(sources)
    assert len(bugs) == 7 and all(bugs.values())
    fixed = [source.replace("is_grad_enabled", "training") for source in sources]
    assert bugs.keys() - bug_lines(fixed).keys() == {"Sleepless"}


def test_repository_is_said_once_and_everything_agrees():
    assert not disagreements()


def test_nothing_installs_or_opens_a_repository_that_is_not_ours():
    """While no repository is set nothing may send a reader to one for the course: somebody else could own it."""
    ours = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    pattern = re.compile(
        r"colab\.research\.google\.com/github/\S+|git\+https?://\S+|https://github\.com/\S+/archive/\S+"
    )
    found = [
        f"{name_of(path)}: {link}"
        for path in tracked("*.md", "*.ipynb", "*.yml", "*.cff", "*.toml", "Makefile")
        for link in pattern.findall(path.read_text(encoding="utf-8"))
        if not ours or not re.search(rf"/{re.escape(ours.removeprefix('https://github.com/'))}(/|@|\.git|$)", link)
    ]
    assert not found


def test_requirements_are_exact_and_end_with_the_package():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "-e ."
    assert not [line for line in lines[:-1] if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]  # nor a +cpu, nor a host


def test_requirements_satisfy_every_floor_of_the_package():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines) if pin}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin and requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_the_package_declares_what_it_imports():
    """What comes along with another package today may not do so in its next version."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        f"{name_of(path)} imports {module}"
        for path in tracked("bncourse/*.py")
        for module in imported_modules(path) - sys.stdlib_module_names - {"bncourse"}
        if not declared & set(map(canonicalize_name, distributions.get(module, [])))
    }
    assert not undeclared


def imported_modules(path: Path) -> set[str]:
    """The top-level modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["branch"] == f"v{version}"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_data_files_of_the_package_are_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    others = [path for path in tracked("bncourse") if path.suffix != ".py" and not any(map(path.match, patterns))]
    assert not others


def test_rooms_import_only_rooms_before_them():
    files = [path for path in tracked("bncourse/*.py") if room_of(path) != "__init__"]
    assert {room_of(path) for path in files} == set(ROOMS)
    wrong = [
        f"{name_of(path)} imports {other}"
        for path in files
        for other in imported_rooms(ast.parse(path.read_text(encoding="utf-8")))
        if ROOMS.index(other) > ROOMS.index(room_of(path))
    ]
    assert not wrong


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "bncourse").parts[0].removesuffix(".py")


def imported_rooms(module: ast.Module) -> set[str]:
    """The package's rooms that a file imports, inside functions too."""
    names = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {parts[1] for name in names if (parts := name.split("."))[0] == "bncourse" and parts[1:]} & set(ROOMS)


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import bncourse.layers.batch", {"layers"}),
        ("from bncourse import functional, BatchNorm1d", {"functional"}),
        ("def f():\n    from bncourse.data.examples import Examples", {"data"}),
        ("import torch, bncourse", set()),
    ],
)
def test_every_form_of_import_is_seen(code, rooms):
    assert imported_rooms(ast.parse(code)) == rooms


def test_importing_the_package_loads_torch_and_nothing_heavy():
    heavy = {"matplotlib", "sklearn", "scipy", "pooch", "ipywidgets", "IPython"}
    code = f"import sys, bncourse; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("command", [("check",), ("format", "--check", "--force-exclude")], ids=" ".join)
def test_ruff_is_content(command):
    files = [str(path) for path in tracked("*.py", "*.ipynb")]
    command = [sys.executable, "-m", "ruff", *command, "--output-format=concise", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
