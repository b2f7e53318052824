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

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "standardize"]


# ----------------------------------------------------------------------------------------------------------------------
# The one operation
# ----------------------------------------------------------------------------------------------------------------------


def standardize(
    input: Tensor, dims: tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Give ``input`` mean 0 and variance 1 over ``dims``, then scale and shift it.

    output = (input - mean) / sqrt(variance + eps) * weight + bias, with the biased variance (divided by the count).

    Args:
        input: any shape, a floating-point type. Half precision is computed in float32.
        dims: the axes over which values share a mean and a variance.
        weight, bias: broadcast against ``input``; None leaves them out.
        eps: added to the variance, so that a constant input gives 0 and not a division by 0.

    Returns:
        output, of ``input``'s shape and type; mean and variance, with size 1 along ``dims``. Gradients flow through
        the output (and through the statistics inside it), not through the mean and variance handed back.
    """
    if _torch_differentiates():
        x = _at_least_float32(input)
        mean, variance = mean_and_variance(x, dims)
        output = _scale_and_shift((x - mean) * (variance + eps).rsqrt(), weight, bias)
        return output.to(input.dtype), mean.detach(), variance.detach()
    return _Standardize.apply(input, dims, weight, bias, eps)


class _Standardize(torch.autograd.Function):
    """``standardize`` with its backward pass in closed form: it keeps the input and two numbers per mean."""

    @staticmethod
    def forward(ctx, input, dims, weight, bias, eps):
        x = _at_least_float32(input)
        mean, variance = mean_and_variance(x, dims)
        inverse_std = (variance + eps).rsqrt()
        output = _scale_and_shift((x - mean) * inverse_std, weight, bias)
        ctx.save_for_backward(input, weight, mean, inverse_std)
        ctx.dims, ctx.eps, ctx.bias = dims, eps, None if bias is None else (bias.shape, bias.dtype)
        ctx.mark_non_differentiable(mean, variance)
        return output.to(input.dtype), mean, variance

    @staticmethod
    def backward(ctx, dy, _dmean, _dvariance):
        input, weight, mean, inverse_std = ctx.saved_tensors
        x, dims = _at_least_float32(input), ctx.dims
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted: mean and variance depend on x
            mean, variance = mean_and_variance(x, dims)
            inverse_std = (variance + ctx.eps).rsqrt()
        g = _at_least_float32(dy)
        x_hat = (x - mean) * inverse_std
        dx = dweight = dbias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            dbias = g.sum_to_size(ctx.bias[0]).to(ctx.bias[1])
        if weight is not None:
            if ctx.needs_input_grad[2]:
                dweight = (g * x_hat).sum_to_size(weight.shape).to(weight.dtype)
            g = g * weight
        if ctx.needs_input_grad[0]:
            dx = (g - g.mean(dims, keepdim=True) - x_hat * (g * x_hat).mean(dims, keepdim=True)) * inverse_std
            dx = dx.to(input.dtype)
        return dx, None, dweight, dbias, None


def mean_and_variance(input: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean, and mean squared distance from it, with size 1 along ``dims``; half precision gives float32.

    (The shortcut E[x^2] - E[x]^2 would lose all digits of a variance that is small beside the mean.)
    """
    x = _at_least_float32(input)
    mean = x.mean(dims, keepdim=True)
    return mean, (x - mean).square().mean(dims, keepdim=True)


def _scale_and_shift(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x_hat = x_hat * weight
    return x_hat if bias is None else x_hat + bias


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _torch_differentiates() -> bool:
    """Whether torch works on the formula itself: torch.compile and export, tracing, torch.func, forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


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
        running_mean, running_var: (C,), or None. Needed in evaluation.
        weight, bias: gamma and beta, (C,), or None.
        training: whether the statistics come from ``input``.
        momentum: the weight of the NEW value in the running averages.

    Raises:
        ValueError: training with one value per channel, or ``eps`` not positive in training.
        RuntimeError: an argument whose size or type does not match ``input``.
    """
    _check("batch_norm", input, input.size(1), running_mean=running_mean, running_var=running_var)
    _check("batch_norm", input, input.size(1), weight=weight, bias=bias)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    per_channel = (1, -1) + (1,) * (input.dim() - 2)
    weight, bias = _view(weight, per_channel), _view(bias, per_channel)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when training=False")
        return _with_given_statistics(
            input, running_mean.view(per_channel), running_var.view(per_channel), weight, bias, eps
        )
    count = input.numel() // max(input.size(1), 1)
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    if input.numel() == 0:
        return _scale_and_shift(input, weight, bias)
    dims = (0, *range(2, input.dim()))
    output, mean, variance = standardize(input, dims, weight, bias, eps)
    _update(running_mean, running_var, mean.flatten(), variance.flatten() * (count / (count - 1)), momentum)
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
        RuntimeError: a shape or type that does not match.
    """
    dims = _last_dims("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    if input.numel() == 0:
        return _scale_and_shift(input, weight, bias)
    return standardize(input.contiguous(), dims, weight, bias, eps)[0]


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Standardize each group of channels of each sample (Wu and He 2018, arXiv 1803.08494).

    Args:
        input: (N, C, ...), with C a multiple of ``num_groups``.
        weight, bias: (C,), or None.

    Raises:
        RuntimeError: groups that do not divide the channels, or a size or type that does not match.
        ValueError: one value per group.
    """
    if input.dim() < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}")
    channels = input.size(1)
    if num_groups <= 0 or channels % num_groups != 0:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, "
            f"but got input of shape {list(input.shape)} and num_groups={num_groups}"
        )
    _check("group_norm", input, channels, weight=weight, bias=bias)
    if input.numel() == 0:
        return input.clone()
    if input.numel() == input.size(0) * num_groups:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    grouped = input.unflatten(1, (num_groups, -1))  # (N, G, C / G, ...)
    per_channel = (1, num_groups, -1) + (1,) * (input.dim() - 2)
    dims = tuple(range(2, grouped.dim()))
    output = standardize(grouped, dims, _view(weight, per_channel), _view(bias, per_channel), eps)[0]
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
        running_mean, running_var: (C,), or None. Averages over the samples, moved as in ``batch_norm``.
        weight, bias: (C,), or None.
        use_input_stats: False takes the running averages instead of the input's statistics.

    Raises:
        ValueError: one spatial element.
        RuntimeError: an argument whose size or type does not match ``input``.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _check("instance_norm", input, input.size(1), running_mean=running_mean, running_var=running_var)
    _check("instance_norm", input, input.size(1), weight=weight, bias=bias)
    count = input[0, 0].numel() if input.numel() else 0
    if count == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.size()}")
    per_channel = (1, -1) + (1,) * (input.dim() - 2)
    weight, bias = _view(weight, per_channel), _view(bias, per_channel)
    if count == 0:
        return _scale_and_shift(input, weight, bias)
    dims = tuple(range(2, input.dim()))
    output, mean, variance = standardize(input.contiguous(), dims, weight, bias, eps)
    if running_mean is not None:
        mean, variance = mean.flatten(1).mean(0), variance.flatten(1).mean(0)
        _update(running_mean, running_var, mean, variance * (count / (count - 1)), momentum)
    return output


