"""Intervals and comparisons, against textbook numbers, a simulation, other processes, and what must fail."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from bncourse import exploration
from bncourse.experiments import Runs, Splits, compare, confirmation_seeds, interval, one_thread, share
from bncourse.exploration import choose, choose_at_once
from bncourse.training import History, fit


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
    result = compare({"a": lambda seed: shared[seed], "b": lambda seed: shared[seed] + 1}, range(5))
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
    curves = compare({"a": lambda seed: [seed, 10.0 * seed], "b": lambda seed: [1, seed]}, range(5))
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
        ({"a": lambda seed: None}, TypeError, "'a' .*NoneType for seed 10"),
        ({"a": lambda seed: [0.0] * (seed - 9)}, ValueError, r"'a' .*\(2,\) after \(1,\)"),
    ],
)
def test_compare_names_a_bad_variant_at_once(variants, error, named):
    with pytest.raises(error, match=named):
        compare(variants)


@pytest.mark.parametrize(
    "result", [History([0.5]), "fast", [[1], [1, 2]], torch.ones(2, requires_grad=True), {"a": 1}], ids=range(5)
)
def test_a_result_that_is_no_number_is_named(result):
    with pytest.raises(TypeError, match=r"'slow' must return a number .* for seed 3"):
        compare({"slow": lambda seed: result}, seeds=(3, 4))


def test_the_interval_allows_for_splits_that_overlap():
    """Nadeau and Bengio 2003, section 3.2.2: 1/J + n2/n1 in place of 1/J. At 1,400 and 397 it is 1.96 times as wide."""
    values, splits = np.random.default_rng(0).normal(size=10), Splits("digits", train=1400, test=397)
    plain, corrected = interval(values), interval(Runs(values, range(10, 20), splits.overlap))
    assert corrected.standard_error == pytest.approx(np.sqrt(0.1 + 397 / 1400) * values.std(ddof=1))
    assert corrected.standard_error / plain.standard_error == pytest.approx(1.96, abs=0.005)


def nearest_means(train, labels, dims):
    """A classifier of few dimensions, the mean of each class, fitted to the first ``dims`` of them."""
    means = np.stack([train[labels == k, :dims].mean(0) for k in range(2)])
    return lambda x: np.square(x[:, None, :dims] - means).sum(2).argmin(1)


@pytest.mark.parametrize("n_train", [1400, 256])
def test_coverage_of_the_corrected_interval(n_train):
    """Ten splits of 1,797 examples of a known population: how often the intervals have the population's difference."""
    random, covered, seeds = np.random.default_rng(0), [], range(10, 20)
    centres, overlap = np.zeros((2, 6)), Splits("digits", test=397).overlap
    centres[1] = 0.7

    def draw(count):
        labels = random.integers(0, 2, count)
        return centres[labels] + random.normal(size=(count, 6)), labels

    def difference(train, test):
        few, many = (nearest_means(*train, dims) for dims in (4, 6))
        return ((many(test[0]) == test[1]) * 1.0 - (few(test[0]) == test[1])).mean()

    truth = np.mean([difference(draw(n_train), draw(20_000)) for _ in range(40)])
    for _ in range(150):
        x, y = draw(1797)
        found = []
        for order in (random.permutation(1797) for _ in seeds):
            train, test = order[:n_train], order[1400:]
            found.append(difference((x[train], y[train]), (x[test], y[test])))
        plain, corrected = interval(found), interval(Runs(found, seeds, overlap))
        covered.append([plain.low < truth < plain.high, corrected.low < truth < corrected.high])
    plain, corrected = np.mean(covered, axis=0)
    print(f"n = {n_train}: plain {plain:.0%}, corrected {corrected:.0%}")
    assert plain < 0.88 and corrected > 0.91


def test_a_share_has_its_exact_interval():
    """Clopper and Pearson's table: 8 of 10 is 44.4 to 97.5%, and 10 of 10 is 69.2 to 100%."""
    assert share([True] * 8 + [False] * 2)[:3] == pytest.approx((0.8, 0.4439, 0.9748), abs=1e-4)
    assert share([True] * 10)[:3] == pytest.approx((1, 0.6915, 1), abs=1e-4)
    with pytest.raises(ValueError, match="successes must have at least one run, got none"):
        share([])


def test_runs_keep_their_seeds_through_arithmetic():
    runs = compare({"a": lambda seed: [seed, 1.0], "b": lambda seed: [2.0 * seed, 1.0]}, splits=Splits("digits"))
    difference = np.log2(100 * (runs["b"] - runs["a"])[:, 0])
    assert difference.seeds == confirmation_seeds() and difference.overlap == pytest.approx(397 / 1797)
    assert isinstance(difference.mean(), float) and runs.stack(["a", "b"]).shape == (10, 2, 2)


