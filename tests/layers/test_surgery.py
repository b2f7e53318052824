"""Recalibration against the moments of the whole data set, computed at once; folding against torch's own."""

import copy
import itertools
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

from bncourse.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm,
    GhostBatchNorm,
    SyncBatchNorm,
    WeightStandardizedConv2d,
)
from bncourse.models import small_cnn
from bncourse.surgery import (
    FrozenBatchNorm,
    drop_redundant_biases,
    fold,
    freeze,
    recalibrate,
    report,
    unfreeze,
)

SORTED = torch.linspace(-3, 5, 60).reshape(60, 1).repeat(1, 4) + torch.randn(60, 4, generator=torch.Generator())


def statistics(layer):
    return torch.stack([layer.running_mean, layer.running_var]).double()


def population(x):
    x = x.double().transpose(0, 1).flatten(1)
    return torch.stack([x.mean(1), x.var(1, correction=0)])


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchNorm1d, BatchRenorm, lambda c: GhostBatchNorm(c, 2)])
@pytest.mark.parametrize("size", [60, 20, 7])
def test_unequal_and_sorted_batches_give_the_populations_moments(kind, size):
    layer = kind(4)
    recalibrate(layer, SORTED.split(size))
    torch.testing.assert_close(statistics(layer), population(SORTED), rtol=1e-5, atol=1e-5)


def test_torchs_update_bn_misses_the_variance_between_batches():
    ours, theirs = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    recalibrate(ours, SORTED.split(20))
    torch.optim.swa_utils.update_bn(SORTED.split(20), theirs)
    assert (theirs.running_var < 0.7 * ours.running_var).all()


def test_maps_are_pooled_over_space_and_every_layer_sees_what_it_will_see_in_evaluation():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6))
    images = torch.randn(30, 3, 8, 8)
    recalibrate(model, [images])
    model.eval()
    for first in (1, 4):
        inputs = model[:first](images)
        torch.testing.assert_close(statistics(model[first]), population(inputs), rtol=1e-4, atol=1e-4)


def test_the_model_is_otherwise_left_as_found():
    model = nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()
    model(torch.randn(8, 4)).sum().backward()
    before, gradient = copy.deepcopy(model), model[0].weight.grad.clone()
    recalibrate(model, [(torch.randn(8, 4), "labels")])
    for (name, was), now in zip(before.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(was, now) != name.endswith(("running_mean", "running_var")), name
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(model[0].weight.grad, gradient)


def test_moments_are_pooled_on_the_processor():
    """Apple's MPS has no double precision: a tensor must have come to the processor first."""

    class Mps(TorchFunctionMode):
        here = ()

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.double and not any(args[0] is tensor for tensor in self.here):
                raise TypeError("Cannot convert a MPS Tensor to float64")
            result = function(*args, **(kwargs or {}))
            self.here += (result,) if function is torch.Tensor.cpu else ()
            return result

    with Mps():
        recalibrate(BatchNorm1d(4), [SORTED])


def test_dropout_is_off():
    model = nn.Sequential(nn.Dropout(0.5), BatchNorm1d(4))
    recalibrate(model, [SORTED])
    torch.testing.assert_close(statistics(model[1]), population(SORTED), rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_called_twice_pools_both_calls_and_one_that_is_not_called_keeps_its_statistics():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = BatchNorm1d(4), BatchNorm1d(4)

        def forward(self, x):
            return self.used(x) + self.used(x + 10)

    model = Twice()
    recalibrate(model, [SORTED])
    torch.testing.assert_close(
        statistics(model.used), population(torch.cat([SORTED, SORTED + 10])), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(statistics(model.unused), torch.tensor([[0.0] * 4, [1.0] * 4]).double())


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (nn.Linear(4, 4), [SORTED], "must have a batch norm"),
        (BatchNorm1d(4, track_running_stats=False), [SORTED], "must have a batch norm"),
        (BatchNorm1d(4), [], "batches must have at least 1 batch, got none"),
        (BatchNorm1d(4), [SORTED[:1]], "more than 1 value per channel"),
        (BatchNorm1d(4), [SORTED, SORTED[:0]], r"at least 1 sample each, got one of shape \(0, 4\)"),
    ],
)
def test_errors_say_what_was_expected_and_leave_the_model_as_found(model, batches, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        recalibrate(model, batches)
    assert all(torch.equal(was, now) for was, now in zip(before.values(), model.state_dict().values(), strict=True))
    assert not model._forward_hooks and model.training


def lived_in(model):
    """The model in float64, with statistics, gammas and betas as after some training, in evaluation."""
    torch.manual_seed(3)
    for module in model.double().modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, GhostBatchNorm, BatchRenorm)):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2)
    return model.eval()


