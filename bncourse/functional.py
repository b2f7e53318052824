"""Every normalization here is one operation: standardize over some axes, then scale and shift.

The norms differ in three things only: which axes share a mean and a variance, what is remembered from one call
to the next, and where the statistics come from.

| norm          | values that share statistics, input (N, C, H, W)  | remembers        | statistics in evaluation |
|---------------|---------------------------------------------------|------------------|--------------------------|
| batch_norm    | one channel of the whole batch: N, H, W           | running averages | the running averages     |
| layer_norm    | all features of one sample: the last axes         | nothing          | the input's own          |
| group_norm    | a group of channels of one sample: C / G, H, W    | nothing          | the input's own          |
| instance_norm | one channel of one sample: H, W                   | nothing (option) | the input's own (option) |
| rms_norm      | as layer_norm, but it only scales: mean taken as 0 | nothing         | the input's own          |

Arguments, results, gradients and exceptions follow the function of the same name in ``torch.nn.functional``.
"""

import math

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from bncourse import kernels
from bncourse.checks import check_eps, check_groups, check_normalized_shape, check_tensors
from bncourse.kernels import at_least_float32

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "standardize"]

# Older compilers cannot follow _CompiledStandardize everywhere; they get the formula. (Seen to work: 2.13.)
COMPILES_FUNCTIONS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)

# ----------------------------------------------------------------------------------------------------------------------
# The one operation
# ----------------------------------------------------------------------------------------------------------------------


def standardize(
    input: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    shape: tuple[int, ...] | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
    center: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give ``input`` mean 0 and variance 1 over ``dims``, then scale and shift it.

    output = (input - mean) / sqrt(variance + eps) * weight + bias, with the biased variance (divided by the count).

    Args:
        input: any shape, a floating-point type. Half precision is computed in float32.
        dims: the axes over which values share a mean and a variance, counted from 0.
        weight, bias: None leaves them out.
        eps: added to the variance, so that a constant input gives 0 and not a division by 0.
        shape: how to view ``weight`` and ``bias`` so that they have ``input``'s rank and broadcast against it; None if
            they do.
        statistics: mean and variance to use instead of the input's own; no gradient flows through them.
        center: False takes the mean as 0.

    Returns:
        output, of ``input``'s shape and type; the mean and variance used, with size 1 along ``dims``. The gradient of
        the output includes what flows through its statistics; the mean and variance handed back carry none.
    """
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    if COMPILES_FUNCTIONS and torch.compiler.is_dynamo_compiling() and statistics is None and not _transformed():
        return _CompiledStandardize.apply(input, _view(weight, shape), _view(bias, shape), dims, eps, center)
    if _torch_takes_the_formula():
        output, mean, variance = _formula(
            input, _view(weight, shape), _view(bias, shape), dims, eps, statistics, center
        )
        return output, mean.detach(), variance.detach()
    return _Standardize.apply(input, weight, bias, dims, eps, shape, statistics, center)


def _formula(input, weight, bias, dims, eps, statistics, center) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = statistics or mean_and_variance(input, dims, center)
    x_hat = (at_least_float32(input) - mean) * (variance + eps).rsqrt()
    return _scale_and_shift(x_hat, weight, bias).to(input.dtype), mean, variance


def mean_and_variance(input: Tensor, dims: tuple[int, ...], center: bool = True) -> tuple[Tensor, Tensor]:
    """Mean, and mean squared distance from it, with size 1 along ``dims``; half precision gives float32.

    (The shortcut E[x^2] - E[x]^2 would lose all digits of a variance that is small beside the mean.)
    """
    x = at_least_float32(input)
    mean = x.mean(dims, keepdim=True) if center else x.new_zeros(())
    return mean, (x - mean).square().mean(dims, keepdim=True)


def standardize_backward(
    dy: Tensor,
    input: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    given: bool = False,
    center: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of ``standardize`` in closed form, given the gradient ``dy`` of its output.

    With g = dy * weight, the gradient of x_hat, the input's gradient is g less its two parts that x_hat cannot follow,
    because the mean of x_hat is always 0 and its variance always 1:

        dx = (g - mean(g) - x_hat * mean(g * x_hat)) / std

    The first part stays if the mean is taken as 0; both stay if the statistics were given: then dx = g / std.

    Args:
        dy: of ``input``'s shape.
        input, dims, weight, eps, center: as for ``standardize``; ``weight`` of ``input``'s rank.
        statistics: the mean and variance of the forward pass; None computes them again.
        given: whether they were given to ``standardize``.

    Returns:
        dx, dweight and dbias; the last two are None without a weight.
    """
    x, dy = at_least_float32(input), at_least_float32(dy)
    mean, variance = statistics or mean_and_variance(input, dims, center)
    inverse_std = (variance + eps).rsqrt()
    x_hat = (x - mean) * inverse_std
    g = dy if weight is None else dy * weight
    dx = g
    if not given:
        dx = dx - x_hat * (g * x_hat).mean(dims, keepdim=True)
        if center:
            dx = dx - g.mean(dims, keepdim=True)
    dx = (dx * inverse_std).to(input.dtype)
    if weight is None:
        return dx, None, None
    return dx, (dy * x_hat).sum_to_size(weight.shape), dy.sum_to_size(weight.shape)


class _Standardize(torch.autograd.Function):
    """The two formulas as torch's autograd calls them. Kept from forward to backward: the input and its statistics."""

    @staticmethod
    def forward(ctx, input, weight, bias, dims, eps, shape, statistics, center):
        gamma, beta = _view(weight, shape), _view(bias, shape)
        output, mean, variance = kernels.standardize(input, dims, gamma, beta, eps, statistics, center)
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.arguments = dims, eps, shape, statistics is None, center
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return output, mean, variance

    @staticmethod
    def backward(ctx, dy, _dmean, _dvariance):
        input, weight, mean, variance = ctx.saved_tensors
        dims, eps, shape, own_statistics, center = ctx.arguments
        gamma, dx, dweight, dbias = _view(weight, shape), None, None, None
        if dy is not None and (torch.is_grad_enabled() or _torch_takes_the_formula() or is_legacy_batchedtensor(dy)):
            # A derivative of these gradients may be wanted (then the statistics are functions of the input), or many
            # gradients at once: torch has to follow each step.
            statistics = None if own_statistics else (mean, variance)
            dx, dweight, dbias = standardize_backward(
                dy, input, dims, gamma, eps, statistics=statistics, given=not own_statistics, center=center
            )
        elif dy is not None:
            dx, dweight, dbias = kernels.standardize_backward(
                dy, input, dims, gamma, eps, mean, variance, own_statistics, center
            )
        dweight = dweight.view(weight.shape) if ctx.needs_input_grad[1] and dweight is not None else None
        dbias = dbias.view(weight.shape) if ctx.needs_input_grad[2] and dbias is not None else None
        return dx, dweight, dbias, None, None, None, None, None


class _CompiledStandardize(torch.autograd.Function):
    """The two formulas for torch.compile, which fuses their steps: left to itself it would go over the input 7 times
    where these need 5."""

    @staticmethod
    def forward(ctx, input, weight, bias, dims, eps, center):
        output, mean, variance = _formula(input, weight, bias, dims, eps, None, center)
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.dims, ctx.eps, ctx.center, ctx.shifted = dims, eps, center, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx, dy, _dmean, _dvariance):
        input, weight, mean, variance = ctx.saved_tensors
        dx, dweight, dbias = standardize_backward(
            dy, input, ctx.dims, weight, ctx.eps, statistics=(mean, variance), center=ctx.center
        )
        if weight is not None:
            dweight, dbias = dweight.to(weight.dtype), dbias.to(weight.dtype) if ctx.shifted else None
        return dx, dweight, dbias, None, None, None


