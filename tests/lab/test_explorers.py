"""What the interactive figures say, against torch and against arithmetic."""

import json
import re

import pytest
import torch
from torch import nn

from bncourse.explorers.figures.axes import GROUPS, NORMS, C, H, N, W, members
from bncourse.explorers.figures.batch_size import NETWORKS, RUNS, SEEDS, SIZES
from bncourse.explorers.figures.batch_size import NORMS as TRAINED
from bncourse.explorers.figures.running_statistics import _follow
from tools.batch_size_runs import run


def per_token(norm):
    return lambda x: norm(x.movedim(1, -1)).movedim(-1, 1)


TORCH = {
    "batch": nn.BatchNorm2d(C),
    "layer": nn.LayerNorm((C, H, W)),
    "token": per_token(nn.LayerNorm(C)),
    "rms": per_token(nn.RMSNorm(C)),
    "instance": nn.InstanceNorm2d(C),
    "group": nn.GroupNorm(GROUPS, C),
}


def number(text: str, pattern: str) -> float:
    return float(re.search(pattern.replace("#", r"(-?[\d.]+\d|\d)"), text).group(1))


@pytest.mark.parametrize("name", NORMS.values())
@pytest.mark.parametrize(("n", "c"), [(0, 0), (1, 2), (2, 3)])
def test_coloured_are_the_values_that_torch_lets_a_value_depend_on(name, n, c):
    x = torch.randn(N, C, H, W, generator=torch.Generator().manual_seed(0)).requires_grad_()
    TORCH[name](x)[n, c, 0, 0].backward()
    assert torch.equal(x.grad != 0, torch.tensor(members(name, n, c)))


def test_the_axes_explorer_counts_the_sets(explorer):
    texts = {norm: explorer("axes").frames[norm, 1, 1].text for norm in NORMS}
    counted = [(number(text, "from # values"), number(text, "has # such")) for text in texts.values()]
    assert counted == [(48, 4), (64, 3), (4, 48), (16, 12), (32, 6), (4, 48)]
    assert ["batch matters" in text for text in texts.values()] == [True] + 5 * [False]


@pytest.mark.parametrize("momentum", [0.1, 0.99])
def test_running_mean_is_torchs(momentum):
    batches = torch.randn(20, 8, 1, generator=torch.Generator().manual_seed(0))
    layer, expected = nn.BatchNorm1d(1, momentum=momentum), [0.0]
    for batch in batches:
        layer(batch)
        expected.append(layer.running_mean.item())
    assert _follow(batches.mean((1, 2)).numpy(), momentum) == pytest.approx(expected, abs=1e-6)


def test_both_conventions_warm_up_as_arithmetic_says(explorer):
    text = explorer("running_statistics").frames[0.1, 32].text
    assert number(text, "PyTorch: #% warmed") == 65  # 1 - 0.9^10
    assert number(text, "Keras: #% warmed") == 100
    mirrored = explorer("running_statistics").frames[0.9, 32].text
    assert number(mirrored, "Keras: #% warmed") == 65


@pytest.mark.parametrize(
    ("inputs", "rate", "ratio"),
    [("zero mean", 0.1, 0.9), ("zero mean", 0.5, 0.5), ("after a ReLU", 0.1, 0.86), ("after a ReLU", 0.5, 0.40)],
)
def test_variance_shift(inputs, rate, ratio, explorer):
    frames, orders = explorer("variance_shift").frames, explorer("variance_shift").grid["order"]
    assert number(frames[orders[0], inputs, rate].text, ", # times as much") == pytest.approx(ratio, abs=0.02)
    assert number(frames[orders[0], inputs, rate].text, r"output: .* and # in evaluation\.") == pytest.approx(
        ratio, abs=0.02
    )
    assert number(frames[orders[1], inputs, rate].text, ", # times as much") == 1


def test_eps_as_large_as_the_variance_takes_away_a_factor_of_root_two(explorer):
    frames = explorer("scale_and_shift").frames
    assert number(frames[2, 0, 1e-5].text, "γ × #") == pytest.approx(1, abs=2e-3)
    assert number(frames[2, 0, 1e-2].text, "γ × #") == pytest.approx(0.5**0.5, abs=0.01)
    assert number(frames[2, -2, 1e-2].text, "After: mean #") == -2


def test_batch_noise_falls_with_the_batch_size_and_leaves_a_sign_at_two(explorer):
    frames = explorer("batch_noise").frames
    for sample in explorer("batch_noise").grid["sample"]:
        assert number(frames[256, sample].text, "That is #") == pytest.approx(0.5, abs=0.06)
    assert number(frames[2, "a typical one"].text, "variance #") == pytest.approx(1, abs=0.02)  # as often -1 as 1
    assert number(frames[2, "an extreme one"].text, "mean #") == pytest.approx(1, abs=0.05)  # nearly always 1


def test_activations_start_normalized_with_batch_norm_only(explorer):
    frames = explorer("activations").frames
    for activation in explorer("activations").grid["activation"]:
        plain, normalized = frames[activation, 0].text.splitlines()[1:]
        assert number(normalized, "deviation #") == pytest.approx(1, abs=0.01)
        assert number(plain, "deviation #") < 0.5


def test_kept_runs_are_complete():
    kept = json.loads(RUNS.read_text())
    assert kept["sizes"] == SIZES and set(kept["accuracy"]) == set(NETWORKS)
    for norms in kept["accuracy"].values():
        assert set(norms) == {*TRAINED, "recalibrated"}
        assert all(len(runs) == SEEDS and all(len(run) == len(SIZES) for run in runs) for runs in norms.values())


@pytest.mark.parametrize("norm", TRAINED)
def test_kept_runs_are_what_a_run_gives(norm):
    kept = json.loads(RUNS.read_text())["accuracy"]
    trained, recalibrated = run("fully connected", norm, 32, seed=0)
    assert trained == pytest.approx(kept["fully connected"][norm][0][SIZES.index(32)], abs=0.03)
    if norm == "batch":
        assert recalibrated == pytest.approx(kept["fully connected"]["recalibrated"][0][SIZES.index(32)], abs=0.03)
