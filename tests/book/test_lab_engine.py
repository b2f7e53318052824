"""The lab's JavaScript computes what PyTorch computes: in a real browser, against the package, ``fit`` and numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import bncourse
from bncourse import lab
from bncourse.models import fc_network, initialize, layer_block
from bncourse.training import fit
from tools.lab_presets import load

NORMS = lab.settings()["norm"]["choices"]
START = {name: one["start"] for name, one in lab.settings().items()}


@pytest.fixture(scope="module")
def engine(browser):
    """A page with the engine; a function that calls a JavaScript function there."""
    page = browser.new_page()
    load(page)
    yield page.evaluate
    page.close()


def test_digits_are_scikit_learns(engine):
    from sklearn.datasets import load_digits

    scans = load_digits()
    images, labels = engine("[Array.from(digits.images), digits.labels]")
    assert np.array_equal(images, scans.images.ravel()) and np.array_equal(labels, scans.target)


def make_norm(kind: str, features: int, eps: float, momentum: float) -> nn.Module:
    groups = max(g for g in range(1, 9) if g == 1 or (features % g == 0 and features // g >= 2))
    return {
        "batch": lambda: bncourse.BatchNorm1d(features, eps, momentum),
        "ghost": lambda: bncourse.GhostBatchNorm(features, 16, eps, momentum),
        "layer": lambda: bncourse.LayerNorm(features, eps),
        "group": lambda: bncourse.GroupNorm(groups, features, eps),
        "rms": lambda: bncourse.RMSNorm(features, eps),
    }[kind]()


ONE_NORM = """({kind, features, eps, momentum, weight, bias, batches, dy}) => {
    const norm = new Norm(kind, features, {eps, momentum, Floats: Float32Array});
    norm.weight.values.set(weight);
    norm.bias?.values.set(bias);
    const matrix = (rows) => new Matrix(rows.length, features, Float32Array, Float32Array.from(rows.flat()));
    let y;
    for (const x of batches) y = norm.forward(matrix(x), {statistics: "batch", remember: true});
    const output = Array.from(y.values);
    const dx = norm.backward(matrix(dy));
    const evaluated = norm.forward(matrix(batches[0]), {statistics: "running", remember: false}).values;
    const {mean, variance} = norm.running;
    return [output, dx.values, norm.weight.gradient, norm.bias?.gradient ?? [], mean, variance, evaluated]
        .map((values) => Array.from(values));
}"""


@pytest.mark.parametrize("kind", NORMS[1:])
def test_a_norm_is_the_packages(engine, kind):
    """Output, gradients, running statistics and evaluation, after two batches that differ in size."""
    worst = 0.0
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: B023, E731
        features, rows = int(torch.randint(2, 40, (1,), generator=random)), [7 + 13 * seed, 2 + 11 * seed]
        batches = [3 * draw(1, features) + draw(n, features) * 10 ** draw(1, features) for n in rows]
        eps, momentum = (1e-5, 0.1) if seed % 2 else (1e-3, 0.7)
        norm = make_norm(kind, features, eps, momentum)
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.copy_(draw(features))
        dy, x = draw(rows[1], features), batches[1].requires_grad_()
        norm(batches[0])
        output = norm(x)
        output.backward(dy)
        evaluated = norm.eval()(batches[0])
        mean = getattr(norm, "running_mean", torch.zeros(features))
        variance = getattr(norm, "running_var", torch.ones(features))
        bias = getattr(norm, "bias", None)
        dbias = torch.tensor([]) if bias is None else bias.grad
        expected = [output, x.grad, norm.weight.grad, dbias, mean, variance, evaluated]
        found = engine(
            ONE_NORM,
            {
                "kind": kind,
                "features": features,
                "eps": eps,
                "momentum": momentum,
                "dy": dy.tolist(),
                "weight": norm.weight.tolist(),
                "bias": [] if bias is None else bias.tolist(),
                "batches": [batch.tolist() for batch in batches],
            },
        )
        for ours, theirs in zip(found, expected, strict=True):
            theirs = theirs.detach().double().flatten()
            scale = max(1.0, theirs.abs().max().item()) if len(theirs) else 1.0
            differences = (torch.tensor(ours, dtype=torch.float64) - theirs).abs() / scale
            worst = max(worst, *differences.tolist(), 0)
            assert torch.allclose(torch.tensor(ours, dtype=torch.float64), theirs, rtol=1e-5, atol=1e-5 * scale), (
                seed,
                rows,
            )
    print(f"{kind}: apart by at most {worst:.1g} of the largest value")


@pytest.mark.parametrize("kind", ["batch", "ghost"])
def test_one_value_has_no_variance(engine, kind):
    message = engine(
        """(kind) => {
        try { new Norm(kind, 4, {Floats: Float32Array}).forward(new Matrix(1, 4), {statistics: "batch"}); }
        catch (error) { return error.message; }
    }""",
        kind,
    )
    with pytest.raises(ValueError) as torchs:
        nn.BatchNorm1d(4)(torch.ones(1, 4))
    assert message == str(torchs.value)


GRADIENTS = """(settings) => {
    const options = {inputs: 5, classes: 3, Floats: Float64Array};
    const network = new Network(settings, options), random = new Random(1, "test");
    const x = new Matrix(6, 5, Float64Array, Float64Array.from({length: 30}, () => random.normal()));
    const labels = [0, 1, 2, 2, 1, 0], masks = Array.from({length: 20}, () => random.mask(24, settings.dropout));
    const loss = () => {
        let drawn = 0;
        const mode = {statistics: "batch", remember: false, random: {mask: () => masks[drawn++]}};
        return crossEntropy(network.forward(x, mode), labels);
    };
    for (const {values} of network.parameters) values.forEach((value, i) => { values[i] += 0.1 * random.normal(); });
    network.zeroGradients();
    const dx = network.backward(loss().gradient).values.slice();
    const slope = (values, i) => {
        const [kept, h] = [values[i], 1e-5];
        const at = (value) => { values[i] = value; return loss().loss; };
        const result = (at(kept + h) - at(kept - h)) / (2 * h);
        values[i] = kept;
        return result;
    };
    let worst = 0;
    const gradients = network.parameters.map(({values, gradient}) => ({values, gradient: gradient.slice()}));
    for (const {values, gradient} of [...gradients, {values: x.values, gradient: dx}]) {
        for (let i = 0; i < values.length; i++) worst = Math.max(worst, Math.abs(slope(values, i) - gradient[i]));
    }
    return worst;
}"""


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("place", "drop"), [("before", "end"), ("after", "before the norm")])
def test_gradients_are_finite_differences(engine, norm, place, drop):
    for activation in ("tanh", "sigmoid"):
        settings = START | {"norm": norm, "width": 4, "depth": 2, "activation": activation, "ghost": 3, "eps": 1e-3}
        settings |= {
            "place": place,
            "drop": drop,
            "dropout": 0.3,
            "input": norm != "rms",
            "affine": activation == "tanh",
        }
        apart = engine(GRADIENTS, settings)
        print(f"{norm}, {place}, {activation}: gradients and finite differences are apart by at most {apart:.1g}")
        assert apart < 1e-7


TRAIN = """([settings, shared, steps]) => {
    const run = new Run(settings, shared, digits, shared.seed), batches = [], masks = [];
    const [next, mask] = [run.stream.next.bind(run.stream), run.masks.mask.bind(run.masks)];
    run.stream.next = (count) => {
        const positions = next(count);
        batches.push(positions.map((p) => run.task.train.positions[p]));
        return positions;
    };
    run.masks.mask = (...asked) => {
        const drawn = mask(...asked);
        masks.push(Array.from(drawn));
        return drawn;
    };
    const weights = run.network.linears.map(({weight}) => Array.from(weight.values));
    for (let i = 0; i < steps; i++) run.step();
    const norms = run.network.norms.filter((norm) => norm.remembers);
    const running = norms.flatMap(({running}) => [Array.from(running.mean), Array.from(running.variance)]);
    const [scores, test] = [run.evaluate("running").loss, run.task.test.positions];
    return {weights, batches, masks, losses: run.losses, running, scores, test};
}"""
EPS = 0.1  # large, so that no layer enlarges rounding errors: see the test of chaos
SIZES = {"width": 16, "batch": 32, "rate": 0.05}


class Replay(nn.Module):
    """Dropout with masks that have been drawn."""

    def __init__(self, rate: float, masks) -> None:
        super().__init__()
        self.rate, self.masks = rate, masks

    def forward(self, x):
        return x * x.new_tensor(next(self.masks)).view_as(x) / (1 - self.rate) if self.training else x


def torch_network(settings: dict, record: dict, dtype: torch.dtype) -> nn.Sequential:
    """The network that the settings describe, from the package's layers, with the weights and masks of the record."""
    norm = [] if settings["norm"] == "none" else [settings["norm"]]
    words = [*norm, "relu"] if settings["place"] == "before" else ["relu", *norm]
    if settings["dropout"]:
        words.insert(words.index(norm[0]) if settings["drop"] == "before the norm" else len(words), "dropout")
    masks = iter(record["masks"])
    sizes = [64] + [settings["width"]] * settings["depth"]
    modules: list[nn.Module] = layer_block(nn.Linear(64, 64), settings["norm"])[1:] if settings["input"] else []
    for features, out_features in pairwise(sizes):
        modules += layer_block(nn.Linear(features, out_features, bias=settings["bias"]), " ".join(words))
    modules = [Replay(settings["dropout"], masks) if isinstance(module, nn.Dropout) else module for module in modules]
    network = nn.Sequential(*modules, nn.Linear(sizes[-1], 10)).to(dtype)
    linears = [module for module in network if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for linear, weight in zip(linears, record["weights"], strict=True):
            linear.weight.copy_(torch.tensor(weight).view_as(linear.weight))
            if linear.bias is not None:
                linear.bias.zero_()
    for module in network:
        if hasattr(module, "eps"):
            module.eps = settings["eps"]
        if hasattr(module, "momentum"):
            module.momentum = settings["momentum"]
    return network


def torch_losses(settings: dict, record: dict, dtype: torch.dtype) -> tuple[list[float], nn.Sequential]:
    from sklearn.datasets import load_digits

    scans = load_digits()
    images, labels = torch.tensor(scans.images).flatten(1).div(16).to(dtype), torch.tensor(scans.target)
    network = torch_network(settings, record, dtype)
    make = getattr(torch.optim, settings["optimizer"])
    optimizer = make(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])
    losses, accumulate = [], settings["accumulate"]
    for start in range(0, len(record["batches"]), accumulate):
        optimizer.zero_grad()
        window = record["batches"][start : start + accumulate]
        parts = [cross_entropy(network(images[batch]), labels[batch]) / accumulate for batch in window]
        sum(parts).backward()
        optimizer.step()
        losses.append(sum(parts).item())
    network.eval()
    with torch.no_grad():
        scores = cross_entropy(network(images[record["test"]]), labels[record["test"]]).item()
    return [*losses, scores], network


