"""Each rule fires on the smallest sick model, and is silent on its healthy twin."""

import copy
from functools import cache

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from bncourse.data import Examples, load
from bncourse.doctor import RULES, diagnose, watch
from bncourse.doctor.words import deviations, freezing
from bncourse.models import small_cnn
from bncourse.surgery import convert_norms, fold, freeze, recalibrate

CASES = {}


def case(*ids):
    """A function that gives two diagnoses, of the sick and of the healthy one."""

    def register(make):
        CASES.update({id: make for id in ids})
        return make

    return register


@cache
def data():
    """Digits of 14x14 pixels."""
    images, labels = load("digits", train=512, test=128).train
    return Examples(functional.avg_pool2d(images, 2), labels)


def batch(size=128):
    return data().images[:size], data().labels[:size]


def steps(model, optimizer, count=40, x=None, y=None):
    for start in range(count):
        index = torch.arange(64) + 64 * (start % 8)
        images, labels = (data().images[index], data().labels[index]) if x is None else (x, y)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


@cache
def healthy():
    torch.manual_seed(0)
    model = small_cnn(channels=1, width=8)
    return steps(model, torch.optim.SGD(model.parameters(), 0.1), 80).eval()


def trained(training=False):
    return copy.deepcopy(healthy()).train(training)


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def changed(change, **options):
    """The healthy model after a change of its norms."""
    model = trained()
    for norm in norms(model):
        change(norm)
    return diagnose(model, batch(), **options), diagnose(trained(), batch(), **options)


@case("BN-S01")
def momentum_zero():
    return changed(lambda norm: setattr(norm, "momentum", 0))


@case("BN-S02")
def keras_momentum():
    return changed(lambda norm: setattr(norm, "momentum", 0.99))


@case("BN-S03")
def few_batches():
    def sick(norm):
        norm.momentum = 0.001

    model = small_cnn(channels=1, width=8)
    for norm in norms(model):
        sick(norm)
    steps(model, torch.optim.SGD(model.parameters(), 0.1), 20)
    return diagnose(model), diagnose(trained())


@case("BN-S04", "BN-F01")
def not_loaded():
    sick = small_cnn(channels=1, width=8)
    sick.load_state_dict({k: v for k, v in trained().state_dict().items() if "running" not in k}, strict=False)
    return diagnose(sick, batch()), diagnose(trained(), batch())


@case("BN-S05")
def new():
    return diagnose(small_cnn()), diagnose(trained())


@case("BN-S07")
def not_called():
    sick = nn.Sequential(trained(), nn.Identity())
    sick.spare = nn.BatchNorm2d(8)
    return diagnose(sick), diagnose(trained())


@case("BN-S08")
def reset():
    def change(norm):
        norm.weight.data.fill_(1)
        norm.bias.data.fill_(0)
        norm.running_mean.zero_()
        norm.running_var.fill_(1)

    return changed(change)


@case("BN-S09")
def untracked():
    def change(norm):
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        norm.track_running_stats = False

    model = trained()
    for norm in norms(model):
        change(norm)
    return diagnose(model), diagnose(trained())


class ByHand(nn.Module):
    """A batch norm as people write it, with a mistake to choose."""

    def __init__(self, channels, wrong=""):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps, self.momentum, self.wrong = 1e-5, 0.1, wrong
        mean, var = torch.zeros(channels), torch.ones(channels)
        if wrong == "plain":
            self.running_mean, self.running_var = mean, var
        else:
            self.register_buffer("running_mean", mean, persistent=wrong != "not saved")
            self.register_buffer("running_var", var)

    def forward(self, x):
        x2 = x.movedim(1, -1)
        mean, var = self.running_mean, self.running_var
        if self.training or self.wrong == "batch":
            var, mean = torch.var_mean(x2.flatten(0, -2), dim=0, correction=0)
        if self.training or self.wrong == "moves":
            m = 1 - self.momentum if self.wrong == "reversed" else self.momentum
            n = x2.numel() / x2.size(-1)
            unbiased = var if self.wrong == "biased" else var * n / (n - 1)
            unbiased = unbiased.sqrt() if self.wrong == "std" else unbiased
            if self.wrong == "graph":
                self.running_mean = (1 - m) * self.running_mean + m * mean
            elif self.wrong != "still":
                with torch.no_grad():
                    self.running_mean.mul_(1 - m).add_(m * mean)
                    self.running_var.mul_(1 - m).add_(m * unbiased)
        return ((x2 - mean) / (var + self.eps).sqrt() * self.weight + self.bias).movedim(-1, 1)


