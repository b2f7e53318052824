"""One formula: every layer computes it, and the kernels compute the same."""

import subprocess
import sys

import pytest
import torch
from norm_cases import ALL, ONE_EACH, Case, gradients

import bncourse
from bncourse import standardize
from bncourse.layers.frozen import FrozenBatchNorm

OURS = [
    Case("GhostBatchNorm", (3, 2), {}, (6, 3, 2)),
    Case("BatchRenorm", (3,), {}, (6, 3)),
    Case("WeightStandardizedConv2d", (3, 4, 3), {}, (2, 3, 5, 5)),
]


class Frozen(Case):
    def build(self, **options):
        return FrozenBatchNorm(super().build(**options))


FROZEN = Frozen("BatchNorm2d", (3,), {}, (4, 3, 2, 2))


def everything(case: Case) -> list[torch.Tensor]:
    """Output and gradients in training, the buffers after it, output and gradients in evaluation."""
    layer, x = case.build(), case.input()
    y, in_training = gradients(layer, x)
    buffers = [buffer.clone() for buffer in layer.buffers()]
    y_evaluation, in_evaluation = gradients(layer.eval(), x)
    return [y, *in_training, *buffers, y_evaluation, *in_evaluation]


@pytest.mark.parametrize("case", [*ALL, *OURS, FROZEN], ids=str)
def test_kernels_compute_the_formula(case, monkeypatch):
    fast = everything(case)
    monkeypatch.setattr(standardize, "FAST", False)
    torch.testing.assert_close(everything(case), fast)


@pytest.mark.parametrize("case", [*ONE_EACH, *OURS, FROZEN], ids=str)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_every_layer_follows_a_change_of_the_formula(case, mode, monkeypatch):
    """Another eps in the one place where it is added: output and input gradient change, in both modes."""

    def output_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        layer, x = case.build().train(mode == "training"), case.input()
        y, (dx, *_) = gradients(layer, x)
        return y, dx

    monkeypatch.setattr(standardize, "FAST", False)
    before = output_and_gradient()
    original = standardize.inverse_std
    monkeypatch.setattr(standardize, "inverse_std", lambda variance, eps: original(variance, 1e4 * eps + 1e-3))
    for was, now in zip(before, output_and_gradient(), strict=True):
        assert (was - now).abs().max() > 1e-4


def test_a_change_of_the_formula_alone_is_found(monkeypatch):
    """What ``test_kernels_compute_the_formula`` is for."""
    original = standardize.inverse_std
    monkeypatch.setattr(standardize, "inverse_std", lambda variance, eps: original(variance, 10 * eps))
    x = torch.randn(8, 3, dtype=torch.float64)
    layer = bncourse.BatchNorm1d(3).double()
    fast = layer(x)
    monkeypatch.setattr(standardize, "FAST", False)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(layer(x), fast)


def test_no_private_module_of_torch_is_needed_to_import():
    """A rename inside torch must not break ``import bncourse``."""
    script = "import torch, sys; del torch._C._functorch; sys.modules['torch._C._functorch'] = None; "
    script += "import bncourse; x = torch.randn(4, 3, requires_grad=True); "
    script += "bncourse.BatchNorm1d(3)(x).square().sum().backward(); print(x.grad.shape)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0 and "[4, 3]" in result.stdout, result.stderr[-500:]