def compare_runs(engine, changes: dict, steps: int = 100) -> int:
    """Losses to 1e-3 at every step. Where chaos parts them, it has to part torch's own float32 from its float64 too.

    Returns:
        after how many steps ours and torch's are apart by more than 1e-3.
    """
    settings = START | SIZES | changes
    record = engine(TRAIN, [settings, START, steps])
    single, network = torch_losses(settings, record, torch.float32)
    ours = np.array([*record["losses"], record["scores"]])
    parted = first_beyond(ours - single)
    if parted <= steps:
        double, _ = torch_losses(settings, record, torch.float64)
        torchs = first_beyond(np.subtract(single, double))
        print(f"{changes}: ours and torch's part after {parted} steps, torch's float32 and float64 after {torchs}")
        assert parted >= 0.5 * torchs
    else:
        print(f"{changes}: apart by at most {np.abs(ours - single).max():.1g}")
        remembered = [buffer for name, buffer in network.named_buffers() if name.endswith(("mean", "var"))]
        for mine, theirs in zip(record["running"], remembered, strict=True):
            assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3)
    return parted


def first_beyond(differences) -> int:
    """The first position whose difference is larger than 1e-3, or their number."""
    (beyond,) = np.nonzero(np.abs(differences) > 1e-3)
    return int(beyond[0]) if len(beyond) else len(differences)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("depth", [1, 4, 8])