def by_hand(wrong):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), ByHand(8, wrong), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    model(batch(4)[0])
    steps(model, torch.optim.SGD(model.parameters(), 0.1), 40)
    return diagnose(model, batch())


@case("BN-S10")
def not_a_buffer():
    return by_hand("plain"), by_hand("")


@case("BN-F14")
def hand_made():
    return by_hand("reversed"), by_hand("")


@case("BN-S11")
def fractional_counter():
    return changed(lambda norm: setattr(norm, "num_batches_tracked", torch.tensor(12.5)))


@case("BN-S12")
def counted_twice():
    model = trained()
    norms(model)[1].num_batches_tracked.mul_(2)
    return diagnose(model), diagnose(trained())


@case("BN-S13")
def large_eps():
    return changed(lambda norm: setattr(norm, "eps", 50.0))


@case("BN-S14")
def frozen_but_moving():
    sick, good = trained(True).requires_grad_(False), freeze(trained(True)).requires_grad_(False)
    sick[-1].requires_grad_(True)
    good[-1].requires_grad_(True)
    return diagnose(sick), diagnose(good)


@case("BN-S15", "BN-F04")
def training_inside():
    class Stuck(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

    sick = trained()
    for norm in norms(sick):
        norm.__class__ = Stuck
        norm.training = True
    return diagnose(sick, batch()), diagnose(trained(), batch())


@case("BN-S16")
def not_reached():
    class Network(nn.Sequential):
        def train(self, mode=True):
            self.training = mode
            return self

    return diagnose(Network(*trained(True))), diagnose(nn.Sequential(*trained(True)))


@case("BN-S17")
def in_a_list():
    sick, good = nn.Linear(2, 2), nn.Linear(2, 2)
    sick.norms = {"one": [nn.BatchNorm1d(2)]}
    good.norms = nn.ModuleDict({"one": nn.ModuleList([nn.BatchNorm1d(2)])})
    return diagnose(sick), diagnose(good)


@case("BN-S18")
def tracking_instance_norm():
    return tuple(diagnose(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=tracks))) for tracks in (True, False))


@case("BN-S19")
def evaluation_inside():
    sick = trained(True)
    norms(sick)[0].eval()
    return diagnose(sick), diagnose(trained(True))


@case("BN-S20")
def redundant_bias():
    return tuple(diagnose(nn.Sequential(nn.Linear(2, 3, bias=bias), nn.BatchNorm1d(3))) for bias in (True, False))


@case("BN-S21")
def dead():
    return changed(lambda norm: norm.running_var[:2].fill_(1e-12))


@case("BN-S22")
def several_axes():
    return diagnose(nn.Sequential(nn.LayerNorm([7, 5]))), diagnose(nn.Sequential(nn.LayerNorm([5])))


@case("BN-S23")
def decayed():
    model = trained()
    sgd = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-3)
    matrices = [value for value in model.parameters() if value.dim() > 1]
    vectors = [value for value in model.parameters() if value.dim() == 1]
    apart = torch.optim.SGD([{"params": matrices, "weight_decay": 1e-3}, {"params": vectors}], 0.1)
    return diagnose(model, optimizer=sgd), diagnose(model, optimizer=apart)


@case("BN-S24")
def forgotten():
    model = trained()
    old = torch.optim.SGD(model.parameters(), 0.1)
    sick = copy.deepcopy(model)
    model[0][1] = nn.BatchNorm2d(8)
    return diagnose(model, optimizer=old), diagnose(sick, optimizer=torch.optim.SGD(sick.parameters(), 0.1))


