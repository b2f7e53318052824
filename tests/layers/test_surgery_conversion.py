"""Norms of torch and of ours replaced by each other, and batch norms by other norms."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import bncourse
from bncourse.layers import BatchRenorm, FrozenBatchNorm, GhostBatchNorm, GroupNorm, SyncBatchNorm
from bncourse.surgery import convert_norms, freeze, replace_norms, report


class Act(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class TheirRMSNorm(nn.Module):
    def forward(self, x):
        return x / x.square().mean(-1, keepdim=True).sqrt()


def zoo():
    """One of each norm that both have; the last is the first."""
    norms = [
        *(nn.BatchNorm2d(4, eps=1e-3), nn.BatchNorm2d(4, affine=False, momentum=None), nn.GroupNorm(2, 4)),
        *(nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.LayerNorm(5), nn.RMSNorm((5, 5))),
    ]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *norms, norms[0])
    torch.manual_seed(0)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    model[2].eval()
    model[3].bias.requires_grad_(False)
    return model


class TestReplace:
    x = torch.randn(4, 3, 5, 5)

    def test_there_and_back_everything_stays(self):
        model, plain, calls = zoo(), zoo(), []
        tensors, modes = dict(model.state_dict(keep_vars=True)), [m.training for m in model.modules()]
        model[3].register_forward_hook(lambda *_: calls.append(1))
        modules = list(model.modules())
        done = replace_norms(model, to="bncourse")
        assert done.model is model and len(done.changed) == 6 and not done.left
        assert all(type(m).__module__.startswith("bncourse.") for m in model[1:])
        assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
        assert [m.training for m in model.modules()] == modes and model[-1] is model[1]
        for x in (self.x, 2 * self.x):
            torch.testing.assert_close(model(x), plain(x))
        torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()))
        assert len(calls) == 2 and repr(model) == repr(plain)
        other = copy.deepcopy(model)
        replace_norms(model, to="torch")
        assert list(model.modules()) == modules and [type(m) for m in model] == [type(m) for m in plain]
        torch.testing.assert_close(model(self.x), plain(self.x))
        assert type(other[1]) is bncourse.BatchNorm2d and len(calls) == 3

    def test_an_optimizer_made_before_goes_on(self):
        model = zoo()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        replace_norms(model, to="bncourse")
        before = model[1].weight.clone()
        model(self.x).square().sum().backward()
        optimizer.step()
        assert not torch.equal(model[1].weight, before)

    def test_what_is_left_is_said(self):
        patched = nn.BatchNorm2d(4)
        patched.forward = lambda x: x
        model = nn.Sequential(nn.BatchNorm2d(4), Act(4), TheirRMSNorm(), nn.LazyBatchNorm2d(), patched, nn.ReLU())
        assert replace_norms(model, "bncourse").left == {
            "1": "Act, a subclass that may do more",
            "2": "TheirRMSNorm, which is not from torch.nn or bncourse",
            "3": "LazyBatchNorm2d: run the model once first",
            "4": "BatchNorm2d whose forward was replaced",
        }
        model = nn.Sequential(GhostBatchNorm(4, 2), BatchRenorm(4), bncourse.BatchNorm2d(4), nn.BatchNorm2d(4))
        freeze(model, where="2")
        done = replace_norms(model, "torch")
        assert set(done.left) == {"0", "1", "2"} and "FrozenBatchNorm, which torch does not have" in str(done)
        assert str(replace_norms(nn.ReLU(), "torch")) == "norms replaced by those of torch: 0"
        with pytest.raises(ValueError, match="to must be 'bncourse' or 'torch', got 'ours'"):
            replace_norms(model, "ours")

    def test_a_norm_alone_half_precision_and_a_compiled_model(self):
        torch.compiler.reset()
        norm = nn.BatchNorm2d(3).to(torch.bfloat16)
        compiled = torch.compile(norm, backend="eager")
        expected = compiled(self.x.bfloat16())
        replace_norms(compiled, "bncourse")
        assert type(norm) is bncourse.BatchNorm2d and norm.weight.dtype == torch.bfloat16
        torch.testing.assert_close(compiled(self.x.bfloat16()), expected, rtol=0.02, atol=0.02)

    def test_after_going_back_torchs_tools_know_the_layers(self):
        model = replace_norms(nn.Sequential(nn.Conv2d(3, 4, 1), bncourse.BatchNorm2d(4)).eval(), "torch").model
        fused = torch.ao.quantization.fuse_modules(model, [["0", "1"]])
        assert isinstance(fused[1], nn.Identity)
        torch.testing.assert_close(fused(self.x), model(self.x))
        exported = torch.export.export(model, (self.x,))
        assert any("batch_norm" in str(node.target) for node in exported.graph.nodes)


def batch_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 48, 1), nn.BatchNorm2d(48), nn.Conv2d(48, 7, 1), bncourse.BatchNorm2d(7))
    model(torch.randn(8, 3, 5, 5) + 2)
    for norm in (model[1], model[3]):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias)
    return model


class TestConvert:
    x = torch.randn(6, 3, 5, 5)

    @pytest.mark.parametrize(("to", "options", "groups"), [("group", {}, [24, 1]), ("layer", {}, [1, 1])])
    def test_group_and_layer_norms_keep_gamma_and_beta(self, to, options, groups):
        model, plain = batch_model(), batch_model()
        parameters = list(model.parameters())
        done = convert_norms(model, to, **options)
        assert all(type(model[i]) is GroupNorm for i in (1, 3)) and [model[i].num_groups for i in (1, 3)] == groups
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        h = plain[0](self.x)
        h = functional.group_norm(h, groups[0], plain[1].weight, plain[1].bias)
        expected = functional.group_norm(plain[2](h), groups[1], plain[3].weight, plain[3].bias)
        torch.testing.assert_close(model(self.x), expected)
        assert len(done.changed) == 2 and "no running averages any more" in str(done)

    @pytest.mark.parametrize(("channels", "at_most", "groups"), [(64, 32, 32), (4, 32, 2), (1, 32, 1), (6, 2, 2)])
    def test_no_group_has_one_channel_unless_there_is_one(self, channels, at_most, groups):
        done = convert_norms(nn.BatchNorm1d(channels, affine=False), "group", num_groups=at_most)
        assert done.model.num_groups == groups and done.model.weight is None

    @pytest.mark.parametrize(
        ("to", "options", "kind"),
        [
            ("frozen", {"affine": False}, FrozenBatchNorm),
            ("ghost", {"ghost_size": 2}, GhostBatchNorm),
            ("renorm", {"d_max": 1.0}, BatchRenorm),
            ("sync", {"process_group": None}, SyncBatchNorm),
        ],
    )
    def test_the_others_evaluate_as_before_and_train_as_such_a_layer(self, to, options, kind):
        model, plain, calls = batch_model(), batch_model().eval(), []
        model[1].register_forward_hook(lambda *_: calls.append(1))
        tensors = dict(model.state_dict(keep_vars=True))
        assert len(convert_norms(model, to, **options).changed) == 2 and type(model[1]) is kind
        assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
        torch.testing.assert_close(model.eval()(self.x), plain(self.x))
        if to != "frozen":
            layer = kind(48, **options)
            layer.load_state_dict(model[1].state_dict())
            torch.testing.assert_close(model[1].train()(plain[0](self.x)), layer(plain[0](self.x)))
            torch.testing.assert_close(model[1].running_var, layer.running_var)
        assert calls

    def test_where_and_what_is_left(self):
        model = nn.ModuleDict(
            {
                "a": nn.BatchNorm1d(4),
                "b": Act(4),
                "c": nn.BatchNorm1d(4, track_running_stats=False),
                "d": BatchRenorm(4),
            }
        )
        model["c"].register_forward_hook(lambda *_: None)
        freeze(model, where="a")
        done = convert_norms(model, "group")
        assert done.left == {
            "a": "frozen: unfreeze it first",
            "b": "Act, which may do more than a batch norm",
            "c": "BatchNorm1d with hooks, which would be lost",
        }
        assert type(model["d"]) is GroupNorm and report(model) is done
        assert set(convert_norms(model, "sync", where="c").changed) == {"c"}

    @pytest.mark.parametrize(
        ("to", "options", "error", "message"),
        [
            ("batch", {}, ValueError, "to must be one of 'group', .*, got 'batch'"),
            ("ghost", {}, TypeError, "ghost_size"),
            ("ghost", {"ghost_size": 0}, ValueError, "ghost_size must be at least 1, got 0"),
            ("group", {"num_groups": 0}, ValueError, "num_groups must be at least 1, got 0"),
            ("layer", {"ghost_size": 2}, TypeError, "ghost_size"),
            ("group", {"where": "head"}, ValueError, "where must choose one of '1', '3', got 'head'"),
        ],
    )
    def test_errors_leave_nothing_half_done(self, to, options, error, message):
        model = batch_model()
        kinds = [type(m) for m in model.modules()]
        with pytest.raises(error, match=message):
            convert_norms(model, to, **options)
        assert [type(m) for m in model.modules()] == kinds
