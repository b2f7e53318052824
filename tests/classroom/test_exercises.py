"""Right answers pass, wrong ones get the hint meant for them, and a check leaves no trace."""

import contextlib
import copy
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fixed_creatures import FIXES
from right_answers import RIGHT
from torch import nn
from torch.nn import functional as F
from wrong_answers import DECIDED, WRONG, conv_norm_relu, layer

import bncourse
from bncourse.exercises import EXERCISES, CheckFailed, check, creatures, run_case
from bncourse.exercises.bug_zoo import carries_graph, listed
from bncourse.exercises.compare import CaseFailed, expect

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    pytest.param(name, answer, hint, id=f"{name} {number}: {hint}")
    for name, pairs in WRONG.items()
    for number, (answer, hint) in enumerate(pairs)
]
ANSWERS = [
    pytest.param(name, answer, id=f"{name} {number}")
    for name, answers in RIGHT.items()
    for number, answer in enumerate(answers)
]


@pytest.mark.parametrize(("name", "answer", "hint"), CASES)
def test_wrong_answer_gets_its_hint(name, answer, hint):
    with pytest.raises(CheckFailed) as failure:
        check(name, answer)
    if not hint:  # wrong, and nobody's usual mistake
        return
    hints = [part for part in " ".join(str(failure.value).split()).split("Hint:")[1:]]
    assert any(hint in part for part in hints), str(failure.value)


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_right_answer_passes(name, answer):
    check(name, answer)


def test_every_exercise_has_three_right_and_five_wrong_answers():
    assert set(WRONG) == set(RIGHT) == set(EXERCISES)
    assert not [name for name, answers in WRONG.items() if len(answers) < 5]
    assert not [name for name, answers in RIGHT.items() if len(answers) < 3]


def test_exercises_cover_the_chapters_and_say_what_they_take():
    assert set(range(1, 14)) <= {exercise.chapter for exercise in EXERCISES.values()} <= set(range(1, 16))
    for exercise in EXERCISES.values():
        assert exercise.level in ("easy", "medium", "hard") and 5 <= exercise.minutes <= 60
        names = [case.name for case in exercise.cases]
        assert len(names) == len(set(names)) >= 2


def test_no_class_wins_two_exercises():
    zoo = [name for name in FIXES if name in RIGHT] + ["layer"]
    ours = [RIGHT[name][0] for name in zoo]
    for answer in [nn.BatchNorm2d, bncourse.BatchNorm2d, nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm, *ours]:
        passed = []
        for name in zoo:
            with contextlib.suppress(CheckFailed):
                check(name, answer)
                passed.append(name)
        assert len(passed) == (answer in ours), (answer, passed)


def test_a_check_leaves_no_trace(capsys):
    def state():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    def noisy(x, dims, eps):
        torch.manual_seed(random.randrange(100))
        np.random.rand(3)  # noqa: NPY002
        return torch.dropout(x, 0.5, True)

    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    before = state()
    with torch.no_grad():
        check("layer", layer())
        with pytest.raises(CheckFailed):
            check("standardize", noisy)
        assert not torch.is_grad_enabled()
    assert state() == before


def test_a_check_does_not_depend_on_what_the_notebook_set():
    with torch.no_grad(), torch.device("meta"):
        check("layer", layer())


def test_a_check_says_the_same_every_time():
    reports = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.raises(CheckFailed) as failure:
            check("standardize", lambda x, dims, eps: torch.randn_like(x))
        reports.append(str(failure.value))
    assert reports[0] == reports[1]


def stub(x, dims, eps):
    """Standardize."""
    ...


@pytest.mark.parametrize("answer", [None, ..., stub], ids=["None", "...", "an empty function"])
def test_an_empty_answer_is_told_so(answer):
    with pytest.raises(CheckFailed, match="not answered yet"):
        check("standardize", answer)


def test_an_error_names_the_learners_line():
    def broken(x, dims, eps):
        return x.means(dims)

    with pytest.raises(CheckFailed, match=r"AttributeError(.|\n)*return x\.means\(dims\)"):
        check("standardize", broken)


def test_an_interrupt_is_not_taken_for_a_failure():
    def endless(x, dims, eps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("standardize", endless)


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="batch-norm"):
        check("batchnorm", None)
    with pytest.raises(KeyError, match="three steps"):
        run_case("running-statistics", "no such case", None)


def test_run_case_is_what_check_runs():
    run_case("layer", "the gradient of x", layer())
    with pytest.raises(CaseFailed, match="held constant"):
        run_case("layer", "the gradient of x", layer(detached=True))


