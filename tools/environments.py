#!/usr/bin/env python3
"""Try the course with other versions than the pinned ones.

usage: python tools/environments.py colab|oldest|newest [--plan | --smoke] [--python 3.11] [--any-build]

colab    what Colab has (its published freeze): all notebooks, and the explorers as widgets of ipywidgets 7.7.1
oldest   the floors of pyproject.toml: the package's tests and all notebooks
newest   the newest versions that the registry has: the same

Each makes .venv-NAME with the newest Python of 3.13, 3.12 and 3.11 that is found and for which all of the versions have
builds, torch a CPU build. Where there is none of the wanted torch, the one of requirements.txt stays, and the output
says so; --any-build takes the registry's, which brings several gigabytes of CUDA. --plan stops before anything is
installed. --smoke takes a minute: it lays the other versions over the Python that runs this, torch stays, and runs one
chapter and the widgets.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.13", "3.12", "3.11")
COLAB = {  # from the freeze that Colab publishes, as of 2026-08-19
    "torch": "2.11.0",
    "numpy": "2.1.3",
    "matplotlib": "3.10.0",
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
    "ipywidgets": "7.7.1",
    "traitlets": "5.7.1",
    "scikit-learn": "1.6.1",
}
SMOKE = (
    "tests/lab/test_explorer.py::test_every_explorer_follows_its_widgets",
    "tests/lab/test_explorer.py::test_in_a_kernel_both_forms_are_offered",
    "book/02-how-it-works.ipynb",
)
PACKAGE_ONLY = ("book", "build", "house", "browser", "environments", "grading", "instructor")  # not about versions


class Plan(NamedTuple):
    """What an environment is made of."""

    python: str
    pins: dict[str, str]
    notes: list[str]


def floors() -> dict[str, str]:
    """The oldest versions that pyproject.toml allows, padded to three numbers: 2.4 is 2.4.0."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = {}
    for line in wanted:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()
        found[name] = ".".join([*version.split("."), "0", "0"][:3])
    return found


def pinned(name: str) -> str:
    """The version in requirements.txt."""
    return re.search(rf"(?m)^{re.escape(name)}==(\S+)$", (ROOT / "requirements.txt").read_text())[1]


def pythons(version: str) -> Iterator[str]:
    """Programs that are this version of Python: on the path, or kept by pyenv."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        names = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
        for name in names:
            if name.startswith(version + "."):
                prefix = subprocess.run(["pyenv", "prefix", name], capture_output=True, text=True).stdout.strip()
                candidates.append(f"{prefix}/bin/python")
    for program in filter(None, candidates):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([program, "-c", code], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip() == version:
            yield program


def offered_torch(python: str, packages: list[str], any_build: bool) -> str | None:
    """The version of torch that pip would install with these packages; None if one has no build for this Python.

    On Linux a CPU build is one whose version ends in +cpu; without ``any_build`` no other counts.
    """
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    command += ["--only-binary=:all:", "--report", "-", *packages]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        return None
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(answer.stdout)["install"]}
    usable = any_build or platform.system() != "Linux" or found["torch"].endswith("+cpu")
    return found["torch"].removesuffix("+cpu") if usable else None


def versions(name: str) -> dict[str, str]:
    """The pins of an environment."""
    return {"colab": COLAB, "oldest": floors(), "newest": {}}[name]


def make_plan(name: str, only: str | None = None, any_build: bool = False) -> Plan:
    """Choose the Python and the pins: the wanted torch where it has a build, else the one of requirements.txt."""
    wanted = versions(name)
    programs = {version: next(pythons(version), None) for version in ((only,) if only else PYTHONS)}
    notes = [f"Python {version} is not on this machine" for version, program in programs.items() if not program]
    others = [f"{package}=={version}" for package, version in wanted.items() if package != "torch"]
    first = f"torch=={wanted['torch']}" if "torch" in wanted else "torch"
    for torch in (first, f"torch=={pinned('torch')}"):
        for version, program in programs.items():
            found = program and offered_torch(program, [torch, *others], any_build)
            if found:
                if torch != first and "torch" in wanted:
                    notes.append(f"torch stays at {found}: no CPU build of {wanted['torch']} was found")
                return Plan(program, wanted | {"torch": found}, notes)
            if program and torch != first:
                notes.append(f"Python {version}: not all of these versions have a (CPU) build for it")
    raise SystemExit("\n".join([*notes, "No Python to try this with. Is there a network?"]))


def new_environment(python: str, folder: Path, packages: list[str]) -> Path:
    """Make the environment; gives back its Python, or ends where pip fails."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    if subprocess.run(install).returncode:
        raise SystemExit(f"pip could not install {' '.join(packages)}. Is there a network?")
    return program


