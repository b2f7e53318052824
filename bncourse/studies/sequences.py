"""Two small sequence models, recurrent and attentive, whose norm is an argument."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bncourse.layers import BatchNorm1d

__all__ = ["AttentionBlock", "RowReader", "TokenBatchNorm"]


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
        future = torch.ones(count, count, dtype=torch.bool).triu(1) if self.causal else None
        x = self.norm_1(tokens)
        tokens = tokens + self.attention(x, x, x, key_padding_mask=padding, attn_mask=future, need_weights=False)[0]
        return tokens + self.feed_forward(self.norm_2(tokens))
