"""Batch normalization that stays in evaluation."""

from torch import nn

from bncourse.layers.batch import BatchNorm

__all__ = ["FrozenBatchNorm"]


class FrozenBatchNorm(BatchNorm):
    """The batch norm ``norm`` in evaluation for good: ``train()`` does not reach it, nothing moves its statistics.

    It takes over the tensors of ``norm``, so that parameters in an optimizer and keys of the state stay valid. Tools
    that look for torch's batch norm (``update_bn``, conversion to SyncBatchNorm) do not take it for one.
    """

    ranks = (2, 3, 4, 5)

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, bias=norm.bias is not None)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        return super().train(False)