def same(ours, theirs, *inputs):
    torch.testing.assert_close(ours(*inputs), theirs(*inputs), rtol=1e-11, atol=1e-11)


class TestFold:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize(
        ("layer", "norm", "shape"),
        [
            (lambda bias: nn.Linear(4, 6, bias), nn.BatchNorm1d(6), (5, 4)),
            (lambda bias: nn.Linear(4, 6, bias), BatchNorm1d(6, eps=0.1), (5, 4)),
            (lambda bias: nn.Conv1d(4, 6, 3, bias=bias), BatchNorm1d(6, eps=0.1), (5, 4, 7)),
            (lambda bias: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias), BatchNorm2d(6), (2, 4, 7, 7)),
            (lambda bias: nn.Conv3d(4, 6, 2, bias=bias), nn.BatchNorm3d(6, affine=False), (2, 4, 3, 3, 3)),
            (lambda bias: nn.ConvTranspose1d(4, 6, 3, bias=bias), BatchNorm1d(6), (2, 4, 7)),
            (lambda bias: nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=bias), nn.BatchNorm2d(6), (2, 4, 5, 5)),
            (lambda bias: nn.ConvTranspose3d(4, 6, 2, bias=bias), BatchNorm3d(6, affine=False), (2, 4, 3, 3, 3)),
            (lambda bias: nn.Linear(4, 6, bias), GhostBatchNorm(6, 2), (5, 4)),
            (lambda bias: nn.Linear(4, 6, bias), BatchRenorm(6), (5, 4)),
        ],
    )
    def test_equals_the_pair_and_torchs_fusion(self, layer, norm, shape, bias):
        model = lived_in(nn.Sequential(layer(bias), norm))
        before = copy.deepcopy(model.state_dict())
        folded = fold(model)
        same(folded, model, torch.randn(shape, dtype=torch.float64))
        assert isinstance(folded[1], nn.Identity)
        torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
        fuse = fuse_linear_bn_eval if isinstance(model[0], nn.Linear) else fuse_conv_bn_eval
        if isinstance(model[0], nn.modules.conv._ConvTransposeNd):
            if model[0].groups > 1:
                return  # torch's own is for one group
            fuse = partial(fuse_conv_bn_eval, transpose=True)
        theirs = fuse(model[0], model[1])
        torch.testing.assert_close([folded[0].weight, folded[0].bias], [theirs.weight, theirs.bias])

    def test_nested_models_and_blocks_with_a_shortcut(self):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm, self.last = nn.Conv2d(3, 3, 1), BatchNorm2d(3), nn.BatchNorm2d(3)

            def forward(self, x):
                return self.last(torch.relu(self.norm(self.conv(x)) + x))

        model = lived_in(nn.Sequential(Block(), small_cnn()))
        folded = fold(model)
        same(folded, model, torch.randn(2, 3, 16, 16, dtype=torch.float64))
        assert isinstance(folded[0].norm, nn.Identity)
        assert isinstance(folded[0].last, nn.BatchNorm2d)  # what stands before it is not linear

    def test_a_layer_that_something_else_uses_stays(self):
        class Uses(nn.Module):
            def __init__(self, kind):
                super().__init__()
                self.layer, self.norm, self.kind = nn.Linear(4, 4), BatchNorm1d(4), kind
                self.other = nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4))

            def forward(self, x):
                x = self.other(x)
                y = self.layer(x)
                if self.kind == "output":
                    return self.norm(y) + y
                if self.kind == "layer twice":
                    return self.norm(self.layer(y))
                if self.kind == "norm twice":
                    return self.norm(self.layer(self.norm(y)))
                return self.norm(y) + x @ self.layer.weight

        x = torch.randn(5, 4, dtype=torch.float64)
        for kind in ("output", "layer twice", "norm twice", "weight"):
            model = lived_in(Uses(kind))
            folded = fold(model)
            same(folded, model, x)
            assert isinstance(folded.norm, BatchNorm1d) and isinstance(folded.other[1], nn.Identity)

    def test_what_cannot_be_folded_is_refused(self):
        class Undecided(nn.Sequential):
            def forward(self, x):
                return super().forward(x) if x.sum() > 0 else x

        for model, message in [
            (nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4)), "evaluation mode, got '1' in training"),
            (nn.Sequential(BatchNorm1d(4), nn.Linear(4, 4)).eval(), "nothing to fold"),
            (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), BatchNorm1d(4)).eval(), "nothing to fold"),
            (nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4, track_running_stats=False)).eval(), "nothing to fold"),
            (nn.Sequential(WeightStandardizedConv2d(3, 4, 1), BatchNorm2d(4)).eval(), "nothing to fold"),
            (Undecided(nn.Linear(4, 4), BatchNorm1d(4)).eval(), "torch.fx can follow"),
        ]:
            with pytest.raises(ValueError, match=message):
                fold(model)


