"""Try the course with other versions than the pinned ones.

usage: python -m tools.environments colab|oldest|newest [--smoke] [--any-build]

colab    what Colab has (colab-versions.txt): all notebooks, and the explorers as widgets of ipywidgets 7.7.1
oldest   the floors of pyproject.toml: the package's tests and all notebooks
newest   the newest versions that the registry has: the same

Each makes .venv-NAME with the newest Python of 3.13, 3.12 and 3.11 that is found and for which all of the versions have
builds, torch a CPU build. Where there is none of the wanted torch, the one of requirements.txt stays, and the output
says so; --any-build takes the registry's, which brings several gigabytes of CUDA. --smoke takes a minute: it lays the
other versions over the Python that runs this, torch stays, and runs one chapter and the widgets.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.13", "3.12", "3.11")
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
PACKAGE = ("tests/layers/test_*.py", "tests/lab/test_*.py", "tests/classroom/test_exercises*.py")
NOTEBOOKS = "tests/book/test_notebooks.py::test_runs"
SMOKE = (
    "tests/lab/test_explorer.py::test_widget_redraws_when_its_controls_move",
    "tests/lab/test_explorer.py::test_in_a_kernel_both_forms_are_offered",
    f"{NOTEBOOKS}[02-how-it-works]",
)


class Environment(NamedTuple):
    """The versions that are not left to pip, and the tests besides the notebooks."""

    pins: list[str]
    tests: tuple[str, ...]


ENVIRONMENTS = {
    "colab": Environment(
        re.findall(r"(?m)^[\w-]+==\S+", (ROOT / "tools" / "colab-versions.txt").read_text()),
        ("tests/lab/test_explorer*.py",),
    ),
    "oldest": Environment([line.replace(">=", "==") for line in DEPENDENCIES], PACKAGE),
    "newest": Environment([], PACKAGE),
}


def find_python(version: str) -> str | None:
    """A program that is this version of Python: on the path, or kept by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for program in (f"python{version}", *map(str, pyenv.glob(f"{version}.*/bin/python"))):
        if shutil.which(program) and subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return program
    return None


def has_builds(python: str, pins: list[str], any_build: bool) -> bool:
    """Whether pip finds all of these for this Python, and a CPU build of torch (on Linux its version ends in +cpu)."""
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    answer = subprocess.run([*command, "--only-binary=:all:", "--report", "-", *pins], capture_output=True, text=True)
    if answer.returncode:
        return False
    versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(answer.stdout)["install"]}
    return any_build or sys.platform != "linux" or versions["torch"].endswith("+cpu")


def choose(name: str, any_build: bool = False) -> tuple[str, list[str]]:
    """The Python and the pins: the wanted torch where it has a build, else the one of requirements.txt."""
    pins = ENVIRONMENTS[name].pins
    wanted = next((pin for pin in pins if pin.startswith("torch==")), "torch")
    ours = re.search(r"(?m)^torch==\S+", (ROOT / "requirements.txt").read_text())[0]
    programs = [program for program in map(find_python, PYTHONS) if program]
    for torch in (wanted, ours):
        chosen = [torch, *(pin for pin in pins if pin != wanted)]
        for program in programs:
            if has_builds(program, chosen, any_build):
                return program, chosen
    raise SystemExit(f"None of {', '.join(programs) or 'no Pythons'} has builds of all versions. Is there a network?")


def python_of(folder: str | Path) -> Path:
    """The Python of a virtual environment."""
    return Path(folder, "Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip_install(python: str | Path, *arguments: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *arguments]
    if subprocess.run(command).returncode:
        raise SystemExit(f"pip could not install {' '.join(arguments)}. Is there a network?")


def run(python: str | Path, tests: list[str], **variables: str) -> int:
    """Run tests and notebooks, and say with which versions."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"} | variables
    command = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-q"]
    result = subprocess.run([*command, *tests], cwd=ROOT, env=environment).returncode
    names = sorted({re.split("[=>]", line)[0] for line in (*DEPENDENCIES, *ENVIRONMENTS["colab"].pins)})
    code = "import sys, importlib.metadata as m; print('\\nThis ran with Python', sys.version.split()[0]);"
    subprocess.run([python, "-c", f"{code} [print(name, m.version(name)) for name in {names}]"], env=environment)
    return result


def smoke(name: str) -> int:
    """One chapter, in a quick run, and the widgets, with the other versions before the packages of this Python."""
    wanted = [line for line in (*DEPENDENCIES, "ipykernel", *ENVIRONMENTS[name].pins) if not line.startswith("torch")]
    tests = ["-n", "0", *SMOKE]  # too few for more processes
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        ours, others = sysconfig.get_path("purelib"), sysconfig.get_path("purelib", "venv", {"base": folder})
        Path(others, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")  # pip installs what differs
        python = python_of(folder)
        pip_install(python, "--upgrade", *wanted)
        return run(python, tests, BNCOURSE_QUICK="1")


def full(name: str, any_build: bool) -> int:
    """An environment of its own, the tests and every notebook."""
    program, pins = choose(name, any_build)
    print(f"{name}: {program}", *pins, sep="\n  ", flush=True)
    folder = ROOT / f".venv-{name}"
    subprocess.run([program, "-m", "venv", "--clear", folder], check=True)
    python = python_of(folder)
    pip_install(python, *pins, "ipykernel", "-e", f"{ROOT}[test]")
    subprocess.run([python, "-m", "tools.notebooks"], cwd=ROOT)  # side by side; below, each says whether it failed
    tests = [str(path) for pattern in ENVIRONMENTS[name].tests for path in sorted(ROOT.glob(pattern))]
    return run(python, [*tests, NOTEBOOKS])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ENVIRONMENTS)
    parser.add_argument("--smoke", action="store_true", help="a minute's test of the versions around torch")
    parser.add_argument("--any-build", action="store_true", help="take a CUDA build of torch where there is no other")
    options = parser.parse_args()
    sys.exit(smoke(options.name) if options.smoke else full(options.name, options.any_build))