@case("BN-S25", "BN-W10")
def stale_gradient():
    found = []
    for cleared in (False, True):
        model = trained(True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        steps(model, optimizer, 1)
        freeze(model)
        if not cleared:
            for norm in norms_of(model):
                norm.weight.grad = torch.ones_like(norm.weight)
        static = diagnose(model, optimizer=optimizer)
        with watch(model, optimizer) as watched:
            loss = functional.cross_entropy(model(batch(16)[0]), batch(16)[1])
            loss.backward()
            optimizer.step()
        static.findings += watched.findings
        found.append(static)
    return tuple(found)


def norms_of(model):
    return [module for module in model.modules() if hasattr(module, "running_mean")]


@case("BN-S26")
def never_trained():
    def change(norm):
        norm.weight.data.fill_(1)
        norm.bias.data.fill_(0)

    return changed(change)


@case("BN-S27", "BN-F15")
def borrowed():
    """As averages of weights are: shorter than the weights. Ten updates of them, with the statistics of the last."""
    model = trained()
    sick = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        for turn in range(10):
            other = trained()
            for value in (other[0][0].weight, other[2][0].weight):
                value.mul_(0.3 + 0.02 * turn)
            sick.update_parameters(other)
    good = copy.deepcopy(sick)
    recalibrate(good, [data().images])
    return tuple(diagnose(model, batch(), averaged=one) for one in (sick, good))


@case("BN-S33")
def teacher():
    model, good, sick = trained(True), trained().requires_grad_(False), trained(True).requires_grad_(False)
    return tuple(diagnose(model, averaged=one) for one in (sick, good))


@case("BN-S34")
def switched_off():
    return changed(lambda norm: setattr(norm, "track_running_stats", False))


@case("BN-S28")
def federated():
    clients = []
    for client in range(3):
        model = trained(True)
        index = torch.arange(64) + 64 * client
        steps(model, torch.optim.SGD(model.parameters(), 0.1), 5, data().images[index], data().labels[index])
        clients.append(model)
    sick, good = small_cnn(channels=1, width=8), small_cnn(channels=1, width=8)
    with torch.no_grad():
        for value, *theirs in zip(sick.parameters(), *(one.parameters() for one in clients), strict=True):
            value.copy_(sum(theirs) / 3)
        states = [one.state_dict() for one in clients]
        good.load_state_dict({key: sum(state[key] for state in states) / 3 for key in states[0]})
    return diagnose(sick, averaged=clients), diagnose(good, averaged=clients)


@case("BN-S29")
def infinite():
    return changed(lambda norm: norm.running_var[:1].fill_(float("inf")))


@case("BN-S30")
def huge():
    return changed(lambda norm: norm.running_var[:1].fill_(1.7e7))


@case("BN-S31")
def half():
    return diagnose(trained(True).bfloat16()), diagnose(trained(True))


@case("BN-F02")
def other_inputs():
    x, y = batch()
    return diagnose(trained(), (x * 64 + 128, y)), diagnose(trained(), (x, y))


@case("BN-F03")
def trained_in_evaluation():
    torch.manual_seed(0)
    model = small_cnn(channels=1, width=8).eval()
    return diagnose(steps(model, torch.optim.SGD(model.parameters(), 0.1, 0.9), 100), batch()), diagnose(
        trained(), batch()
    )


@case("BN-F05")
def one_value():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    return diagnose(model, torch.randn(1, 3, 8, 8)), diagnose(model[1], torch.randn(1, 3, 8, 8))


@case("BN-F06")
def one_value_per_group():
    x = torch.randn(8, 4)
    return diagnose(nn.Sequential(nn.GroupNorm(4, 4)), x), diagnose(nn.Sequential(nn.GroupNorm(1, 4)), x)


class Sequences(nn.Module):
    def __init__(self, right):
        super().__init__()
        self.right, self.layer, self.norm = right, nn.Linear(5, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.layer(x).relu()
        return self.norm(x.transpose(1, 2)) if self.right else self.norm(x)


@case("BN-F07")
def wrong_axis():
    return tuple(diagnose(Sequences(right), torch.randn(4, 6, 5)) for right in (False, True))


@case("BN-F08")
def padded():
    lengths = torch.randint(4, 20, (16,))
    x = torch.randn(16, 3, 20)
    padded = x * (torch.arange(20) < lengths[:, None])[:, None]
    model = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4))
    return diagnose(model, padded), diagnose(model, x)


