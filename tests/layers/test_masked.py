"""MaskedBatchNorm1d against torch's layer on the packed sequences."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import bncourse
from bncourse.surgery import fold, freeze, recalibrate, replace_norms

LENGTHS = torch.tensor([7, 5, 2, 1])
MASK = torch.arange(7) < LENGTHS[:, None]


def padded(seed=0, dtype=torch.float64, filler=float("nan")):
    """(4, 3, 7), with the filler after each sequence's end."""
    x = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(seed)).to(dtype) * 2 + 5
    return x.masked_fill(~MASK[:, None], filler)


def packed(x):
    """(V, 3): what torch's own packing keeps, time by time."""
    return pack_padded_sequence(x.movedim(1, 2), LENGTHS, batch_first=True).data


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("training", [True, False])
def test_equals_torchs_layer_on_packed_sequences(options, training):
    ours = bncourse.MaskedBatchNorm1d(3, dtype=torch.float64, **options).train(training)
    theirs = nn.BatchNorm1d(3, dtype=torch.float64, **options).train(training)
    theirs.load_state_dict(ours.state_dict())
    for seed in range(3):
        x = padded(seed).requires_grad_()
        y = ours(x, MASK)
        assert y.shape == x.shape and (y[~MASK[:, None].expand_as(y)] == 0).all()
        expected = theirs(packed(x))
        torch.testing.assert_close(packed(y), expected)
        (gradient,) = torch.autograd.grad(y.square().sin().sum(), x)
        (theirs_gradient,) = torch.autograd.grad(expected.square().sin().sum(), x)
        torch.testing.assert_close(gradient, theirs_gradient)
        assert (gradient[~MASK[:, None].expand_as(y)] == 0).all()
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_padding_does_not_matter_and_would_to_batch_norm():
    ours, plain = bncourse.MaskedBatchNorm1d(3).double(), bncourse.BatchNorm1d(3).double()
    torch.testing.assert_close(ours(padded(filler=0.0), MASK), ours(padded(filler=1e6), MASK))
    plain(padded(filler=0.0))
    population = packed(padded())
    assert (population.mean(0) * 0.1 - plain.running_mean).abs().min() > 0.1
    torch.testing.assert_close(ours(padded(filler=0.0)), plain(padded(filler=0.0)))  # no mask


def test_whole_samples_and_gradients_to_second_order():
    layer = bncourse.MaskedBatchNorm1d(3).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True, True, True])
    torch.testing.assert_close(layer(x, mask)[mask], nn.BatchNorm1d(3).double()(x[mask]))
    assert torch.autograd.gradgradcheck(lambda x: layer(x, mask), x)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK.float(), r"mask must be boolean, of shape \(4, 7\), got torch.float32"),
        (MASK[:, :5], r"of shape \(4, 7\), got torch.bool, of shape \(4, 5\)"),
        (MASK & (MASK.cumsum(0) * MASK.cumsum(1) == 1), "more than 1 value per channel"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    layer = bncourse.MaskedBatchNorm1d(3).double()
    with pytest.raises(ValueError, match=message):
        layer(padded(), mask)


class Speaker(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(3, 3, 1), bncourse.MaskedBatchNorm1d(3)

    def forward(self, x, mask):
        return self.norm(self.convolution(x), mask)


def test_surgery_knows_the_mask():
    torch.manual_seed(0)
    model = Speaker().double().train()
    x = padded(filler=0.0)
    recalibrate(model, [(x[:2], MASK[:2]), (x[2:], MASK[2:])])
    h = packed(model.convolution(x))
    torch.testing.assert_close(model.norm.running_mean, h.mean(0))
    torch.testing.assert_close(model.norm.running_var, h.var(0, correction=0))
    expected = model.eval()(x, MASK)
    torch.testing.assert_close(freeze(copy.deepcopy(model)).train()(x, MASK), expected)
    assert replace_norms(model, "torch").left == {"norm": "MaskedBatchNorm1d, a subclass that may do more"}
    with pytest.raises(ValueError, match="MaskedBatchNorm1d may do more"):
        fold(model, (x, MASK))
