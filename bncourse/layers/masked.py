"""Batch normalization of padded sequences: the padding has no part in the statistics."""

import torch
from torch import Tensor

from bncourse.layers.batch import BatchNorm1d

__all__ = ["MaskedBatchNorm1d"]


class MaskedBatchNorm1d(BatchNorm1d):
    """Batch normalization of (N, C, L) over the valid positions alone, as if the sequences were packed.

    ``BatchNorm1d`` counts padding as data: the more padding, the smaller the variance that it measures. Here the batch
    is the V valid positions, (V, C). Constructor, state and evaluation are those of ``BatchNorm1d``.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardize the valid positions.

        Args:
            input: (N, C, L); or (N, C), with whole samples that count or do not.
            mask: (N, L), or (N,), boolean: True where a position is valid. None: all are.

        Returns:
            a tensor as ``input``, 0 where the mask is False. No gradient comes from there, and NaN there stays there.

        Raises:
            ValueError: a mask of another shape or type; otherwise as ``BatchNorm1d``, with one valid position for one
                value per channel.
        """
        if mask is None:
            return super().forward(input)
        self._check_input_dim(input)
        valid = self.valid(input, mask)
        output = input.new_zeros(input.movedim(1, -1).shape)
        return output.masked_scatter(mask.unsqueeze(-1), super().forward(valid)).movedim(-1, 1)

    @staticmethod
    def valid(input: Tensor, mask: Tensor | None = None) -> Tensor:
        """The valid positions, (V, C), of an input; all of it without a mask."""
        if mask is None:
            return input
        shape = input.shape[:1] + input.shape[2:]
        if mask.dtype != torch.bool or mask.shape != shape:
            raise ValueError(
                f"mask must be boolean, of shape {tuple(shape)}, got {mask.dtype}, of shape {tuple(mask.shape)}"
            )
        return input.movedim(1, -1)[mask]
