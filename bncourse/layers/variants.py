"""Three answers to small batches: divide large ones, use the running averages in training, standardize the weights."""

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_2_t

from bncourse.layers.batch import BatchNorm
from bncourse.layers.tools import Scriptable, one_step_for_fx
from bncourse.standardize import inverse_std, mean_and_variance, standardize

__all__ = ["BatchRenorm", "GhostBatchNorm", "WeightStandardizedConv2d", "renorm_limits"]


class AnyRank(BatchNorm, nn.modules.batchnorm._BatchNorm):
    """Batch normalization of (N, C) or (N, C, ...). The second base makes ``update_bn`` see it."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


class GhostBatchNorm(AnyRank):
    """Batch normalization that treats a large batch as several small ones (Hoffer et al. 2017, arXiv 1705.08741).

    Each ghost batch is normalized with its own statistics and moves the running averages in turn, as if the
    batches had come one after another. Evaluation is that of batch normalization.

    Args:
        num_features: C of an input (N, C) or (N, C, ...).
        ghost_size: the most samples in one ghost batch. A batch that it does not divide is cut as evenly as can be.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``BatchNorm1d``.

    Raises:
        ValueError: ``ghost_size`` below 1, or one value per channel in a ghost batch.
    """

    def __init__(self, num_features: int, ghost_size: int, *args, **kwargs) -> None:
        if ghost_size < 1:
            raise ValueError(f"ghost_size must be at least 1, got {ghost_size}")
        super().__init__(num_features, *args, **kwargs)
        self.ghost_size = ghost_size

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.uses_input_statistics or len(input) <= self.ghost_size:
            return super().forward(input)
        ghosts = -(-len(input) // self.ghost_size)  # rounded up
        return torch.cat([BatchNorm.forward(self, ghost) for ghost in input.tensor_split(ghosts)])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


class BatchRenorm(AnyRank):
    """Batch normalization corrected towards the running averages (Ioffe 2017, arXiv 1702.03275).

    In training, output = (x_hat * r + d) * weight + bias with r = std / running_std clipped to [1 / r_max, r_max] and
    d = (mean - running_mean) / running_std clipped to [-d_max, d_max]. r and d count as constants: no gradient flows
    through them. Unclipped, that is exactly the evaluation's output; with r_max = 1 and d_max = 0 it is batch
    normalization. Evaluation is that of batch normalization.

    The paper starts as batch normalization and relaxes the limits while it trains, since the running averages mean
    little at first: before each step, ``layer.r_max, layer.d_max = renorm_limits(step)``.

    Args:
        num_features: C of an input (N, C) or (N, C, ...).
        r_max, d_max: how far the batch's statistics may differ from the running averages; attributes, to be changed
            at will.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``BatchNorm1d``; the running averages
            are what this layer leans on, so that without them it is batch normalization.

    Raises:
        ValueError: ``r_max`` below 1 or ``d_max`` below 0; otherwise as batch normalization.
    """

    def __init__(self, num_features: int, *args, r_max: float = 3.0, d_max: float = 5.0, **kwargs) -> None:
        if r_max < 1:
            raise ValueError(f"r_max must be at least 1, got {r_max}")
        if d_max < 0:
            raise ValueError(f"d_max must be at least 0, got {d_max}")
        super().__init__(num_features, *args, **kwargs)
        self.r_max = r_max
        self.d_max = d_max

    def normalize(self, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.training and self.track_running_stats and input.numel() and input.size(1) == self.num_features:
            r, d = self.corrections(input)
            bias = d if weight is None else weight * d if bias is None else weight * d + bias
            weight = r if weight is None else weight * r
        return super().normalize(input, weight, bias)

    def corrections(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """r and d, (C,): they turn the batch's statistics into the running averages, as far as the limits allow."""
        mean, variance = mean_and_variance(input.detach(), (0, *range(2, input.dim())))
        inverse_running_std = inverse_std(self.running_var, self.eps)
        r = inverse_running_std / inverse_std(variance.flatten(), self.eps)
        d = (mean.flatten() - self.running_mean) * inverse_running_std
        return r.clamp(1 / self.r_max, self.r_max), d.clamp(-self.d_max, self.d_max)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


def renorm_limits(step: int) -> tuple[float, float]:
    """r_max and d_max at a training step, as the paper sets them.

    1 and 0 for the first 5,000 steps, then linearly up to 3 at step 40,000 and 5 at step 25,000.
    """
    r_max = 1 + 2 * min(max((step - 5_000) / 35_000, 0), 1)
    d_max = 5 * min(max((step - 5_000) / 20_000, 0), 1)
    return r_max, d_max


class WeightStandardizedConv2d(Scriptable, nn.Conv2d):
    """A convolution whose filters are standardized before use (Qiao et al. 2019, arXiv 1903.10520).

    Each output channel's filter has mean 0 and variance 1 over (C_in / groups, K_h, K_w): ``standardize`` once more,
    applied to the weight instead of the activations. Meant for use before GroupNorm.

    Args:
        in_channels, out_channels, ...: as ``torch.nn.Conv2d``.
        eps: added to the variance of a filter.

    Raises:
        ValueError: filters of one weight, whose standardized value is always 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: _size_2_t, *args, eps: float = 1e-5, **kwargs
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        if self.weight[0].numel() == 1:
            raise ValueError(f"filters must have more than 1 weight, got weight of size {self.weight.size()}")
        self.eps = eps

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        weight, _, _ = standardize(self.weight, (1, 2, 3), eps=self.eps)
        return self._conv_forward(input, weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}"