@pytest.mark.parametrize("norm", NORMS)
def test_a_run_is_torchs(engine, norm, depth, optimizer):
    rate = 0.05 if optimizer == "SGD" else 0.002
    width = 32 if norm == "group" else 16  # four values in a group: two are always 1 and -1
    changes = {"norm": norm, "depth": depth, "optimizer": optimizer, "rate": rate, "eps": EPS, "width": width}
    changes["bias"] = optimizer == "SGD" or norm not in ("batch", "ghost")  # Adam takes steps along rounding errors
    parted = compare_runs(engine, changes)
    assert parted > 100 or depth == 8 or norm == "group"  # they may be chaotic, and then torch's are, too


def test_with_torchs_eps_chaos_parts_torchs_own_runs(engine):
    """Where all values that share statistics are nearly equal, an eps of 1e-5 enlarges rounding errors by 316."""
    assert compare_runs(engine, {"norm": "group", "depth": 8, "eps": 1e-5, "width": 32}) <= 100


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "batch", "dropout": 0.5},
        {"norm": "batch", "dropout": 0.3, "drop": "before the norm"},
        {"norm": "layer", "place": "after", "dropout": 0.3, "drop": "before the norm"},
        {"norm": "batch", "accumulate": 4, "batch": 8},
        {"norm": "layer", "decay": 0.01, "optimizer": "Adam", "rate": 0.002},
        {"norm": "batch", "bias": False, "momentum": 0.5, "decay": 0.005},
        {"norm": "batch", "input": True, "place": "after"},
    ],
    ids=str,
)
def test_a_run_with_everything_else_is_torchs(engine, changes):
    assert compare_runs(engine, {"depth": 2, "eps": EPS} | changes) > 100


