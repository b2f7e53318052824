"""``fold`` with an example, on small models that are built as the public ones are: the same output, or a reason."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import bncourse
from bncourse.layers import WeightStandardizedConv2d
from bncourse.models import small_cnn
from bncourse.surgery import fold, freeze, report

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def lived_in(model, seed=0):
    """The model in evaluation, with statistics, gammas and betas as after some training."""
    torch.manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                if (tensor := getattr(module, name)) is not None:
                    tensor.data.uniform_(0.5, 2)
    return model.eval()


def check(model, example, folded, left=()):
    """Fold the model and compare: outputs, how many norms were folded, a word of each reason for the others."""
    lived_in(model)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    result = fold(model, example)
    done = report(result)
    assert len(done.changed) == folded, done
    assert len(done.left) == len(left) and all(word in str(done) for word in left), done
    with torch.no_grad():
        inputs = {"x": example} if torch.is_tensor(example) else example
        new = torch.randn_like(inputs["x"])  # not only on the example
        for x in (inputs["x"], new):
            torch.testing.assert_close(result(**{**inputs, "x": x}), model(**{**inputs, "x": x}), rtol=1e-4, atol=1e-4)
    assert [m.training for m in model.modules()] == modes
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    return result


class Named(nn.Sequential):
    """Its argument is called x."""

    def forward(self, x):
        return super().forward(x)


class Act(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, channels, act=nn.SiLU):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act()

    def forward(self, x):
        statistics = self.running_mean, self.running_var
        x = functional.batch_norm(x, *statistics, self.weight, self.bias, False, 0.1, self.eps)
        return self.act(self.drop(x))


class Residual(nn.Module):
    """The second norm's gamma is 0 in many networks; one ReLU serves twice."""

    def __init__(self, channels=3, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 4, 3, padding=1, bias=False), norm(4)
        self.conv2, self.bn2 = nn.Conv2d(4, channels, 3, padding=1, bias=False), norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Dense(nn.Module):
    """Norms before convolutions; what a convolution gives is concatenated by a function."""

    def __init__(self):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv1(self.norm1(x).relu())
        z = self.conv2(self.norm2(y).relu())
        return torch.cat([y, self.norm3(z)], 1)


class SamePadding(nn.Conv2d):
    """As efficientnet-pytorch's: a forward of its own, which pads."""

    def forward(self, x):
        return functional.conv2d(functional.pad(x, [1, 1, 1, 1]), self.weight, self.bias, self.stride)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), bncourse.BatchNorm2d(4), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2, groups=2), nn.BatchNorm2d(6), nn.ReLU())
        self.out = nn.Conv2d(9, 2, 1)

    def forward(self, x):
        return self.out(torch.cat([self.up(self.down(x)), x], 1))


class Tokens(nn.Module):
    """Layer norms, which stay without a word, and a batch norm after the pooling."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head, self.norm = nn.Linear(8, 4), nn.BatchNorm1d(4)

    def forward(self, x, *, mask=None):
        if mask is not None:  # control flow that depends on values: torch.fx cannot follow
            x = x * mask if mask.sum() > 0 else x
        return {"scores": [self.norm(self.head(self.encoder(x).mean(1)))]}


class TheirFrozen(nn.Module):
    """As the frozen batch norms of detection libraries: written out, no relative of torch's, its eps no attribute."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x):
        w, b, mean, var = (each.reshape(1, -1, 1, 1) for each in self.buffers())
        scale = w * (var + 1e-5).rsqrt()
        return x * scale + (b - mean * scale)