def _scale_and_shift(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x_hat = x_hat * weight
    return x_hat if bias is None else x_hat + bias


def _view(parameter: Tensor | None, shape: tuple[int, ...] | None) -> Tensor | None:
    return parameter if parameter is None or shape is None else parameter.view(shape)


def _torch_takes_the_formula() -> bool:
    """Whether torch works on the formula itself: torch.compile and export, tracing, torch.func, forward mode."""
    return torch.compiler.is_compiling() or _transformed() or torch.jit.is_tracing()


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


# ----------------------------------------------------------------------------------------------------------------------
# The norms
# ----------------------------------------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Standardize each channel over the batch (Ioffe and Szegedy 2015, arXiv 1502.03167).

    In training the statistics are the batch's, and the running averages move towards them in place:
    running = (1 - momentum) * running + momentum * new, with the unbiased variance. In evaluation the statistics are
    the running averages.

    Args:
        input: (N, C, ...).
        running_mean, running_var: (C,), or both None. Needed in evaluation.
        weight, bias: gamma and beta, (C,), or None.
        training: whether the statistics are those of ``input``.
        momentum: the weight of the NEW value in the running averages.

    Raises:
        ValueError: training with one value per channel; ``eps`` below 0, or 0 in training; one running average only.
        RuntimeError: a size, type or device that does not match ``input``; evaluation without running averages.
    """
    channels, dims = input.size(1), (0, *range(2, input.dim()))
    count = math.prod([input.shape[d] for d in dims])
    if training and count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    check_eps(eps, training)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if not training and running_mean is None:
        raise RuntimeError("running_mean and running_var must be defined in evaluation mode")
    check_tensors(
        "batch_norm", input, channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    input, shape = dense(input), (1, channels) + (1,) * (input.dim() - 2)
    if count == 0:
        return _scale_and_shift(input, _view(weight, shape), _view(bias, shape))
    if not training:
        statistics = running_mean.view(shape), running_var.view(shape)
        return standardize(input, dims, weight, bias, eps, shape=shape, statistics=statistics)[0]
    output, mean, variance = standardize(input, dims, weight, bias, eps, shape=shape)
    if running_mean is not None:
        move_running_average(running_mean, mean, momentum)
        move_running_average(running_var, variance * (count / (count - 1)), momentum)
    return output


def layer_norm(
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Standardize each sample over its last axes, those of ``normalized_shape`` (Ba et al. 2016, arXiv 1607.06450).

    Args:
        input: (..., *normalized_shape).
        weight, bias: of shape ``normalized_shape``, or None.

    Raises:
        RuntimeError: a shape, type or device that does not match.
    """
    check_normalized_shape("layer_norm", input, tuple(normalized_shape), weight=weight, bias=bias)
    if input.numel() == 0:
        return _scale_and_shift(input, weight, bias)
    dims, shape = _last_axes(input, normalized_shape)
    return standardize(input.contiguous(), dims, weight, bias, eps, shape=shape)[0]


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Standardize each group of channels of each sample (Wu and He 2018, arXiv 1803.08494).

    Args:
        input: (N, C, ...), with C a multiple of ``num_groups``.
        weight, bias: (C,), or None.

    Raises:
        RuntimeError: groups that do not divide the channels; a shape, type or device that does not match.
        ValueError: one value per group.
    """
    check_groups(input, num_groups, weight=weight, bias=bias)
    if input.numel() == 0:
        shape = (-1,) + (1,) * (input.dim() - 2)
        return _scale_and_shift(input, _view(weight, shape), _view(bias, shape))
    groups = dense(input).unflatten(1, (num_groups, -1))  # (N, G, C / G, ...)
    dims, shape = tuple(range(2, groups.dim())), (1, *groups.shape[1:3]) + (1,) * (input.dim() - 2)
    output, _, _ = standardize(groups, dims, weight, bias, eps, shape=shape)
    return output.flatten(1, 2)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Standardize each channel of each sample over space (Ulyanov et al. 2016, arXiv 1607.08022).

    Args:
        input: (N, C, ...).
        running_mean, running_var: (C,), or both None. They move towards the samples' average, as in ``batch_norm``.
        weight, bias: (C,), or None.
        use_input_stats: False uses the running averages instead, as ``batch_norm`` in evaluation.
        momentum: the weight of the NEW value in the running averages.

    Raises:
        ValueError: one spatial element; one running average only.
        RuntimeError: a size, type or device that does not match ``input``; no running averages to use instead.
    """
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if not use_input_stats and running_mean is None:
        raise RuntimeError("Expected running_mean and running_var to be defined when use_input_stats is false")
    if not use_input_stats:
        return batch_norm(input.contiguous(), running_mean, running_var, weight, bias, False, momentum, eps)
    count = math.prod(input.shape[2:])
    if count == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.size()}")
    channels, dims = input.size(1), tuple(range(2, input.dim()))
    check_tensors(
        "instance_norm", input, channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    shape = (1, channels) + (1,) * (input.dim() - 2)
    if input.numel() == 0:
        return _scale_and_shift(input, _view(weight, shape), _view(bias, shape))
    output, mean, variance = standardize(input.contiguous(), dims, weight, bias, eps, shape=shape)
    if running_mean is not None:
        move_running_average(running_mean, mean.mean(0), momentum)
        move_running_average(running_var, variance.mean(0) * (count / (count - 1)), momentum)
    return output


def rms_norm(
    input: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide each sample by its root mean square over its last axes (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        input: (..., *normalized_shape).
        weight: of shape ``normalized_shape``, or None; of any floating-point type, the output has that of ``input``.
        eps: added to the mean square; None takes the machine epsilon of the type computed in.

    Raises:
        RuntimeError: a shape or device that does not match.
    """
    if weight is not None and weight.dtype != input.dtype:
        weight = weight.to(torch.promote_types(input.dtype, torch.float32))
    check_normalized_shape("rms_norm", input, tuple(normalized_shape), weight=weight)
    if input.numel() == 0:
        return _scale_and_shift(input, weight, None)
    if eps is None:
        eps = torch.finfo(at_least_float32(input).dtype).eps
    dims, shape = _last_axes(input, normalized_shape)
    return standardize(dense(input), dims, weight, eps=eps, shape=shape, center=False)[0]


def move_running_average(running: Tensor, new: Tensor, momentum: float | Tensor) -> None:
    """running = (1 - momentum) * running + momentum * new, in place: a checkpoint or DDP may hold on to the tensor.

    ``new`` carries no gradient (see ``standardize``): no graph grows from step to step.
    """
    if new.dtype != running.dtype:
        new = new.to(running.dtype)
    if _torch_takes_the_formula():
        running.mul_(1 - momentum).add_(momentum * new.view(running.shape))
    else:  # the same in one step
        running.lerp_(new.view(running.shape), momentum)


def _last_axes(input: Tensor, normalized_shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of ``normalized_shape``, and that shape with leading ones for the other axes."""
    others = input.dim() - len(normalized_shape)
    return tuple(range(others, input.dim())), (1,) * others + tuple(normalized_shape)


def dense(input: Tensor) -> Tensor:
    """``input`` itself if it is contiguous, or channels last; a contiguous copy otherwise."""
    if input.is_contiguous() or _torch_takes_the_formula():
        return input
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.dim())
    if channels_last is not None and input.is_contiguous(memory_format=channels_last):
        return input
    return input.contiguous()
