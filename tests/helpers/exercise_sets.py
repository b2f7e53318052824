"""The exercise sets as instructor/make.py makes them from the sources, fresh, for the tests."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "instructor").glob("ex-*.py"))


def make(folder: Path) -> Path:
    """Make all sets; students' notebooks go to FOLDER/students, the rest to FOLDER/private."""
    script = ROOT / "instructor" / "make.py"
    arguments = ["--students", folder / "students", "--private", folder / "private"]
    subprocess.run([sys.executable, script, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, text=True)
    return folder


def code_cells(path: Path) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