class TestFolds:
    def test_residual(self):
        model = Named(Residual(), Residual(norm=bncourse.BatchNorm2d))
        check(model, IMAGES, 4)

    def test_a_gamma_of_zero_hides_no_mistake(self):
        class Reads(Residual):
            def forward(self, x):
                y = self.conv2(x[:, :1].expand(-1, 4, -1, -1))
                return self.bn2(y) + 0 * self.bn1(self.conv1(x)).sum() + y

        model = lived_in(Reads())
        model.bn2.weight.data.zero_()
        model.bn2.bias.data.zero_()
        result = fold(model, IMAGES)
        assert report(result).left == {"bn2": "something else reads the output of the Conv2d before it"}
        torch.testing.assert_close(result(IMAGES), model(IMAGES))

    def test_dense(self):
        check(Named(Dense()), IMAGES, 1, ["no linear or convolution", "something else reads the output of the Conv2d"])

    def test_depthwise_and_subclasses_of_convolutions(self):
        model = Named(
            SamePadding(3, 6, 3, bias=False),
            Act(6),
            nn.Conv2d(6, 6, 3, groups=6, padding="same", padding_mode="circular"),
            nn.BatchNorm2d(6, affine=False),
        )
        check(model, IMAGES, 2)

    @pytest.mark.parametrize("act", [nn.ReLU, nn.Identity, nn.PReLU, lambda: nn.ReLU(inplace=True)])
    def test_the_activation_in_a_norm_stays(self, act):
        model = Named(nn.Conv2d(3, 4, 1), Act(4, act), nn.Conv2d(4, 4, 1), Act(4, act))
        result = check(model, IMAGES, 2)
        assert type(result[1].act) is type(act()) and not any(hasattr(m, "running_mean") for m in result.modules())

    def test_transposed(self):
        check(UNet(), IMAGES, 2)

    def test_a_transformer_with_dictionaries_at_both_ends(self):
        model = lived_in(Tokens())
        example = {"x": torch.randn(3, 5, 8), "mask": torch.ones(3, 5, 1)}
        result = fold(model, example)
        assert report(result).changed == {"norm": "BatchNorm1d into Linear"} and not report(result).left
        torch.testing.assert_close(result(**example), model(**example))
        with pytest.raises(ValueError, match="come with an example input"):
            fold(model)

    def test_frozen_norms_of_ours_and_of_others(self):
        model = Named(nn.Conv2d(3, 4, 1), TheirFrozen(4), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        check(freeze(lived_in(model)), IMAGES, 2)

    def test_parts_that_are_compiled(self):
        torch.compiler.reset()
        model = Named(torch.compile(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), backend="eager"), nn.ReLU())
        if not hasattr(torch.compiler, "set_stance"):
            pytest.skip("the comparison runs the compiled model as written: torch 2.6")
        result = check(model, IMAGES, 1)
        assert not any(hasattr(m, "_orig_mod") for m in result.modules())

    def test_a_model_that_computes_in_single_precision_whatever_comes(self):
        class Single(Named):
            def forward(self, x):
                return super().forward(x.float())

        check(Single(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), IMAGES, 1)

    def test_what_torch_fx_finds_too(self):
        model = lived_in(small_cnn())
        x = torch.randn(2, 3, 16, 16)
        assert report(fold(model, x)).changed == report(fold(model)).changed

    def test_the_report_counts(self):
        result = fold(lived_in(Dense()), IMAGES)
        lines = str(report(result)).splitlines()
        assert lines[:2] == ["batch norms folded: 1", "  1 x BatchNorm2d into Conv2d: 'norm3'"]
        assert lines[2] == "left as they were: 2" and lines[-1].startswith("the output differs by ")


class Standardized(WeightStandardizedConv2d):
    pass


class Clamped(nn.Conv2d):
    """Linear on all that the example shows."""

    def forward(self, x):
        return super().forward(x).clamp(-1e6, 1e6)


class ClampedNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).clamp(-1e6, 1e6)


class ClampsBefore(Act):
    def forward(self, x):
        return self.act(nn.BatchNorm2d.forward(self, x).clamp(-1e6, 1e6))


class DoublesBefore(Act):
    def forward(self, x):
        return self.act(2 * nn.BatchNorm2d.forward(self, x))


