"""Batch normalization that stays in evaluation."""

from functools import cache
from typing import Any

from torch import nn

from bncourse.layers.batch import BatchNorm

__all__ = ["FrozenBatchNorm"]


class StaysInEvaluation(nn.Module):
    """Mixed into a batch norm: ``train()`` does not reach it, its statistics stay."""

    def train(self, mode: bool = True) -> "StaysInEvaluation":
        super().train(mode)  # its parts follow: a dropout in it, say
        self.training = False
        return self

    def reset_running_stats(self) -> None:
        """Nothing: they are frozen.

        ``update_bn`` would fill them again from batches that this layer ignores.
        """


class FrozenBatchNorm(StaysInEvaluation, BatchNorm):
    """The batch norm ``norm`` in evaluation for good.

    ``train()`` does not reach it, nothing moves its statistics. It takes over the
    tensors of ``norm``, so that parameters in an optimizer and keys of the state stay
    valid. Tools that look for torch's batch norm (``update_bn``, conversion to
    SyncBatchNorm) do not take it for one.
    """

    ranks = (2, 3, 4, 5)

    def __init__(self, norm: nn.Module) -> None:
        BatchNorm.__init__(self, norm.num_features, norm.eps, norm.momentum, norm.affine, bias=norm.bias is not None)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.eval()


@cache
def frozen_class(cls: type) -> type:
    """A subclass of the batch norm ``cls`` that does all that ``cls`` does, and stays in evaluation."""

    def __reduce__(self):  # copies and pickles: a class that was made here is found by the one it was made of
        return frozen_module, (cls,), vars(self).copy()

    return type(f"Frozen{cls.__name__}", (StaysInEvaluation, cls), {"__reduce__": __reduce__, "__module__": __name__})


def frozen_module(cls: type) -> nn.Module:
    frozen: Any = frozen_class(cls)
    return frozen.__new__(frozen)