def test_a_run_starts_from_its_seed_and_leaves_the_random_state_and_the_threads_alone():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    seen = compare({"draws": lambda seed: torch.rand(()).item(), "threads": lambda seed: torch.get_num_threads()})
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert set(seen["threads"]) == {1} and seen["draws"][0] == torch.rand((), generator=generator(10)).item()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_one_thread_restores_the_setting_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError), one_thread():
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


TRAINING = """
import torch
from bncourse import experiments
from bncourse.data import load
from bncourse.models import fc_network
from bncourse.training import fit

data = load("digits", train=512, test=1)

def trained(seed):
    torch.manual_seed(seed)
    model = fc_network([784, 256, 256, 10], "batch relu dropout")
    return fit(model, data.train, epochs=1, batch_size=256, seed=seed).loss

def show(losses):
    print([loss.hex() for loss in losses])

show(experiments.compare({"a": trained}, (10, 11))["a"].flatten().tolist())
if torch.get_num_threads() > 1:  # and without the harness
    show([loss for seed in (10, 11) for loss in trained(seed)])
"""
LOAD = "while True: pass"


def test_the_numbers_are_the_same_with_any_threads_processes_and_load(capsys):
    """One thread and no process but this one, then two of both while another process is busy."""
    with one_thread():
        exec(TRAINING, {})
    one = capsys.readouterr().out.split("\n")[0]
    settings = {"OMP_NUM_THREADS": "2", "LOKY_MAX_CPU_COUNT": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    environment, command = os.environ | settings, [sys.executable, "-c", TRAINING]
    load = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        load.kill()
    two, without = run.stdout.split("\n")[:2]
    assert two == one
    assert without != one, "if threads changed nothing, this test would see nothing"


@pytest.mark.parametrize("wrong", ["5", "9-5", "a-b", "3-3"])
def test_the_variable_for_seeds_is_a_range(monkeypatch, wrong):
    monkeypatch.setenv("BNCOURSE_SEEDS", wrong)
    with pytest.raises(ValueError, match=f"BNCOURSE_SEEDS must be a range of seeds such as '100-109', got '{wrong}'"):
        confirmation_seeds()


def test_as_many_seeds_again_follow(monkeypatch):
    monkeypatch.setenv("BNCOURSE_SEEDS", "100-109")
    assert confirmation_seeds(times=2) == tuple(range(100, 120))


class Spy(torch.nn.Module):
    """Notes which examples come, and may drop values besides."""

    def __init__(self, drop):
        super().__init__()
        self.layers, self.seen = torch.nn.Sequential(torch.nn.Dropout(drop), torch.nn.Linear(1, 2)), []

    def forward(self, x):
        self.seen += x[..., 0].flatten().tolist()
        return self.layers(x)


def test_dropout_does_not_change_the_order_of_the_examples():
    examples = torch.arange(12.0).view(12, 1), torch.zeros(12, dtype=torch.long)
    orders = []
    for drop in (0.0, 0.5):
        spy = Spy(drop)
        fit(spy, examples, epochs=3, batch_size=4, seed=3)
        orders.append(spy.seen)
    assert orders[0] == orders[1] and orders[0][:12] != orders[0][12:24]


def test_nothing_chosen_is_an_error_that_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"name must have been chosen among \[1, 2\] by tools.explore, got '99 nothing'"
    ):
        choose("99 nothing", {1: float, 2: float})


def test_an_exploration_chooses_what_does_best_on_its_own_seeds(monkeypatch, tmp_path):
    monkeypatch.setenv("BNCOURSE_SEEDS", "0-4")
    monkeypatch.setenv("BNCOURSE_CHOSEN", str(tmp_path / "chosen"))
    values = {1: [0, 0, 9, 0, 0], 2: [2, 2, 2, 2, 2], 3: [1, 1, 1, 1, 1]}
    one = choose("one by one", {value: partial(lambda runs, seed: runs[seed], runs) for value, runs in values.items()})
    all_at_once = choose_at_once("at once", list(values), lambda seeds: [[values[v][s] for v in values] for s in seeds])
    assert one == all_at_once == 2
    kept = [json.loads(line) for line in (tmp_path / "chosen").read_text().splitlines()]
    assert [(row["name"], row["value"], row["among"]) for row in kept] == [
        ("one by one", 2, [1, 2, 3]),
        ("at once", 2, [1, 2, 3]),
    ]
    assert kept[0]["means"] == kept[1]["means"] == [1.8, 2, 1]


def test_what_was_explored_is_there_to_be_shown(monkeypatch):
    table = {"01 rate": {"value": 0.3, "among": [0.1, 0.3], "means": [1.0, 2.0]}}
    monkeypatch.setattr(exploration, "_chosen", lambda: table)
    assert exploration.explored("01 rate") == {0.1: 1.0, 0.3: 2.0}
    with pytest.raises(ValueError, match=r"name must have been chosen by tools.explore, got '99 nothing'"):
        exploration.explored("99 nothing")
