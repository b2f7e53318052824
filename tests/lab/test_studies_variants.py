"""Chapters 7 and 8's longer code, against the definition or against doing it the slow way."""

import pytest
import torch
from torch import nn

from bncourse import layers
from bncourse.data import Examples
from bncourse.studies.partners import partners, sharing
from bncourse.studies.sequences import AttentionBlock, RowReader, TokenBatchNorm
from bncourse.studies.side_by_side import SideBySide, errors, train

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


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
def test_networks_side_by_side_are_networks_trained_one_by_one(norm):
    torch.manual_seed(0)
    examples = Examples(torch.randn(50, 1, 3, 4), torch.randint(10, (50,)))
    together = SideBySide([12, 32, 32, 10], norm, seeds=[3, 4])
    losses = train(together, examples, epochs=2, batch_size=4, accumulate=3, learning_rate=0.1)
    wrong = errors(together, examples)
    for index, seed in enumerate((3, 4)):
        alone, expected = _alone(norm, seed, examples)
        torch.testing.assert_close(losses[:, index], expected, rtol=1e-3, atol=1e-4)
        alone.eval()
        right = alone(examples.images).argmax(1) == examples.labels
        torch.testing.assert_close(wrong[index], 100 * (~right).float().mean())


def _alone(norm, seed, examples):
    make = {
        "batch": nn.BatchNorm1d,
        "group": lambda features: nn.GroupNorm(8, features),
        "layer": nn.LayerNorm,
        "none": lambda features: nn.Identity(),
    }[norm]
    torch.manual_seed(seed)
    linear = [nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 10)]
    model = nn.Sequential(nn.Flatten(), linear[0], make(32), nn.ReLU(), linear[1], make(32), nn.ReLU(), linear[2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    random, losses = torch.Generator().manual_seed(seed), []
    for _ in range(2):
        order = torch.randperm(50, generator=random)
        for step in order[:48].split(12):
            optimizer.zero_grad()
            parts = [nn.functional.cross_entropy(model(examples.images[c]), examples.labels[c]) for c in step.split(4)]
            loss = sum(parts) / 3
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return model, torch.stack(losses)


def test_side_by_side_rejects_an_unknown_norm():
    with pytest.raises(ValueError, match="norm='bath' is unknown"):
        SideBySide([2, 2], "bath", seeds=[0])
