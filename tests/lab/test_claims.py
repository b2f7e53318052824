"""The rule for verdicts, cell by cell; what a claim says; and what it refuses, each time by its name."""

import json
import warnings

import numpy as np
import pytest
import torch

from bncourse.claims import (
    card,
    changes,
    claim,
    exact,
    expected,
    holm,
    last_edition,
    less,
    more,
    overall,
    same,
    statements,
    summary,
    texts,
    units,
    verdict,
)
from bncourse.experiments import Interval, Runs, interval, share

SEEDS = range(10, 20)


def runs(mean, spread=0.01, seeds=SEEDS, **options):
    """Ten runs whose mean is exactly this one."""
    return Runs(mean + spread * np.linspace(-1, 1, len(seeds)), seeds, **options)


@pytest.fixture
def cards(monkeypatch):
    """What claims have shown: pairs of what a reader sees and the metadata."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    monkeypatch.setattr(card, "session", {})
    monkeypatch.setattr(card, "replicated", lambda: {"seeds": "100-109", "verdicts": {}})
    return shown


NOTHING, OPPOSITE = "no difference that matters", "the opposite"


@pytest.mark.parametrize(
    ("predicts", "low", "high", "found"),
    [
        ("more", 1.0, 3.0, ("holds", "")),  # the end may lie on the bound
        ("more", 0.99, 3.0, ("undecided here", "")),
        ("more", -5.0, 3.0, ("undecided here", "")),
        ("more", -5.0, 1.0, ("undecided here", "")),
        ("more", -0.99, 0.99, ("does not hold", NOTHING)),
        ("more", 0.2, 0.9, ("does not hold", NOTHING)),  # it excludes zero, and does not matter
        ("more", -1.0, 0.99, ("does not hold", "")),  # less than d, but how much less we do not know
        ("more", -5.0, -1.0, ("does not hold", OPPOSITE)),
        ("more", -5.0, -0.99, ("does not hold", "")),
        ("less", -3.0, -1.0, ("holds", "")),
        ("less", -3.0, -0.99, ("undecided here", "")),
        ("less", -0.99, 0.99, ("does not hold", NOTHING)),
        ("less", 1.0, 5.0, ("does not hold", OPPOSITE)),
        ("same", -0.99, 0.99, ("holds", "")),
        ("same", 0.2, 0.9, ("holds", "")),  # it excludes zero, and does not matter
        ("same", -0.5, 1.0, ("undecided here", "")),
        ("same", -1.0, 0.5, ("undecided here", "")),
        ("same", -5.0, 5.0, ("undecided here", "")),
        ("same", 1.0, 5.0, ("does not hold", "more")),
        ("same", -5.0, -1.0, ("does not hold", "less")),
        *((word, float("nan"), 1.0, ("not measurable", "")) for word in ("more", "less", "same")),
        ("more", 1.0, float("inf"), ("not measurable", "")),
    ],
)
def test_the_rule_cell_by_cell(predicts, low, high, found):
    assert verdict(predicts, low, high, d=1.0) == found


HOLDS, NOT, OPEN = "holds", "does not hold", "undecided here"


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ([HOLDS], HOLDS),
        ([HOLDS, HOLDS], HOLDS),
        ([NOT, HOLDS], NOT),  # the decisive finding is the first
        ([NOT, OPEN], NOT),
        ([OPEN, HOLDS], OPEN),
        ([OPEN, NOT], OPEN),
        ([HOLDS, NOT], "holds if"),
        ([HOLDS, OPEN], "holds if"),
        ([HOLDS, HOLDS, NOT], "holds if"),
    ],
)
def test_the_rule_for_a_statement(verdicts, found):
    assert overall(verdicts, ["", "this", "that"][: len(verdicts)]) == found


def test_a_finding_that_does_not_hold_needs_a_condition():
    with pytest.raises(ValueError, match="finding 3 must have a condition, since it does not hold"):
        overall([HOLDS, NOT, NOT], ["", "this", ""])


def test_holm_by_hand():
    """Holm 1979: the smallest of three levels counts three times, and none less than one before it."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})


def test_every_unit_has_its_smallest_effect_and_its_reason():
    assert units().keys() >= {"points", "nats", "ratio"}
    assert all(unit.d > 0 and len(unit.reason.split()) > 3 for unit in units().values())


def test_the_statements_are_the_37_of_the_source_and_then_those_of_the_literature():
    groups = {"P": 6, "A": 4, "T": 5, "R": 4, "I": 2, "L": 1, "V": 4, "S": 5, "D": 2, "M": 4, "F": 17}
    assert list(statements()) == [f"{letter}{n}" for letter, count in groups.items() for n in range(1, count + 1)]