class TestFreeze:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchNorm1d, BatchRenorm])
    def test_training_leaves_the_statistics_and_if_asked_gamma_and_beta(self, kind, affine):
        model = lived_in(nn.Sequential(nn.Linear(4, 4), kind(4), nn.ReLU(), nn.Linear(4, 2)))
        x, expected = torch.randn(8, 4, dtype=torch.float64), copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        assert freeze(model, affine=affine) is model
        before = copy.deepcopy(model.state_dict())
        assert before.keys() == expected.state_dict().keys()
        model.train()
        same(model, expected, x)
        model(x).square().sum().backward()
        optimizer.step()
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        linear = {"0.weight", "0.bias", "3.weight", "3.bias"}
        assert moved == (linear if affine else linear | {"1.weight", "1.bias"})
        assert model[0].training and not model[1].training

    def test_stays_frozen_when_copied_and_out_of_the_reach_of_tools(self):
        model = copy.deepcopy(freeze(lived_in(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))))).train()
        before = statistics(model[1])
        x = torch.randn(8, 4, dtype=torch.float64)
        torch.optim.swa_utils.update_bn([x], model)
        assert isinstance(SyncBatchNorm.convert_sync_batchnorm(model)[1], FrozenBatchNorm)
        assert torch.equal(statistics(model[1]), before)
        same(fold(model), model, x)

    def test_a_shared_norm_stays_shared_and_a_norm_alone_is_returned(self):
        norm = BatchNorm1d(4)
        model = freeze(nn.Sequential(norm, nn.ReLU(), norm, nn.Sequential(norm)))
        assert isinstance(model[0], FrozenBatchNorm) and model[0] is model[2] is model[3][0]
        assert isinstance(freeze(norm), FrozenBatchNorm)
        with pytest.raises(ValueError, match="batch norm with running statistics, got none"):
            freeze(nn.Linear(4, 4))


class TestDropRedundantBiases:
    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_computes_and_remembers_the_same(self, training):
        model = lived_in(small_cnn()).train(training)
        model.append(nn.Linear(10, 10).double())  # not before a norm
        lean = drop_redundant_biases(model)
        images = torch.randn(6, 3, 16, 16, dtype=torch.float64)
        same(lean, model, images)
        same(lean.eval(), model.eval(), images)
        dropped = dict(model.named_parameters()).keys() - dict(lean.named_parameters()).keys()
        assert dropped == {"0.0.bias", "2.0.bias"}


class WithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a batch norm with parts, which activates."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.PReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class OursDoubled(BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class OursShifted(BatchNorm2d):
    """Does not override ``forward`` but what that calls."""

    def normalize(self, input, weight, bias):
        return super().normalize(input, weight, bias) + 1


class Named(nn.BatchNorm2d):
    """Computes what its base does."""

    def __init__(self, channels):
        super().__init__(channels)
        self.tag = "named"


def patched(channels):
    norm = BatchNorm2d(channels)
    norm.forward = lambda x: BatchNorm2d.forward(norm, x).relu()
    return norm


def hooked(channels):
    norm = nn.BatchNorm2d(channels)
    norm.register_forward_hook(add_hundred)
    norm.register_forward_pre_hook(halve)
    return norm


def add_hundred(module, args, output):
    return output + 100


def halve(module, args):
    return (args[0] / 2,)


def parametrized(channels):
    norm = BatchNorm2d(channels)
    parametrize.register_parametrization(norm, "weight", Positive())
    return norm


class Positive(nn.Module):
    def forward(self, weight):
        return weight.exp()


ODD = [WithActivation, OursDoubled, OursShifted, Named, hooked, parametrized]


def odd_model(kind):
    return lived_in(nn.Sequential(nn.Conv2d(3, 6, 1), kind(6), nn.Conv2d(6, 2, 1)))


@pytest.mark.filterwarnings("ignore:convert_sync_batchnorm leaves")
class TestOddNorms:
    """Norms that do more than a norm, or that others hook into, compute what they did, or the error names them."""

    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)

    @pytest.mark.parametrize("kind", [*ODD, patched])
    def test_frozen_they_do_what_they_did(self, kind):
        model = odd_model(kind)
        expected = model(self.x)
        freeze(model).train()
        torch.testing.assert_close(model(self.x), expected)
        before = statistics(model[1])
        model(self.x + 3)
        torch.optim.swa_utils.update_bn([self.x], model)
        assert torch.equal(statistics(model[1]), before)
        with pytest.raises(ValueError, match="got frozen ones only"):
            recalibrate(model, [self.x])
        assert unfreeze(model) is model
        model.train()(self.x)
        assert not torch.equal(statistics(model[1]), before)

    @pytest.mark.parametrize("kind", [WithActivation, OursDoubled, hooked])
    def test_frozen_they_can_be_copied_and_saved(self, kind):
        model = freeze(odd_model(kind))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            same(other.train(), model, self.x)
            assert type(other[1]) is type(model[1]) and unfreeze(other)[1].training
            assert type(model[1]) is not type(other[1])

    @pytest.mark.parametrize("kind", [*ODD, patched])
    @pytest.mark.parametrize(
        "operation", [fold, drop_redundant_biases, SyncBatchNorm.convert_sync_batchnorm], ids=lambda f: f.__name__
    )
    def test_folded_or_converted_they_stay_or_compute_the_same(self, kind, operation):
        model = odd_model(kind)
        expected = model(self.x)
        try:
            changed = operation(model)
        except ValueError as error:
            assert "nothing to fold" in str(error)
        else:
            torch.testing.assert_close(changed.eval()(self.x), expected)

    def test_the_reason_is_said(self):
        for kind, reason in ((WithActivation, "WithActivation may do more"), (hooked, "it has hooks")):
            with pytest.raises(ValueError, match=reason):
                fold(odd_model(kind))
        assert report(drop_redundant_biases(odd_model(hooked))).left == {"1": "it has hooks"}
        with pytest.warns(UserWarning, match=r"leaves '1' \(OursDoubled\)"):
            SyncBatchNorm.convert_sync_batchnorm(odd_model(OursDoubled))

    @pytest.mark.parametrize(
        "register",
        [
            lambda layer: layer.register_forward_hook(add_hundred),
            lambda layer: layer.register_forward_pre_hook(halve),
            lambda layer: nn.utils.spectral_norm(layer),
            lambda layer: nn.utils.parametrizations.weight_norm(layer),
            lambda layer: parametrize.register_parametrization(layer, "bias", Positive()),
            lambda layer: prune.random_unstructured(layer, "weight", 0.5),
        ],
    )
    @pytest.mark.parametrize("operation", [fold, drop_redundant_biases])
    def test_a_layer_before_that_others_hook_into_stays(self, register, operation):
        model = nn.Sequential(odd_model(BatchNorm2d), nn.Conv2d(2, 2, 1).double(), nn.BatchNorm2d(2).double()).eval()
        register(model[0][0])
        with torch.no_grad():  # torch copies a weight that was computed only if it has no graph
            expected = model(self.x)
        torch.testing.assert_close(operation(model)(self.x), expected)

    @pytest.mark.parametrize("kind", [WithActivation, OursDoubled, OursShifted, Named])
    def test_recalibration_gives_them_the_populations_moments(self, kind):
        model = odd_model(kind)
        recalibrate(model, self.x.split(2))
        torch.testing.assert_close(statistics(model[1]), population(model[0](self.x)))


