"""Interrupted work goes on: the same numbers bit for bit, and a clear error for what is not the same work."""

import errno
import json
import os
import pickle
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from bncourse.data import Examples
from bncourse.experiments import compare
from bncourse.training import fit


# Dropout draws random numbers in every step, and BatchNorm's buffers and the optimizer's memory must be kept too.
def make_model(width=8, activation=nn.ReLU):
    torch.manual_seed(1)
    hidden = [nn.Linear(5, width), nn.BatchNorm1d(width), activation(), nn.Dropout(0.3)]
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
    nn.init.zeros_(resumed[0].weight)  # whatever the model was, the file decides
    torch.manual_seed(99)
    steps = []
    history = fit(resumed, TRAIN, TEST, epochs=4, **options, on_step=steps.append, checkpoint=path)
    assert_same(resumed, history, whole, expected)
    assert steps[0] == 3 * ((step - 1) // 3) + 1 and steps[-1] == 12


def test_a_killed_process_goes_on(path, tmp_path):
    """A process is killed, so that nothing of it can clean up, and another one goes on from its file."""
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_checkpoint import RUN, TEST, TRAIN, fit, make_model

        def slowly(steps):
            print(steps, flush=True)
            time.sleep(0.05)

        fit(make_model(), TRAIN, TEST, epochs=60, **RUN, on_step=slowly, checkpoint={str(path)!r})
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 17:
            process.kill()
            break
    process.stdout.close()
    assert process.wait(30) != 0
    assert path.exists()
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
    again, steps = make_model(), []
    assert fit(again, TRAIN, TEST, epochs=2, **RUN, on_step=steps.append, checkpoint=path).loss == expected.loss[:6]
    assert steps == []
    assert_same(resumed, fit(resumed, TRAIN, TEST, epochs=3, **RUN, checkpoint=path), whole, expected)
    with pytest.raises(ValueError, match=r"epochs=2 is too few.*already has 3"):
        fit(make_model(), TRAIN, TEST, epochs=2, **RUN, checkpoint=path)


def test_a_diverged_run_stays_so(path):
    broken = TRAIN[0].clone(), TRAIN[1]
    broken[0][len(TRAIN[1]) // 2] = float("nan")
    first = fit(make_model(), broken, TEST, epochs=3, **RUN, checkpoint=path)
    assert first.diverged
    steps = []
    again = fit(make_model(), broken, TEST, epochs=3, **RUN, on_step=steps.append, checkpoint=path)
    assert again.diverged and steps == [] and len(again.loss) == len(first.loss)


def test_the_global_random_state_is_left_alone(path):
    with pytest.raises(Interrupted):
        fit(make_model(), TRAIN, epochs=3, **RUN, on_step=interrupt_at(5), checkpoint=path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = make_model()
    torch.manual_seed(5)
    fit(model, TRAIN, epochs=3, **RUN, checkpoint=path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (make_model(9), {}, [r"another model", "0.weight", r"\[8, 5\]", r"\[9, 5\]"]),
        (make_model(activation=nn.Tanh), {}, ["another model", "2 is ReLU", "Tanh"]),
        (make_model(), {"seed": 3}, ["another run", "seed is 0", "3"]),
        (make_model(), {"learning_rate": 0.02}, ["another run", "learning_rate is 0.01", "0.02"]),
        (make_model(), {"optimizer": "sgd"}, ["another run", "optimizer is adam", "sgd"]),
        (make_model(), {"batch_size": 8}, ["another run", "batch_size is 16", "8"]),
    ],
    ids=range(6),
)
def test_another_model_or_run_is_named_and_nothing_is_changed(path, model, options, words):
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    kept, weights = path.read_bytes(), [value.clone() for value in model.state_dict().values()]
    with pytest.raises(ValueError, match=".*".join([*words, "another path"])):
        fit(model, TRAIN, epochs=2, **RUN | options, checkpoint=path)
    assert path.read_bytes() == kept
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


def sgd(parameters, lr, momentum=0.9):
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def rmsprop(parameters, lr):
    return torch.optim.RMSprop(parameters, lr=lr)


def two_groups(parameters, lr):
    first, *others = parameters
    return torch.optim.SGD([{"params": [first]}, {"params": others}], lr=lr, momentum=0.9)


@pytest.mark.parametrize("other", [partial(sgd, momentum=0.5), partial(rmsprop), partial(two_groups)])
def test_another_optimizer_by_the_same_name_is_named(path, other):
    """A function that makes an optimizer says nothing about what it makes: every ``partial`` has the same name."""
    options = {"batch_size": 16, "learning_rate": 0.01}
    fit(make_model(), TRAIN, epochs=1, **options, optimizer=partial(sgd), checkpoint=path)
    model = make_model()
    weights = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(ValueError, match=r"another run: there the optimizer's groups is SGD.*another path"):
        fit(model, TRAIN, epochs=2, **options, optimizer=other, checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


def test_another_type_of_number_is_named(path):
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    with pytest.raises(ValueError, match=r"another model: there 0.weight is \[8, 5\] float32.*float64"):
        fit(make_model().double(), (TRAIN[0].double(), TRAIN[1]), epochs=2, **RUN, checkpoint=path)


def test_other_data_is_named(path):
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    with pytest.raises(ValueError, match=r"training images is \[80, 5\], here it is \[64, 5\]"):
        fit(make_model(), make_examples(64, 1), epochs=2, **RUN, checkpoint=path)


def test_other_data_of_the_same_shape_is_named(path):
    """MNIST and Fashion-MNIST differ in nothing but their numbers."""
    fit(make_model(), TRAIN, TEST, epochs=1, **RUN, checkpoint=path)
    others = make_examples(80, 3), (TRAIN[0], TRAIN[1].flip(0)), (TRAIN[0] * 2, TRAIN[1])
    for train in others:
        with pytest.raises(ValueError, match=r"another run: there the check sum of train is .* here it is"):
            fit(make_model(), train, TEST, epochs=2, **RUN, checkpoint=path)
    with pytest.raises(ValueError, match=r"another run: there the check sum of test is"):
        fit(make_model(), TRAIN, make_examples(40, 3), epochs=2, **RUN, checkpoint=path)
    strided = TRAIN[0].t().contiguous().t(), TRAIN[1]
    fit(make_model(), strided, TEST, epochs=2, **RUN, checkpoint=path)  # the same numbers, kept otherwise


class Runs:
    def __reduce__(self):
        return (os.system, ("echo this file ran code",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "state_dict", "code"])
def test_a_damaged_file_is_named_and_runs_nothing(path, damage, capfd):
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "code": pickle.dumps(Runs())}
    if damage == "state_dict":
        torch.save(make_model().state_dict(), path)
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"checkpoint=.*run\.pt.*damaged.*Remove it"):
        fit(make_model(), TRAIN, epochs=2, **RUN, checkpoint=path)
    assert "ran code" not in capfd.readouterr().out


@pytest.mark.parametrize("place", ["weights", "pickle", "end"])
def test_a_bit_that_changed_on_disk_is_found(path, place):
    """Without a look at the file's check sums such a run would go on, with other numbers."""
    model = make_model()
    fit(model, TRAIN, epochs=1, **RUN, checkpoint=path)
    whole = path.read_bytes()
    weights = model[0].weight.detach().numpy().tobytes()
    found = {"weights": weights, "pickle": b"num_batches_tracked", "end": b"PK\x05\x06"}
    at = whole.index(found[place])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"checkpoint=.*run\.pt.*damaged.*Remove it"):
        fit(make_model(), TRAIN, epochs=2, **RUN, checkpoint=path)


