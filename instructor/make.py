"""From each exercise source, make the student notebook, the solution notebook and the autograder.

    python instructor/make.py

A source, ``instructor/ex-*.py``, is a notebook in jupytext's percent format with otter's text markers. This script adds
what all exercises share (headings, points, the public cases of each check), lets otter strip the solutions and writes

    book/exercises/NAME.ipynb                    for students; committed
    instructor/_build/NAME/solution.ipynb        for instructors; never committed, never in the book
    instructor/_build/NAME/autograder.json       every case, the hidden ones included, for ``bncourse grade``

Needs the extra: pip install -e ".[instructor]".
"""

import argparse
import ast
import contextlib
import hashlib
import inspect
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
import otter.assign
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell
from otter.test_files.exception_test import ExceptionTestFile

from bncourse.exercises import EXERCISES, Exercise, creatures

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tools.repository import setup_cell  # noqa: E402 (the one place that knows how the package is installed)

ASSIGNMENT = """# ASSIGNMENT CONFIG
init_cell: false
export_cell: false
generate: false
tests:
    files: true
    ok_format: false
"""
ASK = "What is wrong, and in what situation would you notice?"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the student notebooks, solutions and autograders.")
    parser.add_argument("--students", type=Path, default=HERE.parent / "book/exercises", help="where notebooks go")
    parser.add_argument("--private", type=Path, default=HERE / "_build", help="where solutions and autograders go")
    arguments = parser.parse_args()
    for source in sorted(HERE.glob("ex-*.py")):
        make(source, arguments.students, arguments.private)


def make(source: Path, students: Path, private: Path) -> None:
    """Make one exercise set: NAME is the source's name without its ending."""
    name = source.stem
    with tempfile.TemporaryDirectory() as folder:
        master = Path(folder) / f"{name}.ipynb"
        nbformat.write(expand(jupytext.read(source)), master)
        with contextlib.redirect_stdout(io.StringIO()):
            otter.assign.main(str(master), str(Path(folder) / "dist"), no_pdfs=True, no_run_tests=True)
        dist = Path(folder) / "dist"
        student = tidy(nbformat.read(dist / "student" / master.name, 4), name)
        solution = tidy(nbformat.read(dist / "autograder" / master.name, 4), name)
        names = re.findall(r"^# name: (.+)$", source.read_text(), re.MULTILINE)
        questions = [autograder(dist / "autograder/tests" / f"{question}.py") for question in names]
    for question in questions:
        question["explanation"] = explanations(source).get(question["name"])
        question["given"] = given(student, question["name"])
    for cell in solution.cells:
        cell.source = without_prompts(cell.source)
        if "raises-exception" in cell.metadata.get("tags", ()):
            cell.metadata["tags"].remove("raises-exception")  # here a failing check is an error
    for folder in (students, private / name):
        folder.mkdir(parents=True, exist_ok=True)
    write_student(student, students / f"{name}.ipynb")
    nbformat.write(solution, private / name / "solution.ipynb")
    (private / name / "autograder.json").write_text(json.dumps({"name": name, "questions": questions}, indent=1))
    cases = sum(len(question["cases"]) for question in questions)
    points = sum(question["points"] + (question["explanation"] or {}).get("points", 0) for question in questions)
    print(f"{name}: {len(questions)} exercises, {cases} cases, {points:g} points")


def given(student: nbformat.NotebookNode, name: str) -> list[str]:
    """The cells of a question as students get them: who hands them in unchanged has not answered."""
    code = [cell.source for cell in student.cells if cell.cell_type == "code"]
    end = next(number for number, source in enumerate(code) if re.match(rf'check\(\s*"{name}"', source))
    begin = max((n + 1 for n in range(end) if code[n].startswith("check(")), default=0)
    return [source for source in code[begin:end] if re.match(r"(def|class) ", source)]