@case("BN-F09")
def dropout_first():
    layers = nn.Linear(20, 64), nn.Dropout(0.5), nn.BatchNorm1d(64)
    x = torch.randn(64, 20)
    return diagnose(nn.Sequential(*layers), x), diagnose(nn.Sequential(layers[0], layers[2], layers[1]), x)


class Shared(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift, self.norm = shift, nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(x) + self.norm(x + self.shift)


@case("BN-F10")
def shared():
    return tuple(diagnose(Shared(shift), torch.randn(64, 4)) for shift in (3.0, 0.0))


class Functional(nn.Module):
    def __init__(self, right):
        super().__init__()
        self.right = right
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return functional.batch_norm(x, self.mean, self.var, training=self.training if self.right else True)


@case("BN-F11")
def function():
    return tuple(diagnose(Functional(right), torch.randn(64, 4)) for right in (False, True))


@case("BN-F12")
def eps_of_keras():
    torch.manual_seed(0)

    def make(eps):
        sizes = (196, 32), (32, 32)
        blocks = [layer for size in sizes for layer in (nn.Linear(*size), nn.BatchNorm1d(size[1], eps), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *blocks, nn.Linear(32, 10))

    model = make(1e-3)
    for index in (1, 4):
        model[index].weight.data.mul_(0.1)
        model[index].requires_grad_(False)
    steps(model, torch.optim.SGD([value for value in model.parameters() if value.requires_grad], 0.1, 0.9), 100)
    recalibrate(model, [data().images])
    wrong = make(1e-5)
    wrong.load_state_dict(model.state_dict())
    return diagnose(wrong, batch()), diagnose(model.requires_grad_(True), batch())


@case("BN-F13")
def overflow():
    x, y = batch()
    bad = x.clone()
    bad[3] = float("inf")
    return diagnose(trained(), (bad, y)), diagnose(trained(), (x, y))


@case("BN-F16")
def converted():
    model = trained()
    good = fold(model, batch(4)[0])
    sick = copy.deepcopy(good)
    next(sick.parameters()).data.mul_(2)
    return tuple(diagnose(model, batch(), averaged=one) for one in (sick, good))


@case("BN-F17")
def last_of_one():
    loader = [DataLoader(TensorDataset(*batch(65)), 64, drop_last=drop) for drop in (False, True)]
    return tuple(diagnose(trained(), one) for one in loader)


def watched(make, run):
    model = make()
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], 0.1)
    with watch(model, optimizer) as diagnosis:
        run(model, optimizer)
    return diagnosis


def validate(model, optimizer):
    steps(model, optimizer, 2)
    model.eval()
    with torch.no_grad():
        model(batch()[0])
    model.train()
    steps(model, optimizer, 2)


def validate_in_training_mode(model, optimizer):
    steps(model, optimizer, 2)
    with torch.no_grad():
        model(batch()[0])


@case("BN-W01")
def validation():
    return tuple(watched(lambda: trained(True), run) for run in (validate_in_training_mode, validate))


@case("BN-W02")
def frozen_moves():
    def sick():
        model = trained(True)
        for norm in norms(model):
            norm.requires_grad_(False)
        return model

    return watched(sick, validate), watched(lambda: freeze(trained(True)), validate)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.reentrant = trained(True), reentrant

    def forward(self, x):
        if self.reentrant is None:
            return self.inner(x)
        return checkpoint(self.inner, x.requires_grad_(), use_reentrant=self.reentrant)


