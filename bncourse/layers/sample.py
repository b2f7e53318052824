"""Norms of one sample at a time: the batch plays no part, training and evaluation agree."""

import warnings
from numbers import Integral

import torch
from torch import Tensor, nn

from bncourse.functional import group_norm, instance_norm, layer_norm, rms_norm
from bncourse.layers.batch import NormWithMemory

__all__ = ["GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "RMSNorm"]


class NormWithoutMemory(nn.Module):
    """What layer, RMS and group norm have in common: gamma, and beta where there is one."""

    def _make_parameters(self, shape: tuple[int, ...], weight: bool, bias: bool, device, dtype) -> None:
        """Last in ``__init__``: the ``reset_parameters`` of a subclass may read any attribute."""
        for name, wanted in (("weight", weight), ("bias", weight and bias)):
            values = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, values)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gamma to 1 and beta to 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if getattr(self, "bias", None) is not None:
            nn.init.zeros_(self.bias)


class LayerNorm(NormWithoutMemory, nn.LayerNorm):
    """Standardize each sample over its last axes (Ba et al. 2016, arXiv 1607.06450).

    Args:
        normalized_shape: sizes of the last axes; an integer means the last one.
        eps: added to the variance.
        elementwise_affine: learn ``weight`` and ``bias``, both of shape ``normalized_shape``.
        bias: False leaves out the shift.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        nn.Module.__init__(self)
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.elementwise_affine = elementwise_affine
        self._make_parameters(self.normalized_shape, elementwise_affine, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(NormWithoutMemory, nn.RMSNorm):
    """Divide each sample by its root mean square (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        normalized_shape: sizes of the last axes; an integer means the last one.
        eps: added to the mean square; None takes the machine epsilon of the type computed in.
        elementwise_affine: learn ``weight``, of shape ``normalized_shape``. There is no bias.
        device, dtype: of the parameter.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        nn.Module.__init__(self)
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.elementwise_affine = elementwise_affine
        self._make_parameters(self.normalized_shape, elementwise_affine, False, device, dtype)

    def forward(self, x: Tensor) -> Tensor:  # torch's name for it, here only
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(NormWithoutMemory, nn.GroupNorm):
    """Standardize each group of channels of each sample (Wu and He 2018, arXiv 1803.08494).

    Args:
        num_groups: G, a divisor of ``num_channels``. 1 shares LayerNorm's statistics, C is InstanceNorm.
        num_channels: C of an input (N, C, ...).
        eps: added to the variance.
        affine: learn ``weight`` and ``bias``, one of each per channel.
        device, dtype: of the parameters.
        bias: False leaves out the shift.

    Raises:
        ValueError: fewer than one group, or groups that do not divide the channels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        if num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, but got {num_groups}")
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        nn.Module.__init__(self)
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._make_parameters((num_channels,), affine, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class InstanceNorm(NormWithMemory):
    """Standardize each channel of each sample over space (Ulyanov et al. 2016, arXiv 1607.08022).

    The arguments are those of batch normalization, but ``affine`` and ``track_running_stats`` are False by default.
    An input without the batch axis is taken as one sample.
    """

    spatial_dims = 0

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        one_sample = input.dim() == self.spatial_dims + 1
        output = instance_norm(
            input.unsqueeze(0) if one_sample else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return output.squeeze(0) if one_sample else output

    def _check_input_dim(self, input: Tensor) -> None:
        unbatched, batched = self.spatial_dims + 1, self.spatial_dims + 2
        if input.dim() not in (unbatched, batched):
            raise ValueError(f"expected {unbatched}D or {batched}D input (got {input.dim()}D input)")
        axis = input.dim() - unbatched
        if input.size(axis) != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={axis} to match num_features ({self.num_features}), "
                    f"but got: {input.size(axis)}."
                )
            warnings.warn(
                f"input's size at dim={axis} does not match num_features. You can silence this warning by not "
                "passing in num_features, which is not used because affine=False",
                stacklevel=3,
            )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
        if local_metadata.get("version") is None and not self.track_running_stats:
            for key in (prefix + "running_mean", prefix + "running_var"):
                if state_dict.pop(key, None) is not None:
                    errors.append(
                        f'Unexpected running stats buffer(s) "{key}" for {type(self).__name__} with '
                        "track_running_stats=False: remove the key, or set track_running_stats=True"
                    )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)


class InstanceNorm1d(InstanceNorm, nn.InstanceNorm1d):
    """Instance normalization of (N, C, L) or (C, L)."""

    spatial_dims = 1


class InstanceNorm2d(InstanceNorm, nn.InstanceNorm2d):
    """Instance normalization of (N, C, H, W) or (C, H, W)."""

    spatial_dims = 2


class InstanceNorm3d(InstanceNorm, nn.InstanceNorm3d):
    """Instance normalization of (N, C, D, H, W) or (C, D, H, W)."""

    spatial_dims = 3


def _as_shape(normalized_shape: int | list[int] | torch.Size) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, Integral) else tuple(normalized_shape)
