"""Progress is kept beside the notebook, counts what is solved, and says what comes next."""

import ast
import json

import pytest
from exercise_sets import NAMES, ROOT, code_cells

from bncourse.exercises import ANSWERS, EXERCISES, KEYS, CheckFailed, check, check_all, progress, set_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNCOURSE_PROGRESS", "1")
    return tmp_path


def output_std(gain, depth):
    return gain**depth


def test_progress_counts_what_is_solved(folder, capsys):
    progress()
    assert "Next: signal (How far does a signal get?), chapter 1" in capsys.readouterr().out
    check("signal", output_std)
    with pytest.raises(CheckFailed):
        check("warm-up", lambda fraction, momentum: 10)
    capsys.readouterr()
    progress()
    shown = capsys.readouterr().out
    assert "ex-01-normalizing-a-batch: 2 of 10 points" in shown and "✓ signal" in shown
    assert "warm-up              2 points, 0 of 3 cases" in shown or "1 of 3 cases" in shown
    assert "Next: standardize" in shown
    with pytest.raises(CheckFailed):
        check("signal", lambda gain, depth: gain * depth)  # what is solved stays solved
    assert json.loads((folder / ".bncourse-progress.json").read_text())["signal"] == [3, 3]


def test_a_damaged_file_is_none(folder, capsys):
    (folder / ".bncourse-progress.json").write_text('{"signal": 3')
    progress()
    assert "0 of 10 points" in capsys.readouterr().out
    check("signal", output_std)
    assert json.loads((folder / ".bncourse-progress.json").read_text()) == {"signal": [3, 3]}


def test_check_all_takes_what_is_defined(capsys):
    axes = {"batch_axes": (0, 2, 3), "layer_axes": (1, 2, 3), "instance_axes": (2, 3), "group_axes": (2, 3, 4)}
    check_all({"output_std": output_std, "steps_until": lambda fraction, momentum: 7, **axes})
    shown = capsys.readouterr().out
    assert "ok    signal: all cases pass" in shown and "ok    norm-axes" in shown and "FAIL  warm-up" in shown
    assert "group-norm: " not in shown and "Next: standardize" in shown


def test_nothing_is_kept_outside_a_notebook(folder, monkeypatch):
    monkeypatch.delenv("BNCOURSE_PROGRESS")
    monkeypatch.delitem(__import__("sys").modules, "ipykernel", raising=False)
    check("signal", output_std)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_notebooks(name):
    for source in code_cells(ROOT / "book" / "exercises" / f"{name}.ipynb"):
        if source.startswith("check("):
            exercise, answer = ast.parse(source).body[0].value.args
            used = [node.id for node in ast.walk(answer) if isinstance(node, ast.Name)]
            assert ANSWERS[exercise.value] == tuple(used) and set_of(exercise.value) == name
            assert (exercise.value in KEYS) == isinstance(answer, ast.Dict)
    assert set(ANSWERS) == set(EXERCISES)


def test_a_near_name_is_offered():
    with pytest.raises(KeyError, match="such as 'batch-norm' or"):
        check("batchnorm", None)


@pytest.fixture
def shell():
    from IPython.core.interactiveshell import InteractiveShell

    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("define", "checked", "wanted"),
    [
        ("f = lambda gain, depth: gain**depth", 'check("signal", f)', "call it output_std."),
        ("output_std = lambda gain, depth: gain**depth", 'check("signal", output_std)', ""),
        ("def g(gain, depth): return gain**depth\noutput_std = g", 'check("signal", output_std)', ""),
        ("output_std = ...\ndef g(gain, depth): return gain**depth", 'check("signal", g)', "call it output_std."),
        (
            "b, l, instance_axes, group_axes = (0, 2, 3), (1, 2, 3), (2, 3), (2, 3, 4)",
            'check("norm-axes", {"batch": b, "layer": l, "instance": instance_axes, "group": group_axes})',
            "call it batch_axes and layer_axes.",
        ),
    ],
)
def test_an_answer_under_another_name_is_told_that_it_will_not_be_graded(shell, capsys, define, checked, wanted):
    shell.run_cell("from bncourse.exercises import check")
    shell.run_cell(define)
    shell.run_cell(checked)
    shown = capsys.readouterr().out
    assert "cases pass" in shown and ("will not be graded" in shown) == bool(wanted) and wanted in shown