def write_student(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a student notebook, but never over one that somebody has worked in: then next to it."""
    notebook.metadata["bncourse"] = {"made": digest(notebook)}
    if path.exists():
        there = nbformat.read(path, 4)
        made = there.metadata.get("bncourse", {}).get("made")
        if digest(there) not in (made, digest(notebook)):
            path = path.with_suffix(".new.ipynb")
            print(f"{path.name}: somebody has worked in the notebook that is there, so the new one is next to it")
    nbformat.write(notebook, path)


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of what the cells say."""
    texts = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def expand(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Add to the source what every exercise has: a heading, points, and one test for each public case."""
    first_code = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(first_code, new_code_cell(setup_cell(), metadata={"tags": ["setup", "remove-cell"]}))
    cells, number, check = [new_raw_cell(ASSIGNMENT)], 0, None
    for cell in notebook.cells:
        cells.append(cell)
        if begins(cell, "QUESTION"):
            number += 1
            exercise = EXERCISES[re.search(r"^name: (.+)$", cell.source, re.MULTILINE)[1]]
            rest = notebook.cells[notebook.cells.index(cell) :]
            rest = rest[: next(i for i, other in enumerate(rest) if other.source.startswith("# END QUESTION"))]
            hidden = sum(other.source.startswith("# HIDDEN") for other in rest)
            explained = any(other.source.startswith("# EXPLANATION") for other in rest)
            points = exercise.points / (2 if explained else 1)
            about = about_points(exercise, points, hidden, explained, "all_or_nothing: true" in cell.source)
            cell.source += f"\npoints: {points:g}\ncheck_cell: false"
            cells.append(new_markdown_cell(f"## {number}. {exercise.title}\n\n{about}"))
        elif cell.cell_type == "raw" and cell.source.startswith("# EXPLANATION"):
            cells[-1] = new_markdown_cell(prompt(explanation(cell)))
        elif cell.cell_type == "code" and (found := re.match(r"(\w+) = ({.*})", cell.source, re.DOTALL)):
            cell.source = creature(found[1], ast.literal_eval(found[2]))
        elif cell.cell_type == "code" and cell.source.startswith("check("):
            check = ast.parse(cell.source).body[0].value
        elif begins(cell, "TESTS"):
            cells += public_cases(check)
    notebook.cells, notebook.metadata = cells, nbformat.from_dict(METADATA)
    return notebook


def creature(name: str, fixes: dict[str, str]) -> str:
    """A creature of the bug zoo: as it is for students; fixed by what the source replaces, for instructors."""
    given = fixed = inspect.getsource(getattr(creatures, name)).rstrip()
    for old, new in fixes.items():
        if fixed.count(old) != 1:
            raise ValueError(f"{name} must have what is fixed once, got {fixed.count(old)} times {old!r}")
        fixed = fixed.replace(old, new)
    prompt = f'""" # BEGIN PROMPT\n{given}\n""" # END PROMPT'
    return f"# BEGIN SOLUTION NO PROMPT\n{fixed}\n# END SOLUTION\n{prompt}"


def about_points(exercise: Exercise, points: float, hidden: int, explained: bool, all_or_nothing: bool) -> str:
    """What a student should know of an exercise before starting it."""
    public = len(exercise.cases)
    share = "all or nothing" if all_or_nothing else "shared equally"
    if exercise.weights:
        share = "shared equally except for " + ", ".join(f"{name} (x {w})" for name, w in exercise.weights.items())
    worth = f"{count(exercise.points, 'point')}" + (f": {points:g} for your explanation, {points:g}" * explained)
    return (
        f"*Chapter {exercise.chapter}, {exercise.level}, about {exercise.minutes} minutes. Worth {worth} for "
        f"passing {public + hidden} cases, {share}: {public} in the check, and {hidden} more at grading.*"
    )


def count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def explanations(source: Path) -> dict[str, dict]:
    """The rubric and two samples of each explanation, from the raw cells of a source."""
    found, name = {}, ""
    for cell in jupytext.read(source).cells:
        if begins(cell, "QUESTION"):
            name = re.search(r"^name: (.+)$", cell.source, re.MULTILINE)[1]
        elif cell.cell_type == "raw" and cell.source.startswith("# EXPLANATION"):
            texts = explanation(cell)
            found[name] = {"points": EXERCISES[name].points / 2, "prompt": prompt(texts), **texts}
            found[name].pop("ask", None)
    return found


def explanation(cell: nbformat.NotebookNode) -> dict[str, str]:
    """The texts of a raw cell: rubric, good and weak, and what is asked where that is not the usual question."""
    parts = re.findall(r"^(\w+): (.*(?:\n  .*)*)", cell.source, re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in parts}


def prompt(texts: dict[str, str]) -> str:
    """What the student notebook asks to be explained."""
    ask = texts.get("ask", ASK)
    return f"**Explain it.** {ask} Write one or two sentences of your own below this line.\n\n---\n"


def begins(cell: nbformat.NotebookNode, block: str) -> bool:
    return cell.cell_type == "raw" and cell.source.startswith(f"# BEGIN {block}")


def public_cases(check: ast.Call) -> list[nbformat.NotebookNode]:
    """One test cell for each case of ``check("name", answer)``."""
    name, answer = ast.literal_eval(check.args[0]), ast.unparse(check.args[1])
    parameters = ", ".join(dict.fromkeys(node.id for node in ast.walk(check.args[1]) if isinstance(node, ast.Name)))
    return [
        new_code_cell(
            f"def public_{i}({parameters}):\n"
            f"    {case.name!r}\n"
            f"    from bncourse.exercises import run_case\n"
            f"    run_case({name!r}, {case.name!r}, {answer})"
        )
        for i, case in enumerate(EXERCISES[name].cases, 1)
    ]


def autograder(tests: Path) -> dict:
    """A question as data, so that grading needs nothing but Python: see bncourse/grading/assignment.py."""
    question = ExceptionTestFile.from_file(str(tests))
    functions = [node for node in ast.parse(question.source).body if isinstance(node, ast.FunctionDef)]
    cases = []
    for case, function in zip(question.test_cases, functions, strict=True):
        function.decorator_list = []
        title = ast.get_docstring(function) or function.name.replace("_", " ")
        source = ast.unparse(function)
        cases.append({"name": title, "hidden": case.hidden, "points": case.points, "source": source})
    points, weights = round(sum(case["points"] for case in cases), 6), EXERCISES[question.name].weights
    shares = [weights.get(case["name"], 1) for case in cases]
    for case, share in zip(cases, shares, strict=True):
        case["points"] = points * share / sum(shares)
    return {"name": question.name, "points": points, "all_or_nothing": question.all_or_nothing, "cases": cases}


def tidy(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A notebook with no outputs, no metadata but tags, and the same cell ids every time."""
    notebook.metadata, notebook.nbformat_minor = nbformat.from_dict(METADATA), 5
    for number, cell in enumerate(notebook.cells):
        tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("otter")]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell.id = f"{name[:5]}-{number:03d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def without_prompts(source: str) -> str:
    """A solution without the marks that told otter what students get."""
    source = re.sub(r'^ *""" # BEGIN PROMPT\n.*?^ *""" +# END PROMPT\n?', "", source, flags=re.DOTALL | re.MULTILINE)
    source = re.sub(r"^ *# (BEGIN SOLUTION( NO PROMPT)?|END SOLUTION)\n?", "", source, flags=re.MULTILINE)
    return re.sub(r" *# SOLUTION$", "", source, flags=re.MULTILINE).rstrip()


if __name__ == "__main__":
    main()