class Shared(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.conv, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.what, self.kept = what, None

    def forward(self, x):
        y = self.conv(x)
        if self.what == "norm":
            return self.norm(self.other(self.norm(y)))
        if self.what == "layer":
            return self.norm(self.conv(y))
        if self.what == "weight":
            return self.norm(y) + self.conv.weight.sum()
        if self.what == "bias":
            return self.norm(y) + self.conv.bias.sum()
        if self.what == "output":
            return self.norm(y), y
        if self.what == "kept":
            self.kept = y
            return self.norm(y) + self.kept.mean()
        if self.what == "in place":
            return self.norm(y.mul_(2))
        if self.what == "gamma":
            return self.norm(y) * self.norm.weight.mean()
        return self.norm(y[:, [2, 1, 0]])


class TestStays:
    """Next to each there is a pair that can be folded."""

    def beside(self, model, word):
        class Beside(nn.Module):
            def __init__(self):
                super().__init__()
                self.easy, self.model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), model

            def forward(self, x):
                return self.model(self.easy(x))

        return check(Beside(), IMAGES, 1, [word])

    @pytest.mark.parametrize(
        ("layer", "word"), [(Standardized, "computes its weight"), (Clamped, "no linear or convolution layer")]
    )
    def test_after_layers_that_are_not_linear_maps_of_their_weight(self, layer, word):
        self.beside(nn.Sequential(layer(3, 4, 3), nn.BatchNorm2d(4)), word)

    @pytest.mark.parametrize("norm", [ClampedNorm, ClampsBefore, DoublesBefore, lambda c: Act(c, Residual4)])
    def test_norms_that_do_more(self, norm):
        if norm(4).__class__ is Act:
            model = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4))
            assert len(report(fold(lived_in(model), IMAGES)).changed) == 3  # parts may have norms of their own
        else:
            self.beside(nn.Sequential(nn.Conv2d(3, 4, 1), norm(4)), "may do more than a batch norm")

    @pytest.mark.parametrize(
        ("what", "word"),
        [
            ("norm", "called 2 times"),
            ("layer", "the Conv2d before it is called 2 times"),
            ("weight", "something else reads the weight"),
            ("bias", "something else reads the weight"),
            ("output", "something else reads the output"),
            ("kept", "something else reads the output"),
            ("in place", "something else reads the output"),
            ("gamma", "something else reads its parameters"),
            ("slice", "no linear or convolution layer"),
        ],
    )
    def test_what_something_else_uses(self, what, word):
        self.beside(Shared(what), word)

    @pytest.mark.parametrize("where", ["conv", "norm"])
    def test_what_has_hooks(self, where):
        model = Shared("plain")
        model.forward = lambda x: model.norm(model.conv(x))
        getattr(model, where).register_forward_hook(lambda module, args, output: None)
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Sequential(model.conv, model.norm))
        check(Named(model), IMAGES, 1, ["has hooks"])

    def test_channels_of_a_linear_layer_that_are_not_the_norms(self):
        model = Named(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Flatten(0, 1), nn.BatchNorm1d(4))
        with pytest.raises(ValueError, match="nothing to fold"):
            fold(lived_in(model), torch.randn(3, 4, 4))

    def test_a_norm_in_training_a_bad_example_and_a_model_that_rolls_dice(self):
        class Dice(Named):
            def forward(self, x):
                return super().forward(x) + next(counter)

        model = Named(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        with pytest.raises(ValueError, match="must be in evaluation mode, got '1' in training"):
            fold(model, IMAGES)
        with pytest.raises(TypeError, match="expected a tensor"):
            fold(model.eval(), {"image": IMAGES})
        counter = iter(range(100))
        with pytest.raises(ValueError, match="must give the same output whenever"):
            fold(Dice(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), IMAGES)

    @pytest.mark.filterwarnings("error")
    def test_a_model_that_multiplies_rounding_is_told(self):
        model = lived_in(Named(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-12)))
        model[1].running_var.fill_(1e-12)
        model[1].running_mean.copy_(model[0](IMAGES).mean((0, 2, 3)).detach())
        model[0].bias.data += 1e6
        model[1].running_mean += 1e6
        with pytest.raises(UserWarning, match="of its size: this model multiplies rounding"):
            fold(model, IMAGES)


class Residual4(Residual):
    def __init__(self):
        super().__init__(4)


def test_a_linear_layer_whose_norm_was_folded_refuses_what_the_norm_would_see_otherwise():
    folded = fold(lived_in(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))))
    with pytest.raises(AssertionError, match=r"must be \(N, C\)"):
        folded(torch.randn(3, 4, 4))