def test_a_run_is_fits(engine):
    """The same images in the order that ``fit`` draws."""
    torch.manual_seed(0)
    images, labels = torch.rand(320, 1, 8, 8), torch.randint(10, (320,))
    model = initialize(fc_network([64, 16, 16, 10], "batch relu"))
    weights = [module.weight.flatten().tolist() for module in model if isinstance(module, nn.Linear)]
    history = fit(model, (images, labels), epochs=3, batch_size=32, learning_rate=0.05, seed=5)
    torch.manual_seed(5)
    batches = [batch.tolist() for _ in range(3) for batch in torch.randperm(320).split(32)]
    losses = engine(
        """([settings, shared, weights, batches, images, labels]) => {
            const run = new Run(settings, shared, digits, 0);
            run.network.linears.forEach(({weight}, i) => weight.values.set(weights[i]));
            run.task.train = {x: new Matrix(labels.length, 64, Float32Array, Float32Array.from(images)), labels};
            run.stream.next = () => batches.shift();
            while (batches.length) run.step();
            return run.losses;
        }""",
        [START | SIZES | {"depth": 2}, START, weights, batches, images.flatten().tolist(), labels.tolist()],
    )
    assert np.allclose(losses, history.loss, atol=1e-3)


def test_the_same_seed_gives_the_same_and_another_one_another(engine):
    run = """([settings, shared]) => {
        const experiment = new Experiment({shared, a: settings, b: settings}, digits, 1);
        for (const _ of experiment.train());
        return experiment.runs.map(([run]) => run.history.at(-1).loss);
    }"""
    shared = START | {"steps": 5}
    first, again, other = (engine(run, [START | SIZES, shared | {"seed": seed}]) for seed in (0, 0, 1))
    assert first[0] == first[1] and first == again and first != other
