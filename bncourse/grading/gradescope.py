"""An autograder for Gradescope: one zip with the package, the cases and the two scripts that Gradescope starts.

Gradescope unpacks it to /autograder/source, runs setup.sh once, and for each submission run_autograder, which reads
/autograder/submission and writes /autograder/results/results.json
(https://gradescope-autograders.readthedocs.io/en/latest/specs/). It has not been tried there.
"""

import json
import os
import zipfile
from importlib.metadata import requires
from pathlib import Path

import bncourse
from bncourse.exercises import EXERCISES
from bncourse.grading.assignment import Assignment
from bncourse.grading.report import EXPLANATIONS, Record

SETUP = """#!/usr/bin/env bash
set -e
apt-get update && apt-get install -y python3 python3-venv util-linux
python3 -m venv /autograder/venv
# The CPU build is smaller: write here the command that https://pytorch.org/get-started/locally/ shows for it.
/autograder/venv/bin/pip install torch
/autograder/venv/bin/pip install -r /autograder/source/requirements.txt
"""
RUN = """#!/usr/bin/env bash
root=${AUTOGRADER:-/autograder}
python=${PYTHON:-$root/venv/bin/python}
PYTHONPATH=$root/source "$python" -m bncourse.grading.gradescope "$root"
"""


def needed() -> list[str]:
    """What the package needs, but for torch, which setup.sh installs first."""
    found = [line for line in requires("bncourse") or [] if "extra ==" not in line]
    return [line for line in found if not line.startswith("torch")]


def write_autograder(assignment: Assignment, out: Path) -> None:
    """Write the zip."""
    package = Path(bncourse.__file__).parent
    files = {
        "setup.sh": SETUP.encode(),
        "run_autograder": RUN.encode(),
        "requirements.txt": "\n".join(needed()).encode(),
        "autograder.json": assignment.path.read_bytes(),
    }
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files[f"bncourse/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            member.external_attr = (0o755 if name in ("setup.sh", "run_autograder") else 0o644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)


def results(record: Record, assignment: Assignment) -> dict:
    """What Gradescope shows: a test for each exercise's cases, public and hidden, and the explanation by hand."""
    tests = []
    for question in assignment.questions:
        title = EXERCISES[question.name].title if question.name in EXERCISES else question.name
        outcomes = record.outcomes.get(question.name, [])
        lines = []
        for case, outcome in zip(question.cases, outcomes, strict=False):
            if not case.hidden:
                lines.append(f"{'passed' if outcome.passed else 'FAILED'}: {case.name}")
                lines += [f"    {text}" for text in (outcome.message, outcome.hint and f"Hint: {outcome.hint}") if text]
        hidden = [o.passed for case, o in zip(question.cases, outcomes, strict=False) if case.hidden]
        lines += [f"further cases passed: {sum(hidden)} of {len(hidden)}"] * bool(hidden)
        tests.append(
            {
                "name": f"{title} ({question.name})",
                "score": record.points(question.name),
                "max_score": question.points,
                "output": "\n".join(lines) or "not graded",
            }
        )
    output = [EXPLANATIONS[record.status], *filter(None, [record.note])]
    if record.reason and not any(o.message and o.message in record.reason for q in record.outcomes.values() for o in q):
        output.append(record.reason)
    explained = sum(question.explanation.points for question in assignment.questions if question.explanation)
    if explained:
        output.append(f"Your explanations are worth {explained:g} more points; a person grades them.")
    return {"tests": tests, "output": "\n".join(output), "score": sum(record.points(q) for q in record.scores)}


def grade_submission(root: Path) -> None:
    """Grade what lies in ROOT/submission and write ROOT/results/results.json, whatever happens."""
    import tempfile

    from bncourse.grading.command import grade_folder

    target = root / "results" / "results.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    assignment = Assignment.read(root / "source" / "autograder.json")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "submissions"
        place.mkdir()
        os.symlink((root / "submission").resolve(), place / "student", target_is_directory=True)
        (record,) = grade_folder(place, assignment, Path(folder) / "out" / "grades.csv", jobs=1)
    target.write_text(json.dumps(results(record, assignment), indent=1), encoding="utf-8")


if __name__ == "__main__":
    import sys

    grade_submission(Path(sys.argv[1]))
