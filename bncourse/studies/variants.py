"""Chapter 7: which values share statistics, asked of the norm itself and drawn; and small sequence models."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from bncourse.devices import seeded
from bncourse.layers import BatchNorm1d, BatchNorm2d, GhostBatchNorm, GroupNorm, InstanceNorm2d, LayerNorm
from bncourse.layers.masked import MaskedBatchNorm1d
from bncourse.plotting import NORM_STYLES, figure

__all__ = ["AttentionBlock", "PerToken", "RowReaders", "TokenBatchNorm", "draw_axes", "partners", "sharing"]


class PerToken(nn.Module):
    """``norm``, which acts on the last axis, for the channels at each position by themselves: (N, C, ...)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


SAMPLES, CHANNELS = 4, 6
SHAPE = (SAMPLES, CHANNELS, 3, 3)  # of the feature map that is drawn
DRAWN = (  # the norm's style, how it is applied, and the number of values that share statistics
    ("batch", "", BatchNorm2d(CHANNELS), "N·H·W values"),
    ("ghost", "", GhostBatchNorm(CHANNELS, ghost_size=2), "ghost size·H·W values"),
    ("layer", ", whole sample", LayerNorm(SHAPE[1:]), "C·H·W values"),
    ("layer", ", per token", PerToken(LayerNorm(CHANNELS)), "C values"),
    ("group", "", GroupNorm(3, CHANNELS), "C/G·H·W values"),
    ("instance", "", InstanceNorm2d(CHANNELS), "H·W values"),
)


def partners(norm: nn.Module, shape: tuple[int, ...], at: tuple[int, ...] | None = None) -> Tensor:
    """Which values of an input of ``shape`` help to normalize the one at ``at``: bool.

    Those are the values that the output at ``at`` changes with: its derivative with
    respect to them is not zero.

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
    for panel, (name, how, norm, count) in zip(panels.flat, DRAWN, strict=True):
        style = NORM_STYLES[name]
        for (sample, channel, y, x), shared in np.ndenumerate(partners(norm, SHAPE)):
            corner = channel + 0.3 * x, SAMPLES - 1 - sample + 0.3 * y
            panel.add_patch(Rectangle(corner, 0.27, 0.27, facecolor=style.colour if shared else "#E8E8E8"))
        panel.set(xlim=(-0.1, CHANNELS), ylim=(-0.1, SAMPLES), aspect="equal", xticks=[], yticks=[])
        panel.set(title=f"{style.label}{how}\n{count}", xlabel="channels C", ylabel="samples N")
        panel.grid(False)
        panel.spines[:].set_visible(False)
    return fig


class TokenBatchNorm(MaskedBatchNorm1d):
    """Batch normalization of tokens (N, T, F): each feature over all tokens of all sequences, padding left out."""

    def forward(self, input: Tensor, padding: Tensor | None = None) -> Tensor:
        """``padding``: (N, T), True where a token is only filling; None counts every token."""
        return super().forward(input.movedim(-1, 1), None if padding is None else ~padding).movedim(1, -1)


class RowReaders(nn.Module):
    """Recurrent networks that read images row by row, one for each seed: (S, N, C * H * W) to 10 scores, (S, N, 10).

    state = tanh(norm(W row + U state)) (Ba et al. 2016, section 3.1). ``train_many`` trains them.

    Args:
        norm: "none"; "layer"; "batch", one BatchNorm for all steps; "batch by step", one for each (Cooijmans et al.
            2016).
        shape: (C, H, W).
        every: 2 reads every second row.
    """

    def __init__(self, seeds: Sequence[int], norm: str, shape: Sequence[int], hidden: int = 48, every: int = 2) -> None:
        from bncourse.studies.many_networks import ManyLinear, SideBySide  # here: the figure of the axes needs no data

        super().__init__()
        self.seeds, self.shape, self.every, count = tuple(seeds), tuple(shape), every, len(seeds)
        channels, height, width = self.shape
        layers = []
        for seed in seeds:
            with seeded(seed):
                sizes = (channels * width, hidden), (hidden, hidden), (hidden, 10)
                layers.append([nn.Linear(features, out_features) for features, out_features in sizes])
        self.from_row, self.from_state, self.to_scores = (ManyLinear(same) for same in zip(*layers, strict=True))
        makers: dict[str, Callable[[], nn.Module]] = {
            "none": nn.Identity,
            "layer": lambda: GroupNorm(count, count * hidden),
            "batch": lambda: BatchNorm1d(count * hidden),
        }
        norms = -(-height // every) if norm == "batch by step" else 1
        self.norms = nn.ModuleList(SideBySide(makers[norm.split()[0]]()) for _ in range(norms))

    def forward(self, images: Tensor) -> Tensor:
        rows = images.unflatten(2, self.shape).transpose(2, 3).flatten(3)[:, :, :: self.every]  # (S, N, steps, C * W)
        rows = self.from_row(rows.flatten(1, 2)).unflatten(1, rows.shape[1:3])
        state = torch.zeros_like(rows[:, :, 0])
        for step, row in enumerate(rows.unbind(2)):
            norm = self.norms[step % len(self.norms)]
            state = torch.tanh(norm(row + self.from_state(state)))
        return self.to_scores(state)


class AttentionBlock(nn.Module):
    """One block of a transformer, its norms before attention and before the feed-forward part: (N, T, F) to (N, T, F).

    Args:
        norm: makes a norm from the number of features.
        causal: whether a token attends only to itself and to earlier ones.
        masked: tell the norms, too, which tokens are padding (``TokenBatchNorm`` then leaves them out).
    """

    def __init__(
        self,
        norm: Callable[[int], nn.Module],
        features: int = 32,
        heads: int = 4,
        causal: bool = False,
        masked: bool = False,
    ) -> None:
        super().__init__()
        self.causal, self.masked = causal, masked
        self.norm_1, self.norm_2 = norm(features), norm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
        )

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """``padding``: (N, T), True where a token is only filling."""
        count = tokens.shape[1]
        future = torch.ones(count, count, dtype=torch.bool, device=tokens.device).triu(1) if self.causal else None
        known = [padding] if self.masked else []
        x = self.norm_1(tokens, *known)
        tokens = tokens + self.attention(x, x, x, key_padding_mask=padding, attn_mask=future, need_weights=False)[0]
        return tokens + self.feed_forward(self.norm_2(tokens, *known))
