"""Recalibration against the moments of the whole data set, computed at once; folding against torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

from bncourse.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchRenorm,
    GhostBatchNorm,
    SyncBatchNorm,
    WeightStandardizedConv2d,
)
from bncourse.models import small_cnn
from bncourse.surgery import FrozenBatchNorm, drop_redundant_biases, fold, freeze, recalibrate

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
            (lambda bias: nn.Linear(4, 6, bias), GhostBatchNorm(6, 2), (5, 4)),
            (lambda bias: nn.Linear(4, 6, bias), BatchRenorm(6), (5, 4)),
        ],
    )
    def test_equals_the_pair_and_torchs_fusion(self, layer, norm, shape, bias):
        model = lived_in(nn.Sequential(layer(bias), norm))
        before = copy.deepcopy(model.state_dict())
        folded = fold(model)
        same(folded, model, torch.randn(shape, dtype=torch.float64))
        fuse = fuse_linear_bn_eval if isinstance(model[0], nn.Linear) else fuse_conv_bn_eval
        theirs = fuse(model[0], model[1])
        torch.testing.assert_close([folded[0].weight, folded[0].bias], [theirs.weight, theirs.bias])
        assert isinstance(folded[1], nn.Identity)
        torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)

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
            (nn.Sequential(nn.ConvTranspose2d(4, 4, 1), BatchNorm2d(4)).eval(), "nothing to fold"),
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
