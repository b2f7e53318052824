"""On the second device: whatever is where, training gives what it gives on the CPU, and everything is put back."""

import copy
from collections import Counter

import numpy as np
import pytest
import second_device
import torch
from torch import nn

from bncourse import explorers
from bncourse.data import Examples, load
from bncourse.devices import best_device, device_of, seeded
from bncourse.explorers.explorer import Explorer
from bncourse.models import fc_network, small_cnn
from bncourse.probes import record
from bncourse.studies.deployment import shifted_domain
from bncourse.studies.many_networks import ManyNetworks, evaluate_many, learning_curves, train_many
from bncourse.studies.regularizing_effect import with_wrong_labels
from bncourse.studies.the_problem import add_noise
from bncourse.surgery import recalibrate
from bncourse.training import evaluate, fit

PLACES = ["cpu", "pretend:0", "pretend:1"]
MODEL_PLACES = PLACES[:2]  # torch's engine goes backward on the first device of such a kind only
MODELS = {
    "batch": lambda: fc_network([16, 12, 8, 3], "batch relu dropout"),
    "noise": lambda: add_noise(fc_network([16, 12, 8, 3]), per_sample=True),
    "renorm": lambda: fc_network([16, 12, 3], "dropout renorm relu"),
    "ghost": lambda: small_cnn("ghost relu", channels=1, width=4),
    "group": lambda: small_cnn("dropout group relu", channels=1, width=4),  # a norm last would enlarge rounding
}
PARTS = ("train", "test")
RUN = {"epochs": 2, "batch_size": 16, "accumulate": 2, "optimizer": "momentum", "learning_rate": 0.05}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setenv("BNCOURSE_DEVICE", "pretend")
    yield
    assert not second_device.LATE


def make(name="batch"):
    torch.manual_seed(0)
    return MODELS[name]()


def examples(count, seed, place="cpu"):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 4, 4, generator=random)
    return Examples(images.to(place), (images.sum((1, 2, 3)) > 0).long().to(place))


def on_the_cpu(monkeypatch, work):
    with monkeypatch.context() as patched:
        patched.setenv("BNCOURSE_DEVICE", "cpu")
        return work("cpu", "cpu")


@pytest.fixture(scope="module")
def expected_runs():
    """What ``fit`` gives on the CPU, by model."""
    return {}


def assert_same(model, history, expected, expected_history):
    """Up to rounding: convolutions there are computed in another way."""
    values = {name: value.cpu() for name, value in model.state_dict().items()}
    torch.testing.assert_close(values, dict(expected.state_dict()))
    np.testing.assert_allclose(history.loss, expected_history.loss, rtol=1e-5)
    np.testing.assert_allclose(history.test, expected_history.test, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("model_on", MODEL_PLACES)
@pytest.mark.parametrize("data_on", PLACES)
def test_fit_gives_the_same_wherever_model_and_data_are(monkeypatch, expected_runs, name, model_on, data_on):
    def run(model_on, data_on):
        model, trained_on, called_on = make(name).to(model_on), Counter(), Counter()
        parameters = list(model.parameters())
        model.register_forward_hook(lambda m, x, y: trained_on.update([str(y.device)]) if m.training else None)
        train, test = examples(70, 0, data_on), examples(30, 1, data_on)
        history = fit(model, train, test, **RUN, on_step=lambda _: called_on.update([str(device_of(model))]))
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
        assert {str(t.device) for t in (*model.state_dict().values(), *(p.grad for p in parameters))} == {model_on}
        assert (str(train.images.device), str(test.labels.device)) == (data_on, data_on)
        return model, history, called_on, trained_on

    if name not in expected_runs:
        expected_runs[name] = on_the_cpu(monkeypatch, run)
    expected, history, called, _ = expected_runs[name]
    model, there, called_there, trained = run(model_on, data_on)
    assert_same(model, there, expected, history)
    assert called_there == {model_on: called["cpu"]}
    assert set(trained) == {"pretend:0" if model_on == "cpu" else model_on}


def test_a_step_waits_for_the_device_once():
    model, waits = make().to("pretend"), []
    data = examples(64, 0, "pretend")
    fit(model, data, data, **RUN, on_step=lambda _: waits.append(sum(second_device.READS.values())))
    assert len(waits) == 4
    assert waits[1] - waits[0] == 1 == waits[3] - waits[2], "within an epoch: the loss"
    assert waits[2] - waits[1] == 3, "and at its end the test set's loss and accuracy"


@pytest.mark.parametrize("fault", ["on_step", "optimizer", "checkpoint"])
def test_what_fails_leaves_the_model_where_it_was(fault, tmp_path):
    def fails(*arguments, **options):
        raise ZeroDivisionError

    path = tmp_path / "run.pt"
    path.write_text("not a checkpoint")
    model = make()
    with pytest.raises((ZeroDivisionError, ValueError)):
        fit(model, examples(40, 0), **RUN | {fault: path if fault == "checkpoint" else fails})
    assert {str(value.device) for value in model.state_dict().values()} == {"cpu"}


def test_random_numbers_of_the_device_are_a_function_of_the_seed_and_put_back():
    """Torch's own dropout draws them on the device."""
    sources = [torch.default_generator, *second_device.Module.default_generators]
    before = [source.get_state() for source in sources]
    losses = []
    for seed in (0, 0, 1):
        model = nn.Sequential(nn.Flatten(), make()[1], nn.Dropout(0.5), nn.Linear(12, 3))
        nn.init.ones_(model[-1].weight), nn.init.zeros_(model[-1].bias)
        torch.default_generator.set_state(before[0])
        losses.append(fit(model, examples(40, 0), batch_size=20, seed=seed).loss)
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(source.get_state(), state) for source, state in zip(sources, before, strict=True))