def test_a_notebook_shows_the_report_and_no_traceback(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("from bncourse.exercises import check\ncheck('signal', lambda gain, depth: gain * depth)")
    shown = capsys.readouterr().out
    assert shown.startswith("signal: 3 of 3 cases fail")
    assert "Hint:" in shown and "Traceback" not in shown and "exercise.py" not in shown


class TestExpect:
    def test_close_values_pass(self):
        expect(1.00001, 1.0, "x")
        expect(torch.ones(2, dtype=torch.float64), torch.ones(2), "x")
        expect(np.ones(2), torch.ones(2), "x")

    @pytest.mark.parametrize(
        ("got", "expected", "message"),
        [
            (torch.ones(2, 1), torch.ones(2), r"should have shape \(2,\), got \(2, 1\)"),
            (2.0, 1.0, "should be 1, got 2"),
            (
                torch.tensor([1.0, float("nan")]),
                torch.ones(2),
                "should be finite, got NaN or infinity at 1 of 2 values",
            ),
            (
                torch.tensor([[1.0, 5.0]]),
                torch.ones(1, 2),
                r"should be 1 at index \(0, 1\), where the difference is largest, got 5",
            ),
            (None, 1.0, "is a return missing"),
            (True, 1.0, "got a bool"),
            (SimpleNamespace(), 1.0, "got a SimpleNamespace"),
        ],
    )
    def test_wrong_values_are_described(self, got, expected, message):
        with pytest.raises(CaseFailed, match=message):
            expect(got, expected, "x")


FOLLOWING = {
    "batch-norm": (
        "standardize",
        "lambda x, dims, eps: x - x.mean(dims, keepdim=True)",
        "def answer(x, weight, bias, eps):\n"
        "    shape = (1, -1, *[1] * (x.dim() - 2))\n"
        "    normal = standardize(x, (0, *range(2, x.dim())), eps)\n"
        "    return weight.reshape(shape) * normal + bias.reshape(shape)",
    ),
    "forgotten-eval": (
        "verdict",
        "lambda low, high, d: 'holds' if low > 0 else 'no'",
        "def answer(train, seeds, d):\n"
        "    low, high, _ = given(train, seeds, d)\n"
        "    return low, high, verdict(low, high, d)",
    ),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_a_mistake_in_an_earlier_answer_is_not_counted_again(name):
    earlier, wrong, source = FOLLOWING[name]
    names = {"given": RIGHT["forgotten-eval"][0]}
    exec(f"{earlier} = {wrong}\n{source}", names)
    check(name, names["answer"])
    assert names[earlier] is not None and names[earlier].__name__ == "<lambda>"  # put back


def failures(name, answer):
    """The check's report, from its failing cases to their hints, in one line."""
    with pytest.raises(CheckFailed) as failure:
        check(name, answer)
    return " ".join(str(failure.value).split())


def test_a_hint_says_nothing_that_is_not_so():
    """What decides the mode is named only where it does; a class taken for a layer is not told of ==."""
    by_input = failures("layer", DECIDED[2][0])
    assert "is_grad_enabled" not in by_input and "an input that needs one" in by_input
    assert "Gradients decide" not in failures("layer", DECIDED[5][0]) + failures("layer", DECIDED[6][0])
    untouched = failures("zoo-bias", conv_norm_relu(lambda norm: not isinstance(norm, nn.BatchNorm2d)))
    assert "2 of 3 cases fail" in untouched and "misses subclasses" not in untouched


def test_words_agree_with_their_number():
    assert carries_graph(["a"]) == "after a training step a carries a graph."
    assert carries_graph(["a", "b"]) == "after a training step a and b carry a graph."
    assert [listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a or b", "a, b or c"]


def test_the_layer_that_never_lets_go_does_what_its_exercise_says():
    """It trains; a copy raises, and so does a gradient in evaluation mode."""
    layer, x = creatures.Clinging(3, 2), torch.randn(5, 3)
    for _ in range(3):
        layer(layer(x, 0), 1).square().sum().backward()
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(layer)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        layer.eval()(x, 0).sum().backward()


def test_the_check_that_cannot_fail_passes_a_layer_without_any_gradient():
    notebook = json.loads((ROOT / "book/exercises/ex-04-bug-zoo.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = {"torch": torch, "F": F}
    exec(next(cell for cell in cells if cell.startswith("def gradient_is_right")), names)
    assert names["gradient_is_right"](lambda x: F.batch_norm(x.detach(), None, None, training=True) + 0 * x)
