"""Chapter 6's longer code: residual blocks by their formulas, and what depth does to them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm

from bncourse.studies.skip_connections import PLACES, ResidualBlock, at_initialization


def norm(x):
    return batch_norm(x, None, None, training=True)


FORMULAS = {
    "post": lambda x, layers: norm(x + layers(x)),
    "pre": lambda x, layers: x + layers(norm(x)),
    "peri": lambda x, layers: x + norm(layers(norm(x))),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_block_is_its_formula(place):
    block, x = ResidualBlock(6, place), 2 + torch.randn(20, 6)
    torch.testing.assert_close(block(x), FORMULAS[place](x, block.layers))


@pytest.fixture(scope="module")
def measured():
    torch.manual_seed(0)
    examples = torch.randn(128, 1, 4, 8), torch.randint(10, (128,))
    return {place: np.array(at_initialization(place, examples, depth=16, width=32)) for place in PLACES}


@pytest.mark.parametrize("place", ["pre", "peri"])
def test_a_free_stream_grows_with_depth_and_branches_fade_as_one_over_the_depth(measured, place):
    variances, shares, gradients = measured[place]
    block = np.arange(1, 17)
    assert variances / block == pytest.approx(np.ones(16), rel=0.6)
    assert shares * (block + 1) == pytest.approx(np.ones(16), rel=0.35)
    assert np.polyfit(np.log(block), np.log(gradients), 1)[0] == pytest.approx(-0.5, abs=0.2)  # 1 / sqrt(depth)


def test_norms_on_the_stream_keep_it_and_the_branches_as_they_are_and_enlarge_the_first_gradient(measured):
    variances, shares, gradients = measured["post"]
    assert variances == pytest.approx(np.ones(16), abs=1e-3)
    assert shares.min() > 0.4 and gradients[0] > 4 * gradients[-1]
