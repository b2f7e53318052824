"""Chapter 7's language model: what it may see, and the fluctuation against arithmetic."""

import pytest
import torch
from torch import nn

from bncourse.layers import LayerNorm
from bncourse.studies.characters import CharacterModel, batch_of_text, fluctuation, text
from bncourse.studies.variants import TokenBatchNorm


def test_the_text_is_english_and_its_parts_do_not_overlap():
    learn, held_out, count = text()
    assert len(learn) > 5 * len(held_out) > 20_000 and count == int(max(learn.max(), held_out.max())) + 1


def test_a_batch_is_passages_and_the_next_character_of_each():
    x, y = batch_of_text(torch.arange(500), 4, torch.Generator().manual_seed(0))
    assert x.shape == (4, 32) and torch.equal(y, x + 1)


def test_the_model_does_not_see_the_future():
    model, x = CharacterModel(LayerNorm, 20), torch.randint(20, (2, 32))
    later = x.clone()
    later[:, 20:] = 0
    torch.testing.assert_close(model(later)[:, :20], model(x)[:, :20])


@pytest.mark.parametrize(("same_in_a_batch", "expected"), [(1, 1.0), (16, 4.0)])
def test_the_fluctuation_of_groups_of_equal_values_is_the_root_of_their_size(same_in_a_batch, expected):
    torch.manual_seed(0)
    batches = [(torch.randn(64 // same_in_a_batch, 1, 200).repeat(same_in_a_batch, 1, 1), None) for _ in range(40)]
    model = nn.Sequential(TokenBatchNorm(200))
    assert fluctuation(model, batches) == pytest.approx(expected, rel=0.05)
