"""Batch normalization over the batches of several processes: the statistics come from all of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bncourse import distributed
from bncourse.checks import check_eps, check_tensors
from bncourse.functional import dense, mean_and_variance, move_running_average, standardize
from bncourse.kernels import at_least_float32
from bncourse.layers.batch import BatchNorm

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(BatchNorm, nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose batch is that of all processes together, as ``torch.nn.SyncBatchNorm``.

    Output, input gradient and running averages equal those of one process on the whole batch. The gradients of weight
    and bias are those of this process's part; DistributedDataParallel averages them. Parts may differ in size and may
    be empty. Works with any backend, on the processor too (torch's refuses it). In evaluation, and where no processes
    were started, it is plain batch normalization.

    Args:
        num_features: C of an input (N, C) or (N, C, ...).
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``BatchNorm1d``.
        process_group: the processes that share statistics; None means all.

    Raises:
        ValueError: fewer than 2 dimensions, no channels, one value per channel in all processes together.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any | None = None,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def normalize(self, input: Tensor, weight: Tensor | None, bias: Tensor | None, momentum: float | Tensor) -> Tensor:
        if not self.training or distributed.world_size(self.process_group) == 1:
            return super().normalize(input, weight, bias, momentum)
        check_eps(self.eps, training=True)
        running = {"running_mean": self.running_mean, "running_var": self.running_var}
        check_tensors("batch_norm", input, input.size(1), **running, weight=weight, bias=bias)
        output, mean, variance, count = _SyncStandardize.apply(input, weight, bias, self.eps, self.process_group)
        if self.track_running_stats and self.running_mean is not None and count > 0:
            move_running_average(self.running_mean, mean, momentum)
            move_running_average(self.running_var, variance * (count / (count - 1)), momentum)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        if input.size(1) == 0:
            raise ValueError("SyncBatchNorm number of input channels should be non-zero")

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any | None = None) -> nn.Module:
        """Replace every BatchNorm1d, 2d and 3d in ``module``, ours or torch's, by a SyncBatchNorm with its tensors.

        Returns:
            The module, changed in place; the new layer, if the module itself is a batch norm.
        """
        converted = module
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            converted = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                bias=module.bias is not None,
            )
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training"):
                setattr(converted, name, getattr(module, name))
        for name, child in module.named_children():
            converted.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return converted


class _SyncStandardize(torch.autograd.Function):
    """``standardize`` over the channels of a batch that lies in several processes; one collective in each direction."""

    @staticmethod
    def forward(ctx, input, weight, bias, eps, group):
        shape, dims = (1, input.size(1)) + (1,) * (input.dim() - 2), (0, *range(2, input.dim()))
        mean, variance, count = combined_statistics(input, dims, group)
        if count == 1:
            raise ValueError(
                "Expected more than 1 value per channel when training, in all processes together, "
                f"got input size {input.size()} here"
            )
        statistics = mean.view(shape), variance.view(shape)
        ctx.save_for_backward(input, weight, *statistics)
        ctx.arguments = dims, eps, shape, count, group
        output = standardize(dense(input), dims, weight, bias, eps, shape=shape, statistics=statistics)[0]
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, *_):
        input, weight, mean, variance = ctx.saved_tensors
        dims, eps, shape, count, group = ctx.arguments
        inverse_std = (variance + eps).rsqrt()
        x_hat = (at_least_float32(input) - mean) * inverse_std
        g = at_least_float32(dy)
        here = torch.stack([g.sum(dims), (g * x_hat).sum(dims)])  # dbias and dweight of this process's part
        everywhere = distributed.total(here.clone(), group) / count
        mean_g, mean_g_x_hat = everywhere[0].view(shape), everywhere[1].view(shape)
        dx = (g - mean_g - x_hat.mul_(mean_g_x_hat)) * inverse_std  # as in functional.standardize_backward
        if weight is not None:
            dx *= weight.view(shape)
        dbias, dweight = here.to(dx.dtype if weight is None else weight.dtype)
        needs = ctx.needs_input_grad
        return dx.to(input.dtype), dweight if needs[1] else None, dbias if needs[2] else None, None, None


def combined_statistics(input: Tensor, dims: tuple[int, ...], group: Any | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, and the number of values behind them.

    Each process sends its count, mean and variance. The whole variance is the mean of the parts' variances plus the
    variance of the parts' means, both weighted by the counts (Chan et al. 1979): no difference of large numbers.
    """
    channels = input.size(1)
    if input.numel() == 0:
        mean = variance = at_least_float32(input).new_zeros(channels)
    else:
        mean, variance = (statistic.flatten() for statistic in mean_and_variance(input, dims))
    count = mean.new_full((1,), input.numel() // channels)
    parts = distributed.gather(torch.cat([mean, variance, count]), group)
    means, variances, counts = parts.split([channels, channels, 1], dim=1)
    total = counts.sum()
    shares = counts / total.clamp(min=1)  # all parts may be empty
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    return mean, variance, total