FINDINGS = [finding for statement in statements().values() for finding in statement.findings]


def test_every_finding_has_a_sentence_for_each_outcome_and_a_condition():
    for statement in statements().values():
        first, *others = statement.findings
        assert not first.condition, first.name
        assert all(one.condition for one in others), statement.id
    for finding in FINDINGS:
        assert {"holds", "not"} <= finding.sentences.keys(), finding.name
        assert all(text.endswith(".") for word, text in finding.sentences.items() if word != "condition"), finding.name


def test_the_expected_verdicts_are_of_these_findings_and_each_statement_has_one():
    assert list(expected()) == [one.name for one in FINDINGS]
    for statement in statements().values():
        summary(statement, [expected()[one.name] for one in statement.findings])


def test_a_claim_says_what_it_found(cards):
    claim("S1.two", "points", more(runs(2.34, overlap=397 / 1797)))
    ((data, metadata),) = cards
    facts = metadata["bncourse_claim"]
    assert (facts["id"], facts["name"], facts["verdict"], facts["dataset"]) == ("S1", "S1.two", "holds", "digits")
    assert facts["count"] == 10 and facts["low"] < facts["mean"] < facts["high"]
    assert "2.3 points" in data["text/plain"] and "So: holds" in data["text/plain"]
    assert "10 seeds (10 to 19), each with a fresh split of the data" in data["text/plain"]
    assert "Predicted: more, by at least 1 point." in data["text/plain"]
    assert "<details>" in data["text/html"] and json.dumps(metadata, allow_nan=False)


def test_what_adding_up_rounded_numbers_leaves_is_printed_as_nothing(cards):
    claim("F10.recalibrated", "points", more(runs(7.6e-7)))
    assert "the difference is 0 points" in cards[0][0]["text/plain"]
    assert "Measured: 0 [-0.00" in cards[0][0]["text/plain"]


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (more(runs(3), runs(1)), "So: holds."),
        (less(runs(1), runs(3)), "So: holds."),
        (same(runs(1), runs(1.5)), "So: holds."),
        (same(runs(11), than=11), "So: holds."),
        (more(runs(0)), "So: does not hold (no difference that matters)"),
        (more(runs(-2)), "So: does not hold (the opposite)"),
        (more(runs(1, spread=5)), "So: undecided here"),
    ],
)
def test_predictions_over_seeds(cards, prediction, said):
    claim("S1.two", "points", prediction)
    assert said in cards[0][0]["text/plain"]


def test_the_last_finding_of_a_statement_brings_the_statements_verdict(cards):
    exact("T4.eval", 0)
    exact("T4.train", 3.2)
    assert "All in all" not in cards[0][0]["text/plain"]
    assert "All in all, T4 holds if the network is in eval mode." in cards[1][0]["text/plain"]


def test_exact_allows_ten_times_the_rounding_seen(cards):
    for difference in (0, 9e-7, -9e-7, 1.1e-6):
        exact("T4.eval", difference, rounding=1e-7)
    assert [metadata["bncourse_claim"]["verdict"] for _, metadata in cards] == ["holds"] * 3 + ["does not hold"]


def test_exact_takes_a_difference_that_carries_a_gradient_without_a_warning(cards):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning on a page stops the build
        exact("T4.eval", torch.zeros((), requires_grad=True), rounding=1e-7)
    assert cards[0][1]["bncourse_claim"]["verdict"] == "holds"


def test_on_other_data_a_difference_is_shown_and_nothing_is_raised(cards):
    assert expected()["P3.rates"] == "holds"
    claim("P3.rates", "powers of ten", more(runs(-1)), dataset="cifar10")
    said = cards[0][0]["text/plain"]
    assert "So: does not hold on cifar10 (the opposite); in the book, on digits: holds." in said


def test_a_diverged_run_on_other_data_is_not_measurable_and_valid_json(cards):
    claim("P3.rates", "powers of ten", more(Runs([0.9, float("nan"), 0.8], (10, 11, 12))), dataset="cifar10")
    (_, metadata) = cards[0]
    facts = metadata["bncourse_claim"]
    assert facts["verdict"] == "not measurable" and facts["mean"] is None
    assert json.dumps(metadata, allow_nan=False)


