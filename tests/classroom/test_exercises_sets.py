"""The notebooks that make.py makes: solutions score all points, what students get scores none, and nothing leaks."""

import ast
import importlib.util
import inspect
import json
import shutil

import pytest
from exercise_sets import NAMES, ROOT, code_cells, make
from fixed_creatures import KINDS, spoiled
from torch import nn

import bncourse
from bncourse.exercises import EXERCISES, CheckFailed, check
from bncourse.grading.assignment import Assignment
from bncourse.grading.worker import run_case
from tools.solutions import lay_out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("otter")
    return make(tmp_path_factory.mktemp("made"))


def run(path):
    """Run a notebook's cells in one namespace; returns it and the checks that failed."""
    namespace, failed = {}, []
    for source in code_cells(path):
        try:
            exec(source, namespace)
        except CheckFailed as error:
            failed.append(str(error).split(":")[0])
    return namespace, failed


def score(assignment, namespace):
    return {
        question.name: question.score([run_case(c.source, namespace, 30.0)["passed"] for c in question.cases])
        for question in assignment.questions
    }


@pytest.mark.parametrize("name", NAMES)
def test_solution_scores_every_point(made, name):
    namespace, failed = run(made / "private" / name / "solution.ipynb")
    assignment = Assignment.read(made / "private" / name / "autograder.json")
    assert not failed
    assert score(assignment, namespace) == {question.name: question.points for question in assignment.questions}


