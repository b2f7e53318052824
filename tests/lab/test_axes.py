"""The picture of the norms' axes says what the norms do."""

import pytest
import torch

from bncourse import axes
from bncourse import functional as F

NORMS = {
    "batch": lambda x: F.batch_norm(x, None, None, training=True),
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
    "rms": lambda x: F.rms_norm(x, x.shape[1:]),
    "group": lambda x: F.group_norm(x, axes.GROUPS),
    "instance": lambda x: F.instance_norm(x),
    "ghost": lambda x: torch.cat([NORMS["batch"](part) for part in x.split(axes.GHOST_SIZE)]),
}


@pytest.mark.parametrize("norm", axes.SHARED)
def test_the_shared_values_are_those_that_influence_each_other(norm):
    """The gradient of one output reaches the values that share its statistics, and no others."""
    x = torch.randn(axes.SAMPLES, axes.CHANNELS, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(NORMS[norm](x)[0, 0, 0, 0], x)
    reached = gradient.ne(0).all(-1).all(-1)
    samples, channels, _ = axes.SHARED[norm]
    expected = torch.zeros_like(reached)
    expected[:samples, :channels] = True
    assert torch.equal(reached, expected)
    assert torch.equal(gradient.ne(0).any(-1).any(-1), expected)


def test_one_panel_for_each_norm():
    figure = axes.draw_axes(("batch", "layer", "group"))
    titles = [panel.get_title().split("\n")[0] for panel in figure.axes]
    assert titles == ["BatchNorm", "LayerNorm", "GroupNorm", ""]
    coloured = [len({patch.get_facecolor() for patch in panel.patches}) for panel in figure.axes[:3]]
    assert coloured == [2, 2, 2]
    with pytest.raises(ValueError, match=r"expected names among batch, .* but got 'bath'"):
        axes.draw_axes(["bath"])