def test_a_full_disk_keeps_the_last_whole_file(path, tmp_path):
    resource = pytest.importorskip("resource")
    fit(make_model(), TRAIN, epochs=1, **RUN, checkpoint=path)
    kept, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"run\.pt"):
            fit(make_model(), TRAIN, epochs=2, **RUN, checkpoint=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == kept and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    steps = []
    with pytest.raises(OSError, match=r"run\.pt|results\.json"):
        fit(make_model(), TRAIN, epochs=1, **RUN, on_step=steps.append, checkpoint=tmp_path / "file" / "run.pt")
    assert steps == []


def variants(calls, stop_after=None):
    def result(name, seed):
        if len(calls) == stop_after:
            raise Interrupted
        calls.append((name, seed))
        return np.random.default_rng(seed).normal(size=3) / (1 if name == "a" else 3)

    return {name: lambda seed, name=name: result(name, seed) for name in ("a", "b")}


def test_compare_goes_on_where_it_was(tmp_path):
    path = tmp_path / "results.json"
    expected = compare(variants([]), seeds=range(4))
    with pytest.raises(Interrupted):
        compare(variants([], stop_after=5), seeds=range(4), checkpoint=path)
    calls = []
    resumed = compare(variants(calls), seeds=range(4), checkpoint=path)
    assert calls == [("b", 1), ("b", 2), ("b", 3)]
    for name in ("a", "b"):
        np.testing.assert_array_equal(resumed.values[name], expected.values[name])
    more = []
    compare(variants(more), seeds=range(5), checkpoint=path)
    assert more == [("a", 4), ("b", 4)]


def test_compare_keeps_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "results.json"
    odd = {"a": lambda seed: float("nan") if seed else float("inf")}
    for _ in range(2):
        values = compare(odd, seeds=(0, 1), checkpoint=path).values["a"]
        assert values[0] == np.inf and np.isnan(values[1])


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"a": 3}', b'{"a": {"0": 1.0'])
def test_a_damaged_file_of_results_is_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json.*damaged.*Remove it"):
        compare(variants([]), seeds=range(2), checkpoint=path)
    assert path.read_bytes() == content


def test_results_of_another_comparison_are_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"dropout": {"0": 1.0}}))
    with pytest.raises(ValueError, match=r"another comparison.*dropout.*a, b"):
        compare(variants([]), seeds=range(2), checkpoint=path)


