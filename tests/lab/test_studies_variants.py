"""Chapter 7's longer code, against the definitions and torch's layers."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from bncourse import layers
from bncourse.plotting import NORM_STYLES
from bncourse.studies.variants import (
    CHANNELS,
    SAMPLES,
    AttentionBlock,
    PerToken,
    RowReaders,
    TokenBatchNorm,
    draw_axes,
    partners,
    sharing,
)

SHAPE = (3, 4, 2, 5)


@pytest.mark.parametrize("package", [layers, nn])
def test_sharing_is_what_the_definitions_say(package):
    assert sharing(package.BatchNorm2d(4), SHAPE) == [3, 1, 2, 5]
    assert sharing(package.BatchNorm2d(4).eval(), SHAPE) == [1, 1, 1, 1]
    assert sharing(package.LayerNorm((4, 2, 5)), SHAPE) == [1, 4, 2, 5]
    assert sharing(package.LayerNorm(5), SHAPE) == [1, 1, 1, 5]
    assert sharing(package.GroupNorm(2, 4), SHAPE) == [1, 2, 2, 5]
    assert sharing(package.InstanceNorm2d(4), SHAPE) == [1, 1, 2, 5]


def test_partners_are_those_of_the_value_asked_for():
    mask = partners(layers.GroupNorm(2, 4), SHAPE, at=(1, 2, 0, 0))
    expected = torch.zeros(SHAPE, dtype=torch.bool)
    expected[1, 2:] = True
    assert torch.equal(mask, expected)


def test_row_readers_without_a_norm_are_torchs_recurrent_networks():
    readers = RowReaders([0, 1], "none", (3, 8, 5), hidden=6)
    images = torch.randn(2, 4, 3, 8, 5)
    rows = images.permute(0, 1, 3, 2, 4).reshape(2, 4, 8, 15)[:, :, ::2]
    scores = readers(images.flatten(2))
    for number in range(2):
        torchs = nn.RNN(15, 6, batch_first=True)
        torchs.weight_ih_l0.data, torchs.bias_ih_l0.data = part(readers.from_row, number)
        torchs.weight_hh_l0.data, torchs.bias_hh_l0.data = part(readers.from_state, number)
        weight, bias = part(readers.to_scores, number)
        expected = nn.functional.linear(torchs(rows[number])[0][:, -1], weight, bias)
        torch.testing.assert_close(scores[number], expected)


def part(linear, number):
    """The weight and bias of one of many linear layers."""
    return linear.weight[number].detach().mT, linear.bias[number, 0].detach()


@pytest.mark.parametrize(("norm", "own"), [("batch", False), ("batch by step", True)])
def test_batch_norms_of_row_readers_have_statistics_of_all_steps_or_of_each(norm, own):
    readers = RowReaders([5], norm, (1, 6, 4), hidden=3)
    readers(torch.randn(1, 8, 24))
    assert len(readers.norms) == (3 if own else 1)
    assert {layer.norm.num_batches_tracked.item() for layer in readers.norms} == ({1} if own else {3})


def test_a_row_reader_is_the_same_alone_and_among_others():
    images = torch.randn(1, 7, 24)
    together, alone = RowReaders([3, 4], "layer", (1, 6, 4)), RowReaders([4], "layer", (1, 6, 4))
    torch.testing.assert_close(together(images.expand(2, -1, -1))[1], alone(images)[0])


def test_with_layer_norm_the_attention_block_is_torchs():
    block = AttentionBlock(nn.LayerNorm, causal=True)
    torchs = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    torchs.self_attn = block.attention
    torchs.linear1, torchs.linear2 = block.feed_forward[0], block.feed_forward[2]
    tokens, padding = torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 4:] = True
    future = nn.Transformer.generate_square_subsequent_mask(6) < 0
    expected = torchs(tokens, src_mask=future, src_key_padding_mask=padding)
    torch.testing.assert_close(block(tokens, padding), expected, rtol=1e-3, atol=1e-4)


def test_token_batch_norm_takes_each_feature_over_all_tokens():
    tokens = torch.randn(2, 6, 32)
    expected = nn.BatchNorm1d(32)(tokens.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(TokenBatchNorm(32)(tokens), expected)


def test_an_attention_block_that_masks_its_norms_does_not_see_padding():
    block = AttentionBlock(TokenBatchNorm, masked=True)
    tokens, padding = torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
    padding[:, 4:] = True
    torch.testing.assert_close(block(tokens, padding)[:, :4], block(tokens[:, :4], padding[:, :4])[:, :4])
    changed = torch.where(padding.unsqueeze(2), 7, tokens)
    torch.testing.assert_close(block(changed, padding)[:, :4], block(tokens, padding)[:, :4])


def test_a_norm_per_token_is_that_of_the_last_axis():
    maps = torch.randn(2, 6, 3, 3)
    expected = nn.LayerNorm(6)(maps[1, :, 2, 0])
    torch.testing.assert_close(PerToken(nn.LayerNorm(6))(maps)[1, :, 2, 0], expected)


DRAWN = (  # the samples, channels and positions whose values share statistics with the first value
    ("batch", SAMPLES, 1, 9),
    ("ghost", 2, 1, 9),
    ("layer", 1, CHANNELS, 9),
    ("layer", 1, CHANNELS, 1),
    ("group", 1, 2, 9),
    ("instance", 1, 1, 9),
)


def test_the_picture_colours_the_values_of_the_definitions():
    figure = draw_axes()
    for panel, (norm, samples, channels, positions) in zip(figure.axes, DRAWN, strict=True):
        grey, colour = "#e8e8e8", to_hex(NORM_STYLES[norm].colour)
        assert panel.get_title().startswith(NORM_STYLES[norm].label)
        found = np.array([to_hex(patch.get_facecolor()) for patch in panel.patches])
        assert set(found) == {grey, colour}
        expected = np.zeros((SAMPLES, CHANNELS, 9), dtype=bool)
        expected[:samples, :channels, :positions] = True
        np.testing.assert_array_equal(found.reshape(expected.shape) == colour, expected)