class TestFrozenStaysFrozen:
    def test_recalibrating_what_is_around(self):
        part = freeze(lived_in(nn.Sequential(nn.Linear(4, 4), BatchNorm1d(4))))
        model = nn.Sequential(part, nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
        before, x = statistics(part[1]), torch.randn(64, 4, dtype=torch.float64)
        done = recalibrate(model, x.split(16))
        assert torch.equal(statistics(part[1]), before)
        assert done.left == {"0.1": "frozen"} and list(done.changed) == ["2"]
        torch.testing.assert_close(statistics(model[2])[0], model[1](part(x)).mean(0))

    def test_no_step_is_left_for_gamma_and_beta(self):
        """Gradients of the last step are no longer there for the optimizer, whose momentum was moving."""
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        for _ in range(2):
            model(torch.randn(8, 4)).square().sum().backward()
            optimizer.step()
        freeze(model)
        before = copy.deepcopy(model[1].state_dict())
        optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())

    def test_under_every_name_and_in_every_model_that_has_it(self):
        norm = BatchNorm1d(4)
        first, second = nn.ModuleDict({"a": norm, "b": norm}), nn.Sequential(norm)
        freeze(first)
        before = statistics(norm)
        for model in (first["a"], first["b"], second):
            model.train()(torch.randn(8, 4) + 5)
        assert torch.equal(statistics(norm), before)

    def test_a_lazy_norm_would_thaw_and_is_refused(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d())
        with pytest.raises(ValueError, match="lazy batch norms: run it on a batch first"):
            freeze(model)
        model(torch.randn(8, 4))
        assert isinstance(freeze(model)[1], FrozenBatchNorm)

    @pytest.mark.parametrize("where", ["head", nn.BatchNorm1d, lambda name, norm: norm.num_features == 4])
    def test_where(self, where):
        model = nn.ModuleDict({"head": nn.Sequential(nn.BatchNorm1d(4)), "header": nn.Sequential(nn.BatchNorm2d(3))})
        freeze(model, where=where)
        assert isinstance(model["head"][0], FrozenBatchNorm) and type(model["header"][0]) is nn.BatchNorm2d
        with pytest.raises(ValueError, match=r"where must choose one of 'head\.0', 'header\.0', got 'body'"):
            freeze(model, where="body")

    def test_thawed_a_norm_is_what_it_was(self):
        model = nn.Sequential(nn.Linear(4, 4), GhostBatchNorm(4, 2), nn.BatchNorm1d(4), nn.BatchNorm1d(4))
        model[2].bias.requires_grad_(False)
        model[3] = FrozenBatchNorm(model[3])
        unfreeze(freeze(model))
        assert type(model[1]) is GhostBatchNorm and model[1].ghost_size == 2
        assert [p.requires_grad for p in model[2].parameters()] == [True, False]
        assert model[1].training and report(model).left == {"3": "made by FrozenBatchNorm(norm): use that norm again"}
        with pytest.raises(ValueError, match="that freeze has frozen, got none"):
            unfreeze(model)

    @pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="refused by recalibrate before torch 2.6")
    @pytest.mark.parametrize("way", ["outside", "in place", "a part"])
    def test_in_a_compiled_model_that_has_run(self, way):
        torch.compiler.reset()
        norm = nn.BatchNorm1d(4)
        model = runs = nn.Sequential(nn.Linear(4, 4), norm)
        if way == "outside":
            runs = torch.compile(model, backend="eager")
        elif way == "in place":
            model.compile(backend="eager")
        else:
            model = runs = nn.Sequential(torch.compile(model, backend="eager"))
        x = torch.randn(16, 4)
        runs.train()(x)
        with torch.no_grad():
            runs.eval()(x)
        assert recalibrate(runs, [x]).changed
        hidden = next(m for m in runs.modules() if isinstance(m, nn.Linear))(x)
        torch.testing.assert_close(statistics(norm), population(hidden), rtol=1e-4, atol=1e-4)
        expected = runs.eval()(x)
        torch.testing.assert_close(fold(runs)(x), expected)
        freeze(runs).train()
        before = statistics(norm)
        torch.testing.assert_close(runs(x), expected)
        assert torch.equal(statistics(norm), before)
        unfreeze(runs)(x + 5)
        assert not torch.equal(statistics(norm), before)


