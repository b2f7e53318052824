"""An edition: the checks, the hidden cases and the notebooks of a course in one file, fixed for a semester.

``bncourse edition --out spring.zip`` makes it; ``bncourse grade --edition spring.zip`` grades with it, whatever has
become of the course since: the grader and the checks that run are those in the file.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import bncourse
from bncourse.grading.assignment import find_assignment
from bncourse.grading.names import BadArgument

ABOUT = "edition.json"
RUN = """import sys
sys.path.insert(0, sys.argv.pop(1))
from bncourse.cli import main
raise SystemExit(main(sys.argv[1:]))"""
COMPUTE = ("torch", "numpy")  # what the checks compute with


def write_edition(out: Path, course: Path = Path()) -> None:
    """Write the file.

    Raises:
        BadArgument: ``make exercises`` has not been run in the course.
    """
    made = sorted((course / "instructor" / "_build").glob("*/*"))
    if not any(path.name == "autograder.json" for path in made):
        raise BadArgument("edition must be made where `make exercises` has been run, got a folder without autograders")
    package = Path(bncourse.__file__).parent
    files = {f"bncourse/{path.relative_to(package).as_posix()}": path for path in sorted(package.rglob("*"))}
    files |= {f"instructor/_build/{path.parent.name}/{path.name}": path for path in made}
    files |= {f"notebooks/{path.name}": path for path in sorted((course / "book" / "exercises").glob("*.ipynb"))}
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps({name: version(name) for name in ("bncourse", *COMPUTE)}))
        for name, path in files.items():
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, name)


def grade_with(edition: Path, arguments: Sequence[str], assignment: str) -> int:
    """Run ``bncourse grade`` of an edition with the arguments of the command line; returns its exit code.

    Raises:
        BadArgument: no such edition.
        FileNotFoundError: it has no such assignment.
    """
    if not zipfile.is_zipfile(edition):
        raise BadArgument(f"edition must be a file that `bncourse edition` made, got {edition}")
    with tempfile.TemporaryDirectory(prefix="bncourse-grade-") as folder:
        with zipfile.ZipFile(edition) as archive:
            if ABOUT not in archive.namelist():
                raise BadArgument(f"edition must be a file that `bncourse edition` made, got {edition}")
            archive.extractall(folder)
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        for name in COMPUTE:
            if about[name] != version(name):
                print(f"Warning: the edition was made with {name} {about[name]}, but this is {version(name)}.")
        print(f"Edition: bncourse {about['bncourse']}, {edition}", flush=True)
        path = find_assignment(assignment, Path(folder) / "instructor" / "_build").path
        command = [sys.executable, "-c", RUN, folder, "grade", *arguments, "--assignment", str(path)]
        return subprocess.run(command).returncode