def test_seeded_leaves_the_other_device_alone():
    def draw():
        return [torch.rand(1, device=place).item() for place in PLACES]

    torch.manual_seed(5)
    cpu, first, second = draw()
    torch.manual_seed(5)
    with seeded(9, torch.device("pretend:0")):
        one = draw()
    with seeded(9, torch.device("pretend:0")):
        again = draw()
    assert one[:2] == again[:2] and one[2] == second != again[2]
    assert draw()[:2] == [cpu, first]


@pytest.mark.parametrize("model_on", MODEL_PLACES)
@pytest.mark.parametrize("data_on", PLACES)
def test_evaluate_and_recalibrate_take_the_data_to_the_model(monkeypatch, model_on, data_on):
    def run(model_on, data_on):
        model = make().to(model_on)
        data = examples(50, 0, data_on)
        recalibrate(model, [data, data.images[:20]])
        return model, evaluate(model, data, batch_size=16)

    expected, evaluation = on_the_cpu(monkeypatch, run)
    model, there = run(model_on, data_on)
    assert {str(value.device) for value in model.state_dict().values()} == {model_on}
    torch.testing.assert_close([v.cpu() for v in model.buffers()], list(expected.buffers()))
    assert there == pytest.approx(evaluation)


@pytest.mark.parametrize("networks_on", MODEL_PLACES)
@pytest.mark.parametrize("data_on", PLACES)
def test_many_networks(monkeypatch, networks_on, data_on):
    def run(networks_on, data_on):
        train, test = examples(40, 0, data_on), examples(20, 1, data_on)
        networks = ManyNetworks([16, 8, 3], range(3), dropout=0.2).initialize([0.5, 1, 2]).to(networks_on)
        losses = train_many(networks, train, epochs=2, batch_size=10, learning_rate=[0.1, 0.2, 0.3])
        curves = learning_curves(networks, train, test, steps=4, every=2, batch_size=20, learning_rate=0.1)
        assert {str(value.device) for value in networks.state_dict().values()} == {networks_on}
        return losses, *evaluate_many(networks, test), *curves

    for there, expected in zip(run(networks_on, data_on), on_the_cpu(monkeypatch, run), strict=True):
        np.testing.assert_allclose(there, expected, rtol=1e-5)


def test_probes_see_what_they_see_on_the_cpu(monkeypatch):
    def run(model_on, data_on):
        model = make()
        with record(model) as layers:
            fit(model, examples(64, 0, data_on), batch_size=16, epochs=1)
        return [*layers["1"], *layers["5"]]

    for there, expected in zip(run("cpu", "pretend:1"), on_the_cpu(monkeypatch, run), strict=True):
        np.testing.assert_allclose(there, expected, rtol=1e-4)


