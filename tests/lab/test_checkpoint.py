"""Interrupted work goes on: the same numbers bit for bit, and a clear error for what is not the same work."""

import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from bncourse.data import Examples
from bncourse.experiments import compare
from bncourse.training import fit


# Dropout draws random numbers in every step, and BatchNorm's buffers and the optimizer's memory must be kept too.
def make_model(width=8):
    torch.manual_seed(1)
    hidden = [nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*hidden, nn.Linear(width, 3))


def make_examples(count, seed):
    random = torch.Generator().manual_seed(seed)
    return Examples(torch.randn(count, 5, generator=random), torch.randint(3, (count,), generator=random))


TRAIN, TEST = make_examples(80, 1), make_examples(40, 2)
RUN = {"batch_size": 16, "optimizer": "adam", "learning_rate": 0.01, "accumulate": 2}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("BNCOURSE_DEVICE", "cpu")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def on_step(steps):
        if steps == step:
            raise Interrupted

    return on_step


def assert_same(model, history, other_model, other_history):
    assert history == other_history
    for (name, value), (_, other) in zip(model.state_dict().items(), other_model.state_dict().items(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", torch.optim.RMSprop])
@pytest.mark.parametrize("step", [1, 5, 9])  # in the first epoch of three steps, the second, and at a last step
def test_a_resumed_run_equals_an_uninterrupted_one(path, optimizer, step):
    options = RUN | {"optimizer": optimizer}
    whole = make_model()
    expected = fit(whole, TRAIN, TEST, epochs=4, **options)
    with pytest.raises(Interrupted):
        fit(make_model(), TRAIN, TEST, epochs=4, **options, on_step=interrupt_at(step), checkpoint=path)
    resumed = make_model()
    if step > 3:
        nn.init.zeros_(resumed[0].weight)  # whatever the model was, the file decides
    torch.manual_seed(99)
    before, steps = torch.get_rng_state(), []
    history = fit(resumed, TRAIN, TEST, epochs=4, **options, on_step=steps.append, checkpoint=path)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(resumed, history, whole, expected)
    assert steps[0] == 3 * ((step - 1) // 3) + 1 and steps[-1] == 12


def killed(code, last):
    """Run a process until it has printed the line ``last``, and kill it, so that nothing of it can clean up."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == last:
            process.kill()
            break
    process.stdout.close()
    assert process.wait(30) != 0


def test_a_killed_run_goes_on(path, tmp_path):
    code = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_checkpoint import RUN, TEST, TRAIN, fit, make_model

        def slowly(steps):
            print(steps, flush=True)
            time.sleep(0.05)

        fit(make_model(), TRAIN, TEST, epochs=60, **RUN, on_step=slowly, checkpoint={str(path)!r})
    """
    killed(code, 17)
    whole, resumed, steps = make_model(), make_model(), []
    expected = fit(whole, TRAIN, TEST, epochs=8, **RUN)
    history = fit(resumed, TRAIN, TEST, epochs=8, **RUN, on_step=steps.append, checkpoint=path)
    assert steps[0] == 16, "five epochs were kept"
    assert_same(resumed, history, whole, expected)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_finished_run_is_only_read_and_a_longer_one_goes_on(path):
    whole, resumed = make_model(), make_model()
    expected = fit(whole, TRAIN, TEST, epochs=3, **RUN)
    fit(make_model(), TRAIN, TEST, epochs=2, **RUN, checkpoint=path)
    kept, steps = path.read_bytes(), []
    again = fit(make_model(), TRAIN, TEST, epochs=2, **RUN, on_step=steps.append, checkpoint=path)
    assert again.loss == expected.loss[:6] and steps == [] and path.read_bytes() == kept
    assert_same(resumed, fit(resumed, TRAIN, TEST, epochs=3, **RUN, checkpoint=path), whole, expected)
    with pytest.raises(ValueError, match=r"epochs must be at least 3, got 2"):
        fit(make_model(), TRAIN, TEST, epochs=2, **RUN, checkpoint=path)


def test_a_diverged_run_stays_so(path):
    broken = TRAIN[0].clone(), TRAIN[1]
    broken[0][len(TRAIN[1]) // 2] = float("nan")
    first = fit(make_model(), broken, TEST, epochs=3, **RUN, checkpoint=path)
    steps = []
    again = fit(make_model(), broken, TEST, epochs=3, **RUN, on_step=steps.append, checkpoint=path)
    assert again.diverged and steps == [] and len(again.loss) == len(first.loss)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": make_model(9)}, [r"0\.weight", r"\[8, 5\]", r"\[9, 5\]"]),
        ({"model": nn.Sequential(*make_model(), nn.BatchNorm1d(3))}, [r"5\.running_mean"]),
        ({"seed": 3}, ["seed=3", "got 0"]),
        ({"learning_rate": 0.02}, [r"optimizer=.*0\.02", r"got .*0\.01"]),
        ({"optimizer": "sgd"}, ["optimizer=.SGD", "got .Adam "]),
        ({"optimizer": torch.optim.Adamax}, ["optimizer=.Adamax", "got .Adam "]),
        ({"batch_size": 8}, ["batch_size=8", "got 16"]),
        ({"mixed_precision": True}, ["mixed_precision=True", "got False"]),
        ({"train": make_examples(64, 1)}, [r"train=\[64, 5\]", r"got \[80, 5\]"]),
        ({"test": TEST}, [r"test=\[40, 5\]", "got None"]),
    ],
    ids=range(10),
)
def test_another_model_or_run_is_named_and_nothing_is_changed(path, change, words):
    first = {"model": make_model(), "train": TRAIN} | RUN
    fit(**first, epochs=1, checkpoint=path)
    kept, other = path.read_bytes(), {"model": make_model()} | change
    model = other["model"].eval()
    weights = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(ValueError, match="(?s)checkpoint must.*" + ".*".join(words)) as raised:
        fit(**first | other, epochs=2, checkpoint=path)
    assert str(path) in str(raised.value) and path.read_bytes() == kept and not model.training
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


class Runs:
    def __reduce__(self):
        return (os.system, ("echo this file ran code",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "state_dict", "code", "folder"])
def test_a_damaged_file_is_named_and_runs_nothing(path, damage, capfd):
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "code": pickle.dumps(Runs())}
    path.unlink()
    if damage == "state_dict":
        torch.save(make_model().state_dict(), path)
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"checkpoint must be a file that fit wrote, got .*run\.pt"):
        fit(make_model(), TRAIN, epochs=2, **RUN, checkpoint=path)
    assert "ran code" not in capfd.readouterr().out


