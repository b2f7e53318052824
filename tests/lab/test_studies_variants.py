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
    RowReader,
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


def test_the_row_reader_is_a_recurrent_network():
    reader, torchs = RowReader(lambda _: nn.Identity(), 15, hidden=6, every=2), nn.RNN(15, 6, batch_first=True)
    torchs.weight_ih_l0.data, torchs.bias_ih_l0.data = reader.from_row.weight.data, reader.from_row.bias.data
    torchs.weight_hh_l0.data, torchs.bias_hh_l0.data = reader.from_state.weight.data, torch.zeros(6)
    images = torch.randn(2, 3, 8, 5)
    rows = images.permute(0, 2, 1, 3).reshape(2, 8, 15)[:, ::2]
    torch.testing.assert_close(reader(images), reader.to_scores(torchs(rows)[0][:, -1]))


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


DRAWN = {  # the samples and channels whose values share statistics with those of sample 0, channel 0
    "batch": (SAMPLES, 1),
    "ghost": (2, 1),
    "layer": (1, CHANNELS),
    "rms": (1, CHANNELS),
    "group": (1, 2),
    "instance": (1, 1),
}


def test_the_picture_colours_the_values_of_the_definitions():
    figure = draw_axes()
    for panel, (norm, (samples, channels)) in zip(figure.axes, DRAWN.items(), strict=True):
        grey, colour = "#e8e8e8", to_hex(NORM_STYLES[norm].colour)
        assert panel.get_title().startswith(NORM_STYLES[norm].label)
        found = np.array([to_hex(patch.get_facecolor()) for patch in panel.patches])
        assert set(found) == {grey, colour}
        expected = np.zeros((SAMPLES, CHANNELS, 9), dtype=bool)
        expected[:samples, :channels] = True
        np.testing.assert_array_equal(found.reshape(expected.shape) == colour, expected)