@pytest.mark.parametrize("resumed_on", MODEL_PLACES)
def test_a_run_goes_on_on_the_same_device_and_on_another(monkeypatch, tmp_path, resumed_on):
    def interrupt(step):
        if step == 3:
            raise InterruptedError

    train, path = examples(70, 0), tmp_path / "run.pt"
    expected = make()
    history = fit(expected, train, train, **RUN)
    with pytest.raises(InterruptedError):
        fit(make(), train, train, **RUN, on_step=interrupt, checkpoint=path)
    monkeypatch.setenv("BNCOURSE_DEVICE", resumed_on)
    model = make()
    assert_same(model, fit(model, train, train, **RUN, checkpoint=path), expected, history)


def test_mixed_precision():
    model, seen, data = make(), Counter(), examples(128, 0)
    model[1].register_forward_hook(lambda m, x, y: seen.update([(y.dtype, str(y.device))]) if m.training else None)
    history = fit(model, data, data, epochs=5, learning_rate=0.3, mixed_precision=True)
    assert set(seen) == {(torch.bfloat16, "pretend:0")}
    assert {(p.dtype, str(p.device)) for p in model.parameters()} == {(torch.float32, "cpu")}
    assert history.test[-1].loss < history.test[0].loss


def test_the_variable_chooses_among_devices(monkeypatch):
    for wanted in PLACES:
        monkeypatch.setenv("BNCOURSE_DEVICE", wanted)
        assert best_device() == torch.device(wanted)
    monkeypatch.setenv("BNCOURSE_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="BNCOURSE_DEVICE must be a device of this machine, got 'cuda'"):
        fit(make(), examples(70, 0))


def test_data_that_lie_on_the_device_are_changed_as_on_the_cpu():
    data = load("digits", train=30, test=10)
    there = data._replace(**{part: Examples(*(t.to("pretend:1") for t in getattr(data, part))) for part in PARTS})
    moved, expected = (shifted_domain(each.standardized()) for each in (there, data))
    assert torch.equal(moved.train.images.cpu(), expected.train.images)
    wrong = [with_wrong_labels(each.train.labels, 0.5, 10, torch.Generator().manual_seed(0)) for each in (there, data)]
    assert torch.equal(wrong[0].cpu(), wrong[1])


@pytest.mark.parametrize("data_set", ["digits", "photo_digits"])
def test_a_notebook_that_makes_everything_there_has_the_same_data(data_set):
    expected = load(data_set, train=64, test=20)
    torch.set_default_device("pretend")
    try:
        data = load(data_set, train=64, test=20)
        model = fc_network([data.train.images[0].numel(), 8, 10])
        history = fit(model, data.train, data.test, epochs=1, batch_size=32)
    finally:
        torch.set_default_device(None)
    for part, other in ((data.train, expected.train), (data.test, expected.test)):
        assert torch.equal(part.images, other.images) and torch.equal(part.labels, other.labels)
    assert device_of(model) == torch.device("pretend:0") and evaluate(model, data.test) == history.test[0]


@pytest.mark.parametrize("name", explorers.__all__)
def test_explorers_draw(monkeypatch, name):
    """One frame of each: a whole explorer draws hundreds."""
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    drawn = []
    one_frame = lambda _, draw, grid, **words: drawn.append(draw(**{key: grid[key][-1] for key in grid}))  # noqa: E731
    monkeypatch.setattr(Explorer, "__init__", one_frame)
    getattr(explorers, name)()
    ((_, text),) = drawn
    assert text


def test_a_copy_of_a_model_there_is_there():
    model = make().to("pretend:1")
    assert {str(value.device) for value in copy.deepcopy(model).state_dict().values()} == {"pretend:1"}


def test_an_operation_that_changes_a_shape_in_place():
    """A vector times a matrix ends with one."""
    vector, matrix = torch.randn(4), torch.randn(4, 3)
    result = vector.to("pretend") @ matrix.to("pretend")
    assert result.shape == (3,) and torch.equal(result.cpu(), vector @ matrix)