def variants(calls, stop_after=None):
    """Names are not only words: chapters compare 0.1 with None, and pairs."""

    def result(name, seed):
        if len(calls) == stop_after:
            raise Interrupted
        calls.append((name, seed))
        return np.random.default_rng(seed).normal(size=3) / (1 if name == "a" else 3)

    return {name: lambda seed, name=name: result(name, seed) for name in ("a", ("b", None), 0.1, "0.1")}


def test_compare_goes_on_where_it_was(path):
    expected = compare(variants([]), seeds=range(4))
    with pytest.raises(Interrupted):
        compare(variants([], stop_after=13), seeds=range(4), checkpoint=path)
    calls = []
    resumed = compare(variants(calls), seeds=range(4), checkpoint=path)
    assert calls == [("0.1", 1), ("0.1", 2), ("0.1", 3)]
    assert resumed.values.keys() == expected.values.keys()
    for name, values in expected.values.items():
        np.testing.assert_array_equal(resumed.values[name], values)
    more = []
    compare(variants(more), seeds=range(5), checkpoint=path)
    assert more == [(name, 4) for name in expected.values]


def test_compare_keeps_numbers_that_are_not_finite(path):
    odd = {"a": lambda seed: float("nan") if seed else float("inf")}
    for _ in range(2):
        values = compare(odd, seeds=(0, 1), checkpoint=path).values["a"]
        assert values[0] == np.inf and np.isnan(values[1])


def test_a_killed_comparison_goes_on(path):
    code = f"""
        import time
        from bncourse.experiments import compare

        def run(seed):
            print(seed, flush=True)
            time.sleep(0.1)
            return seed / 3

        compare({{"a": run}}, seeds=range(100), checkpoint={str(path)!r})
    """
    killed(code, 4)
    calls = []
    resumed = compare({"a": lambda seed: calls.append(seed) or seed / 3}, seeds=range(6), checkpoint=path)
    assert calls == [4, 5]
    assert resumed.values["a"].tolist() == [seed / 3 for seed in range(6)]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"a": 3}', """{"'a'": {"0": 1.0""", """{"'a'": {"0": "hello"}}""", """{"'a'": {"x": 1}}"""],
)
def test_a_damaged_file_of_results_is_named(path, content):
    path.write_text(content)
    with pytest.raises(ValueError, match=r"checkpoint must be a file that compare wrote, got .*run\.pt"):
        compare({"a": float}, seeds=range(2), checkpoint=path)
    assert path.read_text() == content


def test_results_of_another_comparison_are_named(path):
    compare({"dropout": float}, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint must be of the variants 'a', 'b', got 'dropout' in .*run\.pt"):
        compare({"a": float, "b": float}, checkpoint=path)


@pytest.mark.parametrize(
    "work",
    [
        lambda path: fit(make_model(), TRAIN, **RUN, checkpoint=path),
        lambda path: compare(variants([]), checkpoint=path),
    ],
    ids=["fit", "compare"],
)
def test_a_place_that_cannot_be_written_is_named(path, work):
    path.write_text("a file, where a folder is needed")
    with pytest.raises(OSError, match=r"run\.pt/kept"):
        work(path / "kept")
