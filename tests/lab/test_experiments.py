"""Intervals, comparisons and claims, against textbook numbers and against what must fail."""

import numpy as np
import pytest
import torch

from bncourse.claims import claim, statements
from bncourse.experiments import compare, interval
from bncourse.training import History


def test_interval_is_students_t():
    """Student's t table: the two-sided 95% point at 4 degrees of freedom is 2.776."""
    i = interval([1, 2, 3, 4, 5])
    assert i.mean == 3 and i.count == 5
    assert i.standard_error == pytest.approx(np.sqrt(2.5 / 5))
    assert i.high - i.mean == pytest.approx(2.776 * i.standard_error, rel=1e-3)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(7, 3, size=(4000, 5))
    covered = np.mean([i.low < 7 < i.high for i in map(interval, draws)])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_differences_are_paired():
    """What both variants share, however large, drops out of the difference."""
    shared = np.random.default_rng(0).normal(0, 100, 5)
    result = compare({"a": lambda seed: shared[seed], "b": lambda seed: shared[seed] + 1})
    difference = result.difference("b", "a")
    assert difference.mean == pytest.approx(1) and difference.standard_error == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("seeds", [(0,), (1, 1), ()])
def test_compare_needs_different_seeds(seeds):
    with pytest.raises(ValueError, match="seeds"):
        compare({"a": float}, seeds=seeds)


def test_interval_needs_two_samples():
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        interval([1.0])


def test_an_interval_is_of_one_number_for_each_seed():
    """A curve for each seed would count as so many seeds and spread over its own length."""
    curves = compare({"a": lambda seed: [seed, 10.0 * seed], "b": lambda seed: [1, seed]})
    for wrong in (
        lambda: interval([[1, 2], [3, 4]]),
        lambda: curves.interval("a"),
        lambda: curves.difference("a", "b"),
    ):
        with pytest.raises(ValueError, match=r"samples .*\((2|5), 2\)"):
            wrong()
    assert curves._repr_markdown_() is None


@pytest.mark.parametrize(
    ("variants", "error", "named"),
    [
        ({"a": float, "b": 3}, TypeError, "3 for 'b'"),
        ({"a": lambda seed: None}, TypeError, "'a' .*NoneType for seed 0"),
        ({"a": lambda seed: [0.0] * (seed + 1)}, ValueError, r"'a' .*\(2,\) after \(1,\)"),
    ],
)
def test_compare_names_a_bad_variant_at_once(variants, error, named):
    with pytest.raises(error, match=named):
        compare(variants)


def test_the_statements_are_the_37_of_the_source():
    groups = {"P": 6, "A": 4, "T": 5, "R": 4, "I": 2, "L": 1, "V": 4, "S": 5, "D": 2, "M": 4}
    assert list(statements()) == [f"{letter}{n}" for letter, count in groups.items() for n in range(1, count + 1)]


def test_claim_shows_its_facts(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    claim("P3", "holds", "Rates < this are larger.", interval([2, 3, 4]), above=1, unit="times")
    (data, metadata) = shown.pop()
    facts = metadata["bncourse_claim"]
    assert facts["id"] == "P3" and facts["count"] == 3 and facts["margin"] == pytest.approx(2 / np.sqrt(1 / 3))
    assert "&lt; this" in data["text/html"] and "3 seeds" in data["text/plain"]


@pytest.mark.parametrize("threshold", [{"above": 3}, {"below": 3}, {"above": 3.5}, {"below": 2.5}])
def test_a_claim_that_is_not_so_fails(threshold):
    with pytest.raises(AssertionError, match="P1"):
        claim("P1", "holds", "Three.", interval([2, 3, 4]), **threshold)


@pytest.mark.parametrize(
    ("above", "heading"), [(1, "P1: holds on cifar10."), (3, "P1: not so on cifar10; on digits: holds.")]
)
def test_on_other_data_a_claim_that_is_not_so_is_a_finding(monkeypatch, above, heading):
    """The numbers of this cell are the learner's, not the book's: they are shown, and the notebook goes on."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    claim("P1", "holds", "Three.", interval([2, 3, 4]), above=above, dataset="cifar10")
    (data, metadata) = shown.pop()
    assert data["text/plain"].startswith(heading)
    assert metadata["bncourse_claim"]["supported"] == (above == 1)


@pytest.mark.parametrize("above", [1, 5])
def test_a_quick_run_settles_nothing(monkeypatch, above):
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    claim("P1", "holds", "Three.", interval([2, 3, 4]), above=above)
    (data, metadata) = shown.pop()
    assert "quick run" in data["text/plain"] and "quick run" in data["text/html"]
    assert metadata["bncourse_claim"]["supported"] is False


def test_a_claim_about_nothing_measurable_fails():
    with pytest.raises(AssertionError):
        claim("P1", "holds", "Not a number.", float("nan"), above=0)


def test_an_undecided_effect_must_be_small():
    with pytest.raises(AssertionError, match="4 standard errors"):
        claim("P1", "undecided here", "Large.", interval([9.9, 10, 10.1]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("Z9", "holds"), "got 'Z9'"),
        (("P1", "true"), "got 'true'"),
        (("P1", "holds"), "above and below"),
    ],
)
def test_claim_names_what_is_wrong(arguments, named):
    with pytest.raises(ValueError, match=named):
        claim(*arguments, "Text.", 1.0)


@pytest.mark.parametrize(
    "result", [History([0.5]), "fast", [[1], [1, 2]], torch.ones(2, requires_grad=True), {"a": 1}], ids=range(5)
)
def test_a_result_that_is_no_number_is_named(result):
    with pytest.raises(TypeError, match=r"'slow' must return a number .* for seed 3"):
        compare({"slow": lambda seed: result}, seeds=(3, 4))