def test_solutions_can_stand_in_the_book(made, tmp_path, monkeypatch):
    """In the edition for those who learn alone, whose build stops at a line that is too long."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    cells = pytest.importorskip("cells")
    for name in NAMES:
        shutil.copy(made / "private" / name / "solution.ipynb", tmp_path / f"{name}.ipynb")
    lay_out(tmp_path)
    for path in tmp_path.iterdir():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert not cells.too_wide(cells.as_taught(notebook)), path.name


@pytest.mark.parametrize("name", NAMES)
def test_what_students_get_scores_nothing(made, name):
    namespace, failed = run(made / "students" / f"{name}.ipynb")
    assignment = Assignment.read(made / "private" / name / "autograder.json")
    assert failed == [question.name for question in assignment.questions]  # every check runs, and fails
    assert set(score(assignment, namespace).values()) == {0.0}


def test_no_case_of_the_zoo_gives_points_to_a_layer_of_torch_or_to_the_bug_itself(made):
    assignment = Assignment.read(made / "private" / "ex-04-bug-zoo" / "autograder.json")
    for theirs in (nn.BatchNorm2d, nn.BatchNorm1d, nn.GroupNorm, bncourse.BatchNorm2d):
        answers = {name: type(name, (theirs,), {}) for name in ("Sleepless", "Dizzy", "Clinging", "BatchNorm")}
        points = score(assignment, answers)
        assert set(points.values()) == {0.0}, (theirs, points)
    by_input = spoiled("zoo-mode", "if self.training:", "if self.training or x.requires_grad:")
    (question,) = (question for question in assignment.questions if question.name == "zoo-mode")
    hidden = [case.source for case in question.cases if case.hidden]
    assert not any(run_case(source, {"Sleepless": by_input}, 30.0)["passed"] for source in hidden)


def test_every_exercise_is_in_one_set_and_has_hidden_cases(made):
    questions = [q for name in NAMES for q in Assignment.read(made / "private" / name / "autograder.json").questions]
    assert sorted(question.name for question in questions) == sorted(EXERCISES)
    for question in questions:
        public = [case.name for case in question.cases if not case.hidden]
        assert public == [case.name for case in EXERCISES[question.name].cases]
        assert len(public) < len(question.cases)


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_is_the_one_that_is_made(made, name):
    committed = ROOT / "book" / "exercises" / f"{name}.ipynb"
    assert committed.read_bytes() == (made / "students" / f"{name}.ipynb").read_bytes(), "run `make exercises`"


@pytest.mark.parametrize("name", NAMES)
class TestStudentNotebook:
    def read(self, name):
        return json.loads((ROOT / "book" / "exercises" / f"{name}.ipynb").read_text(encoding="utf-8"))

    def test_imports_nothing_but_torch_and_the_course(self, name):
        imported = set()
        for source in code_cells(ROOT / "book" / "exercises" / f"{name}.ipynb"):
            for node in ast.walk(ast.parse("\n".join(line for line in source.splitlines() if "%pip" not in line))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module.split(".")[0])
        assert imported <= {"importlib", "math", "torch", "bncourse"}

    def test_checks_may_fail_and_nothing_else(self, name):
        for cell in self.read(name)["cells"]:
            is_check = "".join(cell["source"]).startswith("check(")
            assert ("raises-exception" in cell["metadata"].get("tags", [])) == is_check

    def test_holds_no_solution_and_no_trace_of_otter(self, name, made):
        text = json.dumps(self.read(name))
        assert "SOLUTION" not in text and "otter" not in text and "HIDDEN" not in text
        solution = {line for source in code_cells(made / "private" / name / "solution.ipynb") for line in lines(source)}
        student = {line for source in code_cells(ROOT / "book/exercises" / f"{name}.ipynb") for line in lines(source)}
        assert len(solution - student) >= 5  # every set's solutions have more lines of their own

    def test_every_hint_is_folded(self, name):
        text = "".join("".join(cell["source"]) for cell in self.read(name)["cells"] if cell["cell_type"] == "markdown")
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>Hint")
        assert text.count("<details>") >= 3


def lines(source):
    return {line.strip() for line in source.splitlines() if line.strip()}


def test_solutions_and_hidden_cases_are_not_committed_into_the_book():
    for path in (ROOT / "book").rglob("*"):
        assert path.name not in ("solution.ipynb", "autograder.json")
    assert "_build/" in (ROOT / ".gitignore").read_text().split()


class TestInstructorsGuide:
    GUIDE = (ROOT / "book" / "instructors-guide.md").read_text(encoding="utf-8")

    def test_lists_every_exercise_as_it_is(self):
        rows = {line for line in self.GUIDE.splitlines() if line.startswith("| `") and line.count("|") == 7}
        assert rows == {
            f"| `{e.name}` | {e.title} | {e.chapter} | {e.level} | {e.points} | {e.minutes} |"
            for e in EXERCISES.values()
        }

    def test_gives_the_points_of_each_set(self, made):
        for name in NAMES:
            points = Assignment.read(made / "private" / name / "autograder.json").points
            assert f"(exercises/{name}.ipynb), {points:g} points" in self.GUIDE

    def test_shows_a_report_as_it_is(self):
        shown = self.GUIDE.split("```text\n", 1)[1].split("\n```", 1)[0]
        with pytest.raises(CheckFailed) as failure:
            check(
                "standardize",
                lambda x, dims, eps: (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True) + eps).sqrt(),
            )
        assert str(failure.value).startswith(shown)


def test_the_notebook_shows_the_creatures_as_the_check_knows_them():
    shown = "\n".join(code_cells(ROOT / "book" / "exercises" / "ex-04-bug-zoo.ipynb"))
    for kind in KINDS.values():
        assert inspect.getsource(kind).strip() in shown


def test_points_and_hidden_cases_stand_above_each_exercise(made):
    for name in NAMES:
        notebook = json.loads((made / "students" / f"{name}.ipynb").read_text())
        headings = ["".join(cell["source"]) for cell in notebook["cells"] if "".join(cell["source"]).startswith("## ")]
        for heading, question in zip(
            headings, Assignment.read(made / "private" / name / "autograder.json").questions, strict=True
        ):
            hidden = sum(case.hidden for case in question.cases)
            explained = question.explanation.points if question.explanation else 0
            assert f"Worth {question.points + explained:g} point" in heading and f"and {hidden} more" in heading
            assert ("all or nothing" in heading) == question.all_or_nothing
            assert ("for your explanation" in heading) == bool(explained)
            assert not explained or explained == question.points


def test_a_notebook_that_somebody_worked_in_is_not_overwritten(made, tmp_path):
    make = importlib.util.spec_from_file_location("make", ROOT / "instructor" / "make.py")
    module = importlib.util.module_from_spec(make)
    make.loader.exec_module(module)
    path = tmp_path / f"{NAMES[0]}.ipynb"
    original = module.nbformat.read(made / "students" / path.name, 4)
    module.write_student(original, path)
    newer = module.nbformat.from_dict(original)
    newer.cells[0].source += " More."
    module.write_student(newer, path)  # nobody has worked in it
    assert not path.with_suffix(".new.ipynb").exists() and "More." in path.read_text()
    solved = module.nbformat.read(path, 4)
    solved.cells[-1].source = "my_answer = 42"
    module.nbformat.write(solved, path)
    module.write_student(original, path)
    assert "my_answer" in path.read_text() and path.with_suffix(".new.ipynb").exists()