@case("BN-W03")
def checkpointed():
    return tuple(watched(lambda: Checkpointed(way), lambda *both: steps(*both, 2)) for way in (True, None))  # noqa: B023


@case("BN-W04")
def accumulated():
    def accumulate(model, optimizer):
        for _ in range(4):
            functional.cross_entropy(model(batch(4)[0]), batch(4)[1]).backward()
        optimizer.step()

    return watched(lambda: trained(True), accumulate), watched(lambda: trained(True), validate)


@case("BN-W05")
def two_domains():
    def turns(model, optimizer):
        x, y = batch(64)
        for turn in range(4):
            steps(model, optimizer, 1, x + 2 * (turn % 2), y)

    return watched(lambda: trained(True), turns), watched(lambda: trained(True), validate)


@case("BN-W06")
def forgot_train():
    return watched(trained, lambda *both: steps(*both, 2)), watched(lambda: trained(True), validate)


@case("BN-W07")
def turns_infinite():
    def overflow(model, optimizer):
        steps(model, optimizer, 1)
        model(batch()[0] * float("inf"))

    return watched(lambda: trained(True), overflow), watched(lambda: trained(True), validate)


@case("BN-W08")
def moves_in_evaluation():
    def evaluate(model, optimizer):
        model.eval()(batch(4)[0].flatten(1)[:, :8])

    return tuple(watched(lambda: nn.Sequential(ByHand(8, wrong)), evaluate) for wrong in ("moves", ""))  # noqa: B023


@case("BN-W09")
def woken():
    def sick():
        model = trained(True)
        for norm in norms(model):
            norm.eval()
        return model

    return watched(sick, validate), watched(lambda: freeze(trained(True), affine=False), validate)


@case("BN-W11")
def small_batches():
    def few(model, optimizer):
        steps(model, optimizer, 1, *batch(4))

    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(196, 10), nn.BatchNorm1d(10))

    return watched(make, few), watched(make, lambda *both: steps(*both, 1))


@case("BN-W12")
def left_over():
    def sick():
        model = trained(True)
        model[0].spare = nn.BatchNorm2d(3)
        model[0].forward = lambda x: model[0][2](model[0][1](model[0][0](x)))
        return model

    return watched(sick, validate), watched(lambda: trained(True), validate)


@case("BN-S32")
def two_processes():
    """The second is made up: torch has a process group for that."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=2)
    try:
        return diagnose(trained()), diagnose(convert_norms(trained(), "sync").model)
    finally:
        distributed.destroy_process_group()


RUN = {}


@pytest.mark.parametrize("id", CASES)
def test_a_rule_fires_on_the_sick_and_not_on_the_healthy(id):
    sick, good = RUN[CASES[id]] if CASES[id] in RUN else RUN.setdefault(CASES[id], CASES[id]())
    found = [finding for finding in sick.findings if finding.rule == id]
    assert found, f"{sick}"
    assert found[0].measured and found[0].fix
    assert id not in {finding.rule for finding in good.findings}, f"{good}"
    assert not [one for one in good.findings if one.severity != "note"], f"{good}"


@pytest.mark.parametrize("off, targets, severity", [(0.3, True, None), (0.7, True, "error"), (0.7, False, "note")])
def test_what_one_threshold_separates_is_a_note(off, targets, severity):
    """Means are off by ``off`` standard deviations: with 0.3 only the loss says so, and without it they alone do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2))
    x = torch.randn(256, 8)
    x = (x - x.mean(0)) / x.std(0)
    with torch.no_grad():
        model[1].weight[:] = torch.tensor([[4.0], [-4.0]]) * torch.ones(8)
    y = (x.sum(1) < 0).long()
    model[0].running_mean.fill_(off)
    found = diagnose(model, (x, y) if targets else x).findings
    assert next((one.severity for one in found if one.rule == "BN-F01"), None) == severity, found


