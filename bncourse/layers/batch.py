"""Batch normalization: the statistics are the batch's in training, the running averages in evaluation."""

import torch
from torch import Tensor, nn

from bncourse.functional import batch_norm
from bncourse.layers.tools import Scriptable, one_step_for_fx
from bncourse.moved import names_of

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class NormBase(Scriptable):
    """What a batch norm keeps: gamma, beta and the running averages.

    As ``torch.nn.modules.batchnorm._NormBase``.

    Args:
        num_features: C of an input (N, C, ...).
        eps: added to the variance.
        momentum: weight of the NEW value in the running averages; None averages all
            batches equally.
        affine: learn a scale (``weight``, gamma) and a shift (``bias``, beta).
        track_running_stats: keep running averages; without them the input's statistics
            serve in evaluation too.
        device, dtype: of parameters and buffers.
        bias: False leaves out the shift.
    """

    _version = 2  # of the state: 2 added num_batches_tracked

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        nn.Module.__init__(self)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def features() -> Tensor:
            return torch.empty(num_features, device=device, dtype=dtype)

        self.register_parameter("weight", nn.Parameter(features()) if affine else None)
        self.register_parameter("bias", nn.Parameter(features()) if affine and bias else None)
        count = torch.tensor(0, device=device, dtype=torch.long) if track_running_stats else None
        self.register_buffer("running_mean", features() if track_running_stats else None)
        self.register_buffer("running_var", features() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget all batches: mean 0, variance 1, count 0."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Forget all batches, and set gamma to 1 and beta to 0."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        version, key = local_metadata.get("version"), prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.num_batches_tracked is not None and key not in state_dict:
            count = self.num_batches_tracked
            state_dict[key] = torch.tensor(0, dtype=torch.long) if count.is_meta else count
        nn.Module._load_from_state_dict(self, state_dict, prefix, local_metadata, *args)


class BatchNorm(NormBase):
    """Batch normalization of any rank. Subclasses say which ranks they take."""

    ranks: tuple[int, ...] = ()

    @property
    def uses_input_statistics(self) -> bool:
        """Whether the statistics are the input's own (training, or nothing tracked) or the running averages."""
        return self.training or (self.running_mean is None and self.running_var is None)

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        output = self.normalize(input, self.weight, self.bias)
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)  # just after the averages moved: checkpointing may stop before both
        return output

    def normalize(self, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """``batch_norm`` with this layer's memory and the given gamma and beta (``BatchRenorm`` changes them).

        Training without tracking neither reads nor moves the memory.
        """
        remember = not self.training or self.track_running_stats
        return batch_norm(
            input,
            self.running_mean if remember else None,
            self.running_var if remember else None,
            weight,
            bias,
            self.uses_input_statistics,
            self.averaging_factor,
            self.eps,
        )

    @property
    def averaging_factor(self) -> float | Tensor:
        """The weight of a new batch in the running averages; ``momentum=None`` weighs all batches equally."""
        if self.momentum is not None:
            return self.momentum
        if not self.training or self.num_batches_tracked is None or self.running_mean is None:
            return 0.0
        precision = torch.promote_types(self.running_mean.dtype, torch.float32)
        return 1.0 / (1 + self.num_batches_tracked.to(precision))  # a tensor: torch.compile can follow it

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.ranks:
            expected = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {expected} input (got {input.dim()}D input)")


# The second base of each layer makes isinstance(layer, torch.nn.BatchNorm2d) true, for tools that look for torch's
# layer (torch.optim.swa_utils.update_bn for one); nothing of its code runs.


class BatchNorm1d(BatchNorm, nn.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L): each channel over the batch (and over L)."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm, nn.BatchNorm2d):
    """Batch normalization of (N, C, H, W): each channel over the batch and over space."""

    ranks = (4,)


class BatchNorm3d(BatchNorm, nn.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W): each channel over the batch and over space."""

    ranks = (5,)


__getattr__ = names_of(__name__)  # names of version 0.1
