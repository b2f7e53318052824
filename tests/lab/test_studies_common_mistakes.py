"""Chapter 10's longer code: what is recorded of a weight, and lengths that are imposed."""

import pytest
import torch
from torch import nn

from bncourse.models import fc_network
from bncourse.studies.common_mistakes import train_with_lengths

EXAMPLES = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
OPTIONS = {"epochs": 3, "batch_size": 10, "learning_rate": 0.5}


def run(**arm):
    torch.manual_seed(0)
    model = fc_network([5, 8, 3], bias=False)
    return train_with_lengths(model, model[1].weight, EXAMPLES, **OPTIONS, **arm), model


def test_without_decay_weights_before_a_norm_only_grow_and_turn_as_pythagoras_says():
    """Steps at a right angle to the weight: the cosine is the old length over the new one."""
    ran, model = run()
    assert ran.lengths.shape == (13, 8) and ran.turns.shape == (12, 8) and ran.losses.shape == (12,)
    assert (ran.lengths[1:] > ran.lengths[:-1]).all()
    torch.testing.assert_close(ran.lengths[-1], model[1].weight.detach().norm(dim=1))
    cosines = (ran.lengths[:-1] / ran.lengths[1:]).double()
    torch.testing.assert_close(ran.turns.cos(), cosines, rtol=1e-3, atol=1e-3)


def test_imposed_lengths_are_those_and_the_run_is_the_decayed_one_but_for_the_decay():
    decayed, _ = run(weight_decay=0.02)
    imposed, model = run(lengths=decayed.lengths)
    torch.testing.assert_close(imposed.lengths[1:], decayed.lengths[1:])
    torch.testing.assert_close(model[1].weight.detach().norm(dim=1), decayed.lengths[-1])
    assert (decayed.lengths[-1] < run()[0].lengths[-1]).all()
    torch.testing.assert_close(imposed.losses, decayed.losses, rtol=0.05, atol=0)


def test_decay_is_of_the_one_weight_alone():
    torch.manual_seed(0)
    model = fc_network([5, 8, 3], bias=False)
    nn.init.zeros_(model[1].weight)  # no gradient comes to the weights: only decay could move the others
    model[-1].weight.requires_grad_(False)
    before = model[-1].weight.clone()
    train_with_lengths(model, model[1].weight, EXAMPLES, weight_decay=0.5, epochs=1, batch_size=10, learning_rate=0.1)
    assert torch.equal(model[-1].weight, before) and pytest.approx(0) == model[2].weight.sub(1).abs().max().item()