def install(name: str, plan: Plan) -> Path:
    """The whole environment: the pins, and what the tests need."""
    pins = [f"{package}=={version}" for package, version in plan.pins.items()]
    return new_environment(plan.python, ROOT / f".venv-{name}", [*pins, "ipykernel", "-e", f"{ROOT}[test]"])


def lay_over(name: str, folder: Path) -> Path:
    """The environment's versions over the packages of the Python that runs this; torch and the tests' tools are its."""
    pins = versions(name)
    names = dict.fromkeys([*floors(), "ipykernel", *pins])
    wanted = [f"{package}=={pins[package]}" if package in pins else package for package in names if package != "torch"]
    python = new_environment(sys.executable, folder, wanted)
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    Path(packages, "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return python


def run_tests(python: Path, tests: list[str]) -> int:
    """Tests and notebooks, in that environment."""
    command = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--nbval-lax", "--nbval-current-env", "-q"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run([*command, *tests], cwd=ROOT, env=environment).returncode


def all_tests(name: str, python: Path) -> list[str]:
    """The package's tests where versions matter (in Colab's environment the explorers'), and every notebook."""
    from_toc = subprocess.run([python, ROOT / "tools" / "toc.py"], capture_output=True, text=True, check=True)
    tests = sorted(map(str, (ROOT / "tests").rglob("test_*.py")))
    tests = [path for path in tests if not any(word in Path(path).stem for word in PACKAGE_ONLY)]
    if name == "colab":
        tests = [path for path in tests if "explor" in Path(path).stem]
    return [*tests, *from_toc.stdout.split()]


def show_versions(python: Path) -> None:
    names = sorted({*floors(), *COLAB})
    code = "import sys, importlib.metadata as m; print('Python', sys.version.split()[0]); "
    code += f"[print(name, m.version(name)) for name in {names}]"
    subprocess.run([python, "-c", code], check=True)


def smoke(name: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        python = lay_over(name, Path(folder) / "environment")
        result = run_tests(python, list(SMOKE))
        print(f"\n{name}, a smoke test, ran with:", flush=True)
        show_versions(python)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("colab", "oldest", "newest"))
    parser.add_argument("--plan", action="store_true", help="say what would be installed, and stop")
    parser.add_argument("--smoke", action="store_true", help="a minute's test of the versions around torch")
    parser.add_argument("--python", choices=PYTHONS, help="this version only")
    parser.add_argument("--any-build", action="store_true", help="take a CUDA build of torch where there is no other")
    options = parser.parse_args()
    if options.smoke:
        return smoke(options.name)
    plan = make_plan(options.name, options.python, options.any_build)
    print(f"{options.name}: {plan.python}", *(f"{name} {pin}" for name, pin in plan.pins.items()), sep="\n  ")
    print(*plan.notes, sep="\n", flush=True)
    if options.plan:
        return 0
    python = install(options.name, plan)
    result = run_tests(python, all_tests(options.name, python))
    print(f"\n{options.name} ran with:", flush=True)
    show_versions(python)
    print(*plan.notes, sep="\n")
    return result


if __name__ == "__main__":
    sys.exit(main())