def test_gammas_that_were_drawn_at_random_are_not_taken_for_trained():
    """As timm's RepVGG draws them: a sixth is negative."""
    torch.manual_seed(0)
    model = small_cnn(channels=1)
    for norm in norms(model):
        nn.init.normal_(norm.weight, 0.1, 0.1)
        nn.init.normal_(norm.bias, 0, 0.1)
    assert {one.severity for one in diagnose(model).findings} == {"note"}


def test_a_negative_variance_is_told_once():
    model = trained()
    norms(model)[1].running_var.neg_()
    found = {one.rule: one for one in diagnose(model, batch()).findings}
    assert found["BN-S29"].measured == "running_var is negative in 16 of 16 channels"
    assert not {"BN-S13", "BN-S21", "BN-F13"} & set(found)


def test_a_norm_that_comes_after_itself_tells_nothing_of_the_data():
    """A list of three times the same block: its inputs are of several kinds, whatever the data are."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=4), *[block] * 3, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(8, 10))
    steps(model, torch.optim.Adam(model.parameters(), 0.003))
    found = {one.rule for one in diagnose(model.eval(), batch()).findings}
    assert "BN-F10" in found and "BN-F02" not in found


class Named(nn.Module):
    """Its output has names and a loss, as those of Hugging Face."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images, labels=None):
        scores = self.inner(images)
        return {"loss": None if labels is None else functional.cross_entropy(scores, labels), "scores": scores}


def test_losses_of_many_forms_are_the_same_loss():
    images, labels = batch()
    sick = nn.Sequential(trained(), nn.Unflatten(1, (10, 1)))  # of one pixel each, to be segmented
    norms(sick)[1].running_var.fill_(100)
    ignored = torch.cat([labels, torch.tensor([255, -1, -100])])
    more = torch.cat([images, images[:3]])
    pixels = diagnose(sick, (more, ignored[:, None]))
    classes = diagnose(sick[0], (images, labels))
    own = diagnose(Named(sick[0]), {"images": images, "labels": labels})
    said = [[one.measured[:10] for one in found.findings if one.rule == "BN-F01"] for found in (pixels, classes, own)]
    assert said[0] == said[1] == said[2] and said[0][0].startswith("loss ")


def test_one_score_for_two_classes_is_no_loss():
    """The first batch of sorted data has one class; cross-entropy would be 0 and say that all is well."""
    stale = nn.Sequential(trained()[:-1], nn.LazyLinear(1))
    stale(batch(2)[0])
    norms(stale)[1].running_mean.sub_(5)
    x, y = batch()
    found = {one.rule: one for one in diagnose(stale, (x, torch.zeros_like(y))).findings}
    assert found["BN-F01"].severity == "warning" and found["BN-F01"].measured.startswith("outputs change by ")


def test_a_loss_that_raises():
    with pytest.raises(ValueError, match="loss must take the model's output and the targets, raised IndexError"):
        diagnose(trained(), batch(), loss=lambda output, targets: output[99999])


class Backbone(nn.Module):
    """The healthy model as a backbone, with a head; ``how`` its features get there."""

    def __init__(self, how=""):
        super().__init__()
        self.backbone, self.head, self.how = trained(True)[:-1], trained(True)[-1], how

    def forward(self, x):
        with torch.set_grad_enabled(self.how != "no_grad"):
            features = self.backbone(x)
        return self.head(features.detach() if self.how == "detach" else features)


@pytest.mark.parametrize("how", ["no_grad", "detach", "left out"])
def test_a_backbone_that_no_step_changes_is_frozen_too(how):
    model = Backbone(how)
    optimizer = torch.optim.SGD((model.head if how == "left out" else model).parameters(), 0.1)
    with watch(model, optimizer) as diagnosis:
        steps(model, optimizer, 3)
    (found,) = (one for one in diagnosis.findings if one.severity != "note")
    assert (found.rule, found.modules, found.fix) == (
        "BN-W02",
        ("backbone.0.1", "backbone.2.1"),
        "surgery.freeze(model)",
    )
    assert found.measured.startswith("its statistics moved 3 times, and no step changed gamma and beta")
    static = [(one.rule, one.severity) for one in diagnose(model, optimizer=optimizer).findings]
    assert (("BN-S14", "note") in static) == (how == "left out")


