"""Batch normalization over the batches of several processes: the statistics come from all of them."""

import copy
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from bncourse.checks import check_eps, check_tensors
from bncourse.functional import contiguous_or_channels_last, per_channel, update_running_average
from bncourse.kernels import sum_over
from bncourse.layers.batch import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from bncourse.layers.replace import known_class, replace_layers
from bncourse.standardize import at_least_float32, formula_backward, mean_and_variance, pooled, standardize

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(BatchNorm, _BatchNorm):
    """Batch normalization whose batch is that of all processes together, as ``torch.nn.SyncBatchNorm``.

    Output, input gradient and running averages equal those of one process on the whole batch. The gradients of weight
    and bias are those of this process's part; DistributedDataParallel averages them. Parts may differ in size and may
    be empty. Works with any backend, on the CPU too (torch's refuses it). In evaluation, and where no processes
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

    def normalize(self, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self.training or world_size(self.process_group) == 1:
            return super().normalize(input, weight, bias)
        check_eps(self.eps, training=True)
        running = {"running_mean": self.running_mean, "running_var": self.running_var}
        check_tensors("batch_norm", input, input.size(1), **running, weight=weight, bias=bias)
        weight, bias = per_channel(weight, input), per_channel(bias, input)
        output, mean, variance, count = SyncStandardize.apply(input, weight, bias, self.eps, self.process_group)
        if self.track_running_stats and self.running_mean is not None and count > 0:
            update_running_average(self.running_mean, mean, self.averaging_factor)
            update_running_average(self.running_var, variance * (count / (count - 1)), self.averaging_factor)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        if input.size(1) == 0:
            raise ValueError("SyncBatchNorm number of input channels should be non-zero")

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any | None = None) -> nn.Module:
        """Replace every BatchNorm1d, 2d and 3d in ``module``, ours or torch's, by a SyncBatchNorm with its tensors.

        Hooks and settings stay. A subclass with methods of its own (a batch norm that also activates) stays as it is,
        with a warning: torch's conversion would lose what it adds.

        Returns:
            The module, changed in place; the new layer, if the module itself is a batch norm.
        """
        norms = {name: norm for name, norm in module.named_modules() if isinstance(norm, _BatchNorm)}
        left = [f"{name!r} ({type(norm).__name__})" for name, norm in norms.items() if not known_class(norm, PLAIN)]
        if left:
            warnings.warn(
                f"convert_sync_batchnorm leaves {', '.join(left)}, which may do more than a batch norm", stacklevel=2
            )
        converted = {norm: cls._from(norm, process_group) for norm in norms.values() if known_class(norm, PLAIN)}
        return replace_layers(module, converted)

    @classmethod
    def _from(cls, norm: nn.Module, process_group: Any | None) -> "SyncBatchNorm":
        """A SyncBatchNorm with all that ``norm`` has: settings, tensors, mode, hooks."""
        converted = copy.copy(norm)  # they share their parameters and hooks
        converted.__class__ = cls
        converted.process_group = process_group
        return converted


PLAIN = {BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm}
PLAIN |= {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}


class SyncStandardize(torch.autograd.Function):
    """``standardize`` over the channels of a batch that lies in several processes.

    It takes one collective in each direction.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, eps, group):
        dims = (0, *range(2, input.dim()))
        mean, variance, count = combined_statistics(input, dims, group)
        if count == 1:
            wanted = "Expected more than 1 value per channel when training"
            size = f"got input size {input.size()} here"
            raise ValueError(f"{wanted}, in all processes together, {size}")
        statistics = per_channel(mean, input), per_channel(variance, input)
        ctx.save_for_backward(input, weight, *statistics)
        ctx.dims, ctx.eps, ctx.count, ctx.group = dims, eps, count, group
        output = standardize(contiguous_or_channels_last(input), dims, weight, bias, eps, statistics=statistics)[0]
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, *_):
        input, weight, mean, variance = ctx.saved_tensors

        def means(*values: Tensor) -> Tensor:
            sums = torch.stack([sum_over(value, ctx.dims) for value in values])
            return all_reduce(sums, ctx.group) / ctx.count

        gamma = torch.ones_like(mean) if weight is None else weight
        dx, dweight, dbias = formula_backward(
            dy, input, ctx.dims, gamma, ctx.eps, statistics=(mean, variance), means=means
        )
        needs = ctx.needs_input_grad
        return dx, dweight if needs[1] else None, dbias if needs[2] else None, None, None


def combined_statistics(input: Tensor, dims: tuple[int, ...], group: Any | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, and their count."""
    channels = input.size(1)
    if input.numel() == 0:
        mean = variance = at_least_float32(input).new_zeros(channels)
    else:
        mean, variance = (statistic.flatten() for statistic in mean_and_variance(input, dims))
    count = mean.new_full((1,), input.numel() // channels)
    parts = all_gather(torch.cat([mean, variance, count]), group)
    means, variances, counts = parts.split([channels, channels, 1], dim=1)
    return pooled(means, variances, counts)


def world_size(group: Any | None = None) -> int:
    """How many processes work together in ``group`` (None: all of them); 1 where none were started."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def all_gather(values: Tensor, group: Any | None = None) -> Tensor:
    """``values`` of every process, stacked: (processes, ...). One collective; all processes must call it."""
    received = [torch.empty_like(values) for _ in range(world_size(group))]
    dist.all_gather(received, values.contiguous(), group=group)
    return torch.stack(received)


def all_reduce(values: Tensor, group: Any | None = None) -> Tensor:
    """The sum of ``values`` over the processes, in place. One collective; all processes must call it."""
    dist.all_reduce(values, group=group)
    return values