class TestRecalibrateCalls:
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = BatchNorm1d(4)

        def forward(self, x, y, scale=1):
            return self.norm(input=(x + y) * scale)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x: (x, x),
            lambda x: [x, x, "labels"],
            lambda x: ((x, x), "labels"),
            lambda x: {"y": x, "x": x},
            lambda x: ({"y": x, "x": x, "scale": 1}, "labels"),
        ],
    )
    def test_several_inputs(self, wrap):
        model = self.Sum()
        recalibrate(model, [wrap(x) for x in SORTED.split(20)])
        torch.testing.assert_close(statistics(model.norm), population(2 * SORTED), rtol=1e-5, atol=1e-5)

    def test_a_call_of_ones_own_and_an_endless_loader(self):
        model = self.Sum()
        endless = itertools.cycle({"image": x} for x in SORTED.split(20))
        done = recalibrate(model, endless, call=lambda model, batch: model(batch["image"], 0), batches=3)
        torch.testing.assert_close(statistics(model.norm), population(SORTED), rtol=1e-5, atol=1e-5)
        assert str(done) == "batch norms recalibrated: 1\n  1 x BatchNorm1d from 60 values a channel: 'norm'"

    @pytest.mark.parametrize(
        ("model", "batches", "error", "message"),
        [
            (BatchNorm1d(4), [{"image": SORTED}], TypeError, "batches .*expected .* got a dict with the keys 'image'"),
            (Sum(), [SORTED], TypeError, "batches .*expected .* got a tensor .* call=lambda"),
            (BatchNorm1d(4), [SORTED.numpy()], TypeError, "batches .*expected .* got a ndarray"),
            (BatchNorm1d(4), SORTED, TypeError, r"loader must give batches, expected .* got a tensor \(60, 4\)"),
            (BatchNorm1d(4), [SORTED, SORTED.log()], ValueError, "finite values, got NaN .* in the input of ''"),
            (nn.Sequential(nn.Linear(4, 4)).append(nn.Identity()), [SORTED], ValueError, "must have a batch norm"),
            (nn.LazyBatchNorm1d(), [SORTED], ValueError, "lazy batch norms: run it on a batch first"),
        ],
    )
    def test_what_cannot_be_done_is_said_and_leaves_the_model_as_found(self, model, batches, error, message):
        before = {} if isinstance(model, nn.LazyBatchNorm1d) else copy.deepcopy(model.state_dict())
        with pytest.raises(error, match=message):
            recalibrate(model, batches)
        assert all(torch.equal(was, model.state_dict()[name]) for name, was in before.items())
        if before:
            assert model.training and not model._forward_pre_hooks

    def test_a_model_that_uses_none_of_its_norms_is_told(self):
        class Unused(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = BatchNorm1d(4)

            def forward(self, x):
                return x

        with pytest.raises(ValueError, match="must use a batch norm in its forward pass"):
            recalibrate(Unused(), [SORTED])