def test_a_backbone_with_an_optimizer_of_its_own_is_not_frozen():
    model = Backbone()
    slow, optimizer = torch.optim.SGD(model.backbone.parameters(), 0.01), torch.optim.SGD(model.head.parameters(), 0.1)
    optimizer.register_step_post_hook(lambda *_: slow.step())
    with watch(model, optimizer) as diagnosis:
        steps(model, optimizer, 2)
    assert not diagnosis.findings, f"{diagnosis}"


@pytest.mark.parametrize("layers", [(0, 1, 2), (1, 0, 2)])
def test_a_first_norm_is_left_out_with_the_layer_after_it(layers):
    """An input norm, or one after a layer: the optimizer has the head alone."""
    parts = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    model = nn.Sequential(*(parts[index] for index in layers))
    found = diagnose(model, optimizer=torch.optim.SGD(model[2].parameters(), 0.1)).findings
    assert {"BN-S14"} == {one.rule for one in found} - {"BN-S05", "BN-S20"}
    found = diagnose(model, optimizer=torch.optim.SGD([*parts[0].parameters(), *parts[2].parameters()], 0.1)).findings
    assert {"BN-S24"} == {one.rule for one in found} - {"BN-S05", "BN-S20"}


def test_the_call_that_freezes_names_the_part():
    norms = ["stem.norm", "blocks.1.norm", "blocks.10.norm", "blocks.10.again.norm", "head.norm"]
    calls = [freezing(some, norms) for some in (norms, norms[1:4], norms[1:2], norms[2:4], norms[:2])]
    assert calls[:2] == ["surgery.freeze(model)", "surgery.freeze(model, where='blocks')"]
    assert calls[2:4] == [f"surgery.freeze(model, where='blocks.{part}')" for part in ("1.norm", "10")]
    assert calls[4] == "surgery.freeze(model, where=...), of the frozen part"


def test_one_standard_deviation_is_singular():
    assert [deviations(value) for value in (0.9996, 1.004, 2, 0.62)] == [
        "1 standard deviation",
        "1 standard deviation",
        "2 standard deviations",
        "0.62 standard deviations",
    ]


def test_a_validation_with_gradients_is_no_accumulation():
    def careless(model, optimizer):
        for _ in range(2):
            steps(model, optimizer, 2)
            for start in (0, 64):
                model(batch()[0][start : start + 64])

    found = watched(lambda: trained(True), careless).findings
    assert [(one.rule, one.severity) for one in found] == [("BN-W01", "note")]
    assert found[0].measured.startswith("3 forward passes moved the statistics of 2 of 2 batch norms, and no backward")


class PutsItselfIntoTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = trained()

    def forward(self, x):
        return self.inner.train()(x)


def test_a_forward_pass_that_undoes_eval():
    model = PutsItselfIntoTraining().eval()
    found = {one.rule: one for one in diagnose(model, batch()).findings}
    assert "it undoes model.eval()" in found["BN-F04"].fix and "BN-S16" not in found
    with watch(model) as diagnosis, torch.no_grad():
        model(batch()[0])
    found = {one.rule: one for one in diagnosis.findings}
    assert "though model.eval() had been called" in found["BN-W01"].measured


def test_steps_on_one_sample_are_told_and_so_are_the_samples_of_accumulation():
    def one_by_one(model, optimizer):
        for start in range(2):
            functional.cross_entropy(model(batch()[0][start : start + 1]), batch()[1][start : start + 1]).backward()
        optimizer.step()

    found = {one.rule: one for one in watched(lambda: trained(True), one_by_one).findings}
    assert found["BN-W11"].severity == "warning"
    assert found["BN-W11"].measured.startswith("1 sample in every training pass (2 of 2 batch norms")
    assert found["BN-W04"].measured.endswith("in one pass are 49, of 1 sample")
    plain = watched(lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(196), nn.Linear(196, 10)), one_by_one)
    assert not plain.findings  # batches mean nothing to it