@pytest.mark.parametrize(("variable", "value"), [("BNCOURSE_QUICK", "1"), ("BNCOURSE_SEEDS", "0-4")])
def test_a_quick_run_and_an_exploration_settle_nothing(cards, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    seeds = range(5) if value == "0-4" else SEEDS
    claim("S1.two", "points", more(runs(5, seeds=seeds)))
    assert "which settles nothing" in cards[0][0]["text/plain"]
    assert cards[0][1]["bncourse_claim"]["verdict"] == "undecided here"


def test_a_verdict_that_other_seeds_do_not_confirm_is_printed_as_undecided(cards, monkeypatch):
    monkeypatch.setattr(card, "replicated", lambda: {"seeds": "100-109", "verdicts": {"S1.two": NOT}})
    claim("S1.two", "points", more(runs(5)))
    assert "So: undecided here (holds on these seeds, but does not hold on seeds 100-109)" in cards[0][0]["text/plain"]
    assert cards[0][1]["bncourse_claim"]["found"] == "holds"


def test_a_share_of_runs_is_judged_by_its_exact_interval(cards):
    claim("S1.two", "share of runs", more(share([True] * 10), than=0.5))
    assert cards[0][1]["bncourse_claim"]["verdict"] == "holds"
    assert 0 < cards[0][1]["bncourse_claim"]["level"] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Z9.nothing", "points", more(runs(1))), "name must begin with one of P1, .*, got 'Z9.nothing'"),
        (("P3.nothing", "points", more(runs(1))), "name must be one of P3.rates, got 'P3.nothing'"),
        (("P3.rates", "pounds", more(runs(1))), "P3.rates: unit must be one of points, .*, got 'pounds'"),
        (("P3.rates", "points", runs(1)), "P3.rates: prediction must be more"),
        (("P3.rates", "points", more([1.0, 2.0])), "P3.rates: measured must be Runs"),
        (("P3.rates", "points", more(runs(1)[:5])), "P3.rates: measured must be Runs"),
        (("P3.rates", "points", more(runs(1, seeds=range(3, 13)))), r"P3.rates: seeds must not be .*, got \[3, 4\]"),
        (("P3.rates", "points", more(runs(float("nan")))), "P3.rates: runs must give finite numbers"),
        (("P3.rates", "points", more(runs(float("inf")))), "P3.rates: runs must give finite numbers"),
    ],
)
def test_what_a_claim_refuses(arguments, message):
    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        claim(*arguments)


def test_seeds_of_two_comparisons_do_not_mix():
    with pytest.raises(ValueError, match="than must be of the same seeds"):
        more(runs(1), runs(1, seeds=range(30, 40)))


def test_an_outcome_without_its_sentence_is_named(cards):
    with pytest.raises(ValueError, match=r"T4\.eval: its file must have a sentence for 'undecided here'"):
        claim("T4.eval", "points", more(runs(1, spread=5)))


def test_a_number_that_is_not_there_is_named(monkeypatch):
    finding = texts.Finding("P3.rates", "P3", {"holds": "It is {factor} times as large."})
    monkeypatch.setattr(card, "finding", lambda name: finding)
    with pytest.raises(ValueError, match=r"P3.rates: a sentence must have .*, got \['factor'\]"):
        claim("P3.rates", "points", more(runs(3)))


def test_the_level_is_where_the_interval_touches_the_bound():
    """Against the interval itself, at the confidence that the level stands for."""
    from scipy import stats

    values = runs(3.0, spread=4)
    found = interval(values)
    level = card._level("more", found, 0.0, 1.0)
    low = found.mean - stats.t.ppf(1 - level / 2, 9) * found.standard_error
    assert low == pytest.approx(1.0)
    assert card._level("same", Interval(0.2, -0.1, 0.5, 0.1, 10), 0.0, 1.0) < 0.001


def test_the_book_is_compared_with_what_it_expects():
    found = {"name": "T4.eval", "kind": "exact", "mean": 0.5, "d": 0.0}
    assert not card.check([found | {"verdict": "holds"}], {"T4.eval": "holds"})
    (said,) = card.check([found | {"verdict": "does not hold"}], {"T4.eval": "holds"})
    assert said.startswith("T4.eval: the book expects 'holds', got 'does not hold'. Exact: the difference is 0.5;")


def test_every_verdict_that_differs_from_the_last_editions_has_its_reason():
    now = expected()
    differs = {(name, was, now.get(name, "gone")) for name, was in last_edition().items() if now.get(name) != was}
    newest = changes()[0].edition if changes() else ""
    assert {(one.finding, one.before, one.after) for one in changes() if one.edition == newest} == differs
    assert all(len(one.why.split()) > 4 and one.why.endswith(".") for one in changes())
