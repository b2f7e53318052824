"""Chapter 7: which values share statistics, asked of the norm itself and drawn; and two small sequence models."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from bncourse.layers import BatchNorm1d, BatchNorm2d, GhostBatchNorm, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from bncourse.plotting import NORM_STYLES, figure

__all__ = ["AttentionBlock", "RowReader", "TokenBatchNorm", "draw_axes", "partners", "sharing"]

SAMPLES, CHANNELS = 4, 6
SHAPE = (SAMPLES, CHANNELS, 3, 3)  # of the feature map that is drawn
NORMS = {  # each with the number of values that share statistics, for an input (N, C, H, W)
    "batch": (BatchNorm2d(CHANNELS), "N·H·W values"),
    "ghost": (GhostBatchNorm(CHANNELS, ghost_size=2), "ghost size·H·W values"),
    "layer": (LayerNorm(SHAPE[1:]), "C·H·W values"),
    "rms": (RMSNorm(SHAPE[1:]), "C·H·W values, no mean"),
    "group": (GroupNorm(3, CHANNELS), "C/G·H·W values"),
    "instance": (InstanceNorm2d(CHANNELS), "H·W values"),
}


def partners(norm: nn.Module, shape: tuple[int, ...], at: tuple[int, ...] | None = None) -> Tensor:
    """Which values of an input help to normalize the one value at ``at``: bool, of shape ``shape``.

    Those are the values that the output at ``at`` changes with: its derivative with respect to them is not zero.

    Args:
        norm: any layer that keeps its input's shape, in the mode it is in.
        at: the position of the one value; None takes the first.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (derivative,) = torch.autograd.grad(norm(x)[at or (0,) * len(shape)], x)
    return derivative != 0


def sharing(norm: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """How far the first value's partners reach along each axis of ``shape``: [1, C, H, W] for LayerNorm."""
    mask = partners(norm, shape)
    axes = range(mask.dim())
    return [int(mask.any(dim=[a for a in axes if a != axis]).sum()) for axis in axes]


def draw_axes() -> Figure:
    """Draw a feature map (N, C, H, W) once for each norm; the coloured values share one mean and one variance.

    Rows are samples, columns are channels, and each tile is one channel of one sample, with its H x W values.
    """
    fig, panels = figure(3, 2, height=6.75)
    for panel, (name, (norm, count)) in zip(panels.flat, NORMS.items(), strict=True):
        style = NORM_STYLES[name]
        for (sample, channel, y, x), shared in np.ndenumerate(partners(norm, SHAPE)):
            corner = channel + 0.3 * x, SAMPLES - 1 - sample + 0.3 * y
            panel.add_patch(Rectangle(corner, 0.27, 0.27, facecolor=style.colour if shared else "#E8E8E8"))
        panel.set(xlim=(-0.1, CHANNELS), ylim=(-0.1, SAMPLES), aspect="equal", xticks=[], yticks=[])
        panel.set(title=f"{style.label}\n{count}", xlabel="channels C", ylabel="samples N")
        panel.grid(False)
        panel.spines[:].set_visible(False)
    return fig


class TokenBatchNorm(BatchNorm1d):
    """Batch normalization of tokens (N, T, F): each feature over all tokens of all sequences."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).view_as(input)


class RowReader(nn.Module):
    """A recurrent network that reads an image row by row: (N, C, H, W) to 10 class scores.

    state = tanh(norm(W row + U state)), with one norm for all steps (Ba et al. 2016, section 3.1).

    Args:
        norm: makes the norm from the number of features.
        row_size: C * W, the features of a row.
        every: 2 reads every second row.
    """

    def __init__(self, norm: Callable[[int], nn.Module], row_size: int, hidden: int = 48, every: int = 2) -> None:
        super().__init__()
        self.every = every
        self.from_row = nn.Linear(row_size, hidden)
        self.from_state = nn.Linear(hidden, hidden, bias=False)
        self.norm = norm(hidden)
        self.to_scores = nn.Linear(hidden, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.from_row(images.transpose(1, 2).flatten(2)[:, :: self.every])  # (N, steps, hidden)
        state = torch.zeros_like(rows[:, 0])
        for row in rows.unbind(1):
            state = torch.tanh(self.norm(row + self.from_state(state)))
        return self.to_scores(state)


class AttentionBlock(nn.Module):
    """One block of a transformer, its norms before attention and before the feed-forward part: (N, T, F) to (N, T, F).

    Args:
        norm: makes a norm from the number of features.
        causal: whether a token attends only to itself and to earlier ones.
    """

    def __init__(self, norm: Callable[[int], nn.Module], features: int = 32, heads: int = 4, causal: bool = False):
        super().__init__()
        self.causal = causal
        self.norm_1, self.norm_2 = norm(features), norm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
        )

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """``padding``: (N, T), True where a token is only filling."""
        count = tokens.shape[1]
        future = torch.ones(count, count, dtype=torch.bool, device=tokens.device).triu(1) if self.causal else None
        x = self.norm_1(tokens)
        tokens = tokens + self.attention(x, x, x, key_padding_mask=padding, attn_mask=future, need_weights=False)[0]
        return tokens + self.feed_forward(self.norm_2(tokens))