def test_instance_norm_that_takes_samples_for_channels():
    x = torch.randn(32, 6)
    found = {one.rule: one for one in diagnose(nn.Sequential(nn.InstanceNorm1d(6)), x).findings}
    assert list(found) == ["BN-F07"] and "(32, 6) for one sample of 32 channels" in found["BN-F07"].measured
    assert not diagnose(nn.Sequential(nn.InstanceNorm1d(6)), x[:, :, None] * torch.randn(9)).findings
    assert not diagnose(nn.Sequential(nn.InstanceNorm1d(32)), x).findings  # one sample, as it should be


class NeverTraining(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", torch.full((4,), mean))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return functional.batch_norm(x, self.mean, self.var)


def test_functional_batch_norm_without_its_flag():
    sick, frozen = (diagnose(NeverTraining(mean), torch.randn(64, 4)) for mean in (0.0, 0.5))
    assert sick.examined == frozen.examined == "no norms, 1 call of functional.batch_norm"
    assert (
        "training=False in training: 1 of 1 call" in next(one for one in sick.findings if one.rule == "BN-F11").measured
    )
    assert not frozen.findings


def test_inputs_that_are_scaled_otherwise_come_before_recalibration():
    x, y = batch()
    found = {one.rule: one for one in diagnose(trained(), (x * 255, y)).findings}
    assert found["BN-F01"].fix.startswith("see BN-F02")
    stale = trained()
    norms(stale)[1].running_var.mul_(50)
    found = {one.rule: one for one in diagnose(stale, (x, y)).findings}
    assert found["BN-F01"].fix.startswith("surgery.recalibrate")


def test_a_model_without_gradients_in_training_mode_is_told_what_to_do():
    found = {one.rule: one for one in diagnose(trained(True).requires_grad_(False)).findings}
    assert found["BN-S14"].fix == "model.eval(): nothing in it is trained"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"averaged": {"0.weight": torch.ones(1)}}, "averaged must be a torch.nn.Module or a list of them, got dict"),
        ({"averaged": [nn.ReLU(), "ema"]}, "averaged must be a torch.nn.Module or a list of them, got str"),
        ({"optimizer": "sgd"}, "optimizer must be a torch.optim.Optimizer, got str"),
    ],
)
def test_what_is_not_a_model_or_an_optimizer(given, message):
    with pytest.raises(TypeError, match=message):
        diagnose(nn.BatchNorm1d(2), **given)
    if "optimizer" in given:
        with pytest.raises(TypeError, match=message), watch(nn.BatchNorm1d(2), **given):
            pass


def test_every_rule_has_a_case():
    assert {rule.id for rule in RULES} == set(CASES) | {"BN-S06"}  # test_command.py has a checkpoint


@pytest.mark.parametrize("wrong", ["reversed", "biased", "std", "still", "batch", "moves"])
def test_norms_written_by_hand_are_tried(wrong):
    assert "BN-F14" in {finding.rule for finding in by_hand(wrong).findings}


def test_statistics_of_other_names_are_found():
    layer = nn.Identity()
    layer.moving_mean = torch.zeros(3)
    assert [finding.rule for finding in diagnose(nn.Sequential(layer)).findings] == ["BN-S10"]


def test_a_batch_of_one_in_the_loop_is_told():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="more than 1 value"), watch(model) as diagnosis:
        model(torch.randn(1, 3))
    assert ("BN-W11", "error") in {(finding.rule, finding.severity) for finding in diagnosis.findings}


@pytest.mark.parametrize("wrong", ["plain", "not saved", "graph"])
def test_statistics_that_are_not_buffers_are_found(wrong):
    torch.manual_seed(0)
    model = nn.Sequential(ByHand(8, wrong))
    if wrong == "graph":
        del model[0]._buffers["running_mean"]
        model[0].running_mean = torch.zeros(8, requires_grad=True) * 1
    assert "BN-S10" in {finding.rule for finding in diagnose(model).findings}