def test_a_killed_comparison_goes_on(tmp_path):
    path = tmp_path / "results.json"
    script = textwrap.dedent(f"""
        import time
        from bncourse.experiments import compare

        def run(seed):
            print(seed, flush=True)
            time.sleep(0.1)
            return seed / 3

        compare({{"a": run}}, seeds=range(100), checkpoint={str(path)!r})
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 4:
            process.kill()
            break
    process.stdout.close()
    process.wait(30)
    calls = []
    resumed = compare({"a": lambda seed: calls.append(seed) or seed / 3}, seeds=range(6), checkpoint=path)
    assert calls == [4, 5]
    assert resumed.values["a"].tolist() == [seed / 3 for seed in range(6)]


def test_variants_with_the_names_that_chapters_give_are_kept(tmp_path):
    """Names are not only words: chapters compare 0.1 with None, and pairs."""
    path, calls = tmp_path / "results.json", []
    odd = {name: lambda seed, name=name: calls.append(name) or seed / 3 for name in (0.1, None, ("relu", True), 8)}
    expected = compare(odd, seeds=(0, 1), checkpoint=path).values
    again = compare(odd, seeds=(0, 1), checkpoint=path).values
    assert len(calls) == 8 and again.keys() == expected.keys() == odd.keys()
    with pytest.raises(ValueError, match=r"another comparison.*0\.1, None.*here they are a, b"):
        compare(variants([]), seeds=range(2), checkpoint=path)
    with pytest.raises(ValueError, match=r"8, 8.*differ as text"):
        compare({8: odd[8], "8": odd[8]}, seeds=(0, 1), checkpoint=path)


def test_the_place_is_the_one_that_was_meant_at_the_start(tmp_path, monkeypatch):
    """A relative path stays where it began when the work goes to another folder; a link stays a link."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("run.pt", "results.json"):
        (tmp_path / name).symlink_to(tmp_path / "kept" / name)

    def go_away(_):
        os.chdir(tmp_path / "elsewhere")
        return 0.0

    fit(make_model(), TRAIN, epochs=2, **RUN, on_step=go_away, checkpoint="run.pt")
    monkeypatch.chdir(tmp_path)
    compare({"a": go_away}, seeds=(0, 1), checkpoint="results.json")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["results.json", "run.pt"]
    assert (tmp_path / "run.pt").is_symlink() and (tmp_path / "results.json").is_symlink()
    steps = []
    fit(make_model(), TRAIN, epochs=2, **RUN, on_step=steps.append, checkpoint=tmp_path / "run.pt")
    assert steps == []


@pytest.mark.parametrize(
    "work",
    [
        lambda path: fit(make_model(), TRAIN, **RUN, checkpoint=path),
        lambda path: compare(variants([]), checkpoint=path),
    ],
    ids=["fit", "compare"],
)
def test_a_folder_in_place_of_a_file_is_named(tmp_path, work):
    with pytest.raises(IsADirectoryError, match=r"checkpoint=.*is a folder; expected the name of a file"):
        work(tmp_path)


def test_compare_knows_before_the_work_that_its_place_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    calls = []
    with pytest.raises(OSError, match=r"run\.pt|results\.json"):
        compare(variants(calls), checkpoint=tmp_path / "file" / "results.json")
    assert calls == []


def test_finished_work_needs_no_place_that_can_be_written(tmp_path, monkeypatch):
    def go():
        fit(make_model(), TRAIN, epochs=2, **RUN, checkpoint=tmp_path / "run.pt")
        compare(variants([]), checkpoint=tmp_path / "results.json")

    def refuse(*_):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    go()
    monkeypatch.setattr(os, "replace", refuse)
    go()


@pytest.mark.parametrize("result", ['"hello"', "null", '{"x": 1}', "[1, [2, 3]]", "[" * 5000], ids=range(5))
def test_results_that_are_no_numbers_are_named(tmp_path, result):
    path = tmp_path / "results.json"
    path.write_text('{"a": {"0": ' + result + "}}")
    with pytest.raises(ValueError, match=r"results\.json.*damaged.*Remove it"):
        compare(variants([]), seeds=range(2), checkpoint=path)
