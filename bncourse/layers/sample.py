"""Norms of one sample at a time: the batch plays no part, training and evaluation agree.

Constructor, parameters, state and representation are those of torch's layer, which each class inherits; what it
computes is ours.
"""

import torch
from torch import Tensor, nn

from bncourse.functional import group_norm, instance_norm, layer_norm, rms_norm
from bncourse.layers.tools import Scriptable, one_step_for_fx

__all__ = ["GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "RMSNorm"]


class Described(Scriptable):
    """A module whose description does not stop torch.compile: it cannot follow torch's ``str.format`` (2.13)."""

    def extra_repr(self) -> str:
        return "" if torch.compiler.is_compiling() else super().extra_repr()  # type: ignore[misc]


class LayerNorm(Described, nn.LayerNorm):
    """Standardize each sample over its last axes (Ba et al. 2016, arXiv 1607.06450).

    Args:
        normalized_shape: sizes of the last axes; an integer means the last one.
        eps: added to the variance.
        elementwise_affine: learn ``weight`` and ``bias``, both of shape ``normalized_shape``.
        bias: False leaves out the shift.
        device, dtype: of the parameters.
    """

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Described, nn.RMSNorm):
    """Divide each sample by its root mean square (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        normalized_shape: sizes of the last axes; an integer means the last one.
        eps: added to the mean square; None takes the machine epsilon of the type computed in.
        elementwise_affine: learn ``weight``, of shape ``normalized_shape``. There is no bias.
        device, dtype: of the parameter.
    """

    @one_step_for_fx
    def forward(self, x: Tensor) -> Tensor:  # torch's name for it, here only
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(Described, nn.GroupNorm):
    """Standardize each group of channels of each sample (Wu and He 2018, arXiv 1803.08494).

    Args:
        num_groups: G, a divisor of ``num_channels``. 1 shares LayerNorm's statistics, C is InstanceNorm.
        num_channels: C of an input (N, C, ...).
        eps: added to the variance.
        affine: learn ``weight`` and ``bias``, one of each per channel.
        device, dtype: of the parameters.
        bias: False leaves out the shift (where torch's layer has this argument).

    Raises:
        ValueError: groups that do not divide the channels.
    """

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(Described, nn.modules.instancenorm._InstanceNorm):
    """Standardize each channel of each sample over space (Ulyanov et al. 2016, arXiv 1607.08022).

    The arguments are those of batch normalization, but ``affine`` and ``track_running_stats`` are False by default.
    An input without the batch axis is taken as one sample.
    """

    @one_step_for_fx
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)

    def _apply_instance_norm(self, input: Tensor) -> Tensor:  # torch's ``forward`` has checked the input
        return instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )


class InstanceNorm1d(InstanceNorm, nn.InstanceNorm1d):
    """Instance normalization of (N, C, L) or (C, L)."""


class InstanceNorm2d(InstanceNorm, nn.InstanceNorm2d):
    """Instance normalization of (N, C, H, W) or (C, H, W)."""


class InstanceNorm3d(InstanceNorm, nn.InstanceNorm3d):
    """Instance normalization of (N, C, D, H, W) or (C, D, H, W)."""