def rms_norm(
    input: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide each sample by its root mean square over the last axes (Zhang and Sennrich 2019, arXiv 1910.07467).

    The one norm that does not subtract the mean.

    Args:
        input: (..., *normalized_shape).
        weight: of shape ``normalized_shape``, or None.
        eps: None takes the machine epsilon of the type computed in.

    Raises:
        RuntimeError: a shape or type that does not match.
    """
    dims = _last_dims("rms_norm", input, normalized_shape, weight=weight)
    x = _at_least_float32(input)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    x_hat = x * (x.square().mean(dims, keepdim=True) + eps).rsqrt()
    return _scale_and_shift(x_hat, weight, None).to(input.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# What they share
# ----------------------------------------------------------------------------------------------------------------------


def _with_given_statistics(input, mean, variance, weight, bias, eps):
    x = _at_least_float32(input)
    return _scale_and_shift((x - mean) * (variance + eps).rsqrt(), weight, bias).to(input.dtype)


def _update(running_mean, running_var, mean, variance, momentum):
    """Move the running averages towards the new statistics, in place: others may hold on to these tensors."""
    with torch.no_grad():
        for running, new in ((running_mean, mean), (running_var, variance)):
            if running is not None:
                running.lerp_(new.to(running.dtype), momentum)


def _view(parameter: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    return None if parameter is None else parameter.view(shape)


def _check(name: str, input: Tensor, size: int, **parameters: Tensor | None) -> None:
    if not input.is_floating_point():
        raise RuntimeError(f"{name} expects a floating-point input, got {input.dtype}")
    for key, parameter in parameters.items():
        if parameter is None:
            continue
        if parameter.numel() != size:
            raise RuntimeError(f"{key} should contain {size} elements not {parameter.numel()}")
        if parameter.dtype != input.dtype and _at_least_float32(input).dtype != parameter.dtype:
            raise RuntimeError(f"{name}: {key} is {parameter.dtype}, which does not go with {input.dtype} input")


def _last_dims(name, input, normalized_shape, **parameters) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if len(shape) == 0:
        raise RuntimeError(f"Expected normalized_shape to be at least 1-dimensional, got {shape}")
    if tuple(input.shape[-len(shape) :]) != shape:
        wanted = "".join(f", {size}" for size in shape)
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*{wanted}], "
            f"but got input of size{list(input.shape)}"
        )
    for key, parameter in parameters.items():
        if parameter is not None and parameter.shape != shape:
            raise RuntimeError(
                f"Expected {key} to be of same shape as normalized_shape, "
                f"but got {key} of shape {list(parameter.shape)} and normalized_shape = {list(shape)}"
            )
    size = 1
    for length in shape:
        size *= length
    _check(name, input, size, **parameters)
    return tuple(range(-len(shape), 0))
