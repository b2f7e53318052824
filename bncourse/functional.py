"""The norms: which values share a mean and a variance, and what is remembered.

Every norm is ``standardize`` over some axes, then scale and shift. The norms differ in three things only: which axes
share a mean and a variance, what is remembered from one call to the next, and where the statistics come from. (RMSNorm
also takes the mean as 0.)

| norm          | values that share statistics, input (N, C, H, W)  | remembers        | statistics in evaluation |
|---------------|---------------------------------------------------|------------------|--------------------------|
| batch_norm    | one channel of the whole batch: N, H, W           | running averages | the running averages     |
| layer_norm    | all features of one sample: the last axes         | nothing          | the input's own          |
| group_norm    | a group of channels of one sample: C / G, H, W    | nothing          | the input's own          |
| instance_norm | one channel of one sample: H, W                   | nothing (option) | the input's own (option) |
| rms_norm      | as layer_norm, but it only scales: mean taken as 0 | nothing         | the input's own          |

Arguments, results, gradients and exceptions follow the function of the same name in ``torch.nn.functional``.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, fx

from bncourse.checks import check_eps, check_groups, check_normalized_shape, check_tensors
from bncourse.moved import names_of
from bncourse.standardize import at_least_float32, standardize, torch_differentiates

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def one_step_for_fx(norm: Callable) -> Callable:
    """Make the norm one step in the graphs of ``torch.fx``, as torch's are: its checks cannot be traced."""

    @functools.wraps(norm)
    def step(*args, **kwargs):
        input = args[0] if args else kwargs.get("input")
        if isinstance(input, fx.Proxy):
            return input.tracer.create_proxy("call_function", step, args, kwargs)
        return norm(*args, **kwargs)

    return step


@one_step_for_fx
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
    """Standardize each channel over the batch (Ioffe, Szegedy 2015, arXiv 1502.03167).

    In training the statistics are the batch's, and the running averages move towards
    them in place: running = (1 - momentum) * running + momentum * new, with the
    unbiased variance. In evaluation the statistics are the running averages.

    Args:
        input: (N, C, ...).
        running_mean, running_var: (C,), or both None. Needed in evaluation.
        weight, bias: gamma and beta, (C,), or None.
        training: whether the statistics are those of ``input``.
        momentum: the weight of the NEW value in the running averages.

    Raises:
        ValueError: training with one value per channel; ``eps`` below 0, or 0 in
            training; one running average only.
        RuntimeError: a size, type or device that does not match ``input``; evaluation
            without running averages.
    """
    channels, dims = input.size(1), (0, *range(2, input.dim()))
    count = math.prod([input.shape[d] for d in dims])
    if training and count == 1:
        wanted = "Expected more than 1 value per channel when training"
        raise ValueError(f"{wanted}, got input size {input.size()}")
    check_eps(eps, training)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if not training and running_mean is None:
        raise RuntimeError("running_mean and running_var must be defined in evaluation mode")
    check_tensors(
        "batch_norm", input, channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    input, weight, bias = contiguous_or_channels_last(input), per_channel(weight, input), per_channel(bias, input)
    if not training:
        statistics = per_channel(running_mean, input), per_channel(running_var, input)
        return standardize(input, dims, weight, bias, eps, statistics=statistics)[0]
    output, mean, variance = standardize(input, dims, weight, bias, eps)
    if running_mean is not None and count > 0:  # with the unbiased variance
        update_running_average(running_mean, mean, momentum)
        update_running_average(running_var, variance * (count / (count - 1)), momentum)
    return output


@one_step_for_fx
def layer_norm(
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Standardize each sample over its last axes (Ba et al. 2016, arXiv 1607.06450).

    Args:
        input: (..., *normalized_shape).
        weight, bias: of shape ``normalized_shape``, or None.

    Raises:
        RuntimeError: a shape, type or device that does not match.
    """
    if input.is_nested:
        return of_all_values(input, len(normalized_shape), layer_norm, normalized_shape, weight, bias, eps)
    check_normalized_shape("layer_norm", input, tuple(normalized_shape), weight=weight, bias=bias)
    dims = tuple(range(input.dim() - len(normalized_shape), input.dim()))
    return standardize(input.contiguous(), dims, weight, bias, eps)[0]


@one_step_for_fx
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Standardize each group of channels of a sample (Wu, He 2018, arXiv 1803.08494).

    Args:
        input: (N, C, ...), with C a multiple of ``num_groups``.
        weight, bias: (C,), or None.

    Raises:
        RuntimeError: groups that do not divide the channels; a shape, type or device
            that does not match.
        ValueError: one value per group.
    """
    check_groups(input, num_groups, weight=weight, bias=bias)
    size = input.size(1) // num_groups
    # (N, G, C / G, ...)
    groups = contiguous_or_channels_last(input).unflatten(1, (num_groups, size))
    if weight is not None:
        weight = weight.view(num_groups, size, *[1] * (input.dim() - 2))
    if bias is not None:
        bias = bias.view(num_groups, size, *[1] * (input.dim() - 2))
    return standardize(groups, tuple(range(2, groups.dim())), weight, bias, eps)[0].flatten(1, 2)


@one_step_for_fx
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
    weight, bias = per_channel(weight, input), per_channel(bias, input)
    output, mean, variance = standardize(input.contiguous(), dims, weight, bias, eps)
    if running_mean is not None and input.numel() > 0:
        update_running_average(running_mean, mean.mean(0), momentum)
        update_running_average(running_var, variance.mean(0) * (count / (count - 1)), momentum)
    return output


@one_step_for_fx
def rms_norm(
    input: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide each sample by its root mean square (Zhang, Sennrich, arXiv 1910.07467).

    Args:
        input: (..., *normalized_shape).
        weight: of shape ``normalized_shape``, or None; of any floating-point type, the
            output has that of ``input``.
        eps: added to the mean square; None takes the machine epsilon of the type that
            is computed in.

    Raises:
        RuntimeError: a shape or device that does not match.
    """
    if input.is_nested:
        return of_all_values(input, len(normalized_shape), rms_norm, normalized_shape, weight, eps)
    if weight is not None and weight.dtype != input.dtype:
        weight = weight.to(torch.promote_types(input.dtype, torch.float32))
    check_normalized_shape("rms_norm", input, tuple(normalized_shape), weight=weight)
    if eps is None:
        eps = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps
    dims = tuple(range(input.dim() - len(normalized_shape), input.dim()))
    return standardize(contiguous_or_channels_last(input), dims, weight, eps=eps, center=False)[0]


def of_all_values(nested: Tensor, rank: int, norm: Callable, *args) -> Tensor:
    """``norm`` of sequences of different lengths: of the tensor that all their values lie in, one after the other.

    Raises:
        NotImplementedError: another layout than ``torch.jagged``, or a norm over the axis of the lengths.
    """
    ragged = getattr(nested, "_ragged_idx", None)
    if ragged is None or ragged >= nested.dim() - rank:
        raise NotImplementedError(
            f"{norm.__name__} takes a nested tensor in the layout torch.jagged whose last {rank} axes have one size; "
            "pad the sequences (torch.nested.to_padded_tensor) and mask them instead"
        )
    values = norm(nested.values(), *args)
    lengths = nested.lengths()
    return torch.nested.nested_tensor_from_jagged(values, nested.offsets(), lengths, jagged_dim=ragged)


def per_channel(parameter: Tensor | None, input: Tensor) -> Tensor | None:
    """A parameter (C,) so viewed that it broadcasts against ``input`` (N, C, ...)."""
    return parameter if parameter is None or input.dim() == 2 else parameter.view(-1, *[1] * (input.dim() - 2))


def update_running_average(running: Tensor, new: Tensor, momentum: float | Tensor) -> None:
    """running = (1 - momentum) * running + momentum * new, in place: a checkpoint or DDP may hold on to the tensor.

    ``new`` carries no gradient (see ``standardize``): no graph grows from step to step.
    """
    new = new.view(running.shape)
    if running.dtype != new.dtype or torch_differentiates():  # half precision; torch.func cannot vectorize lerp_
        running.copy_((1 - momentum) * at_least_float32(running) + momentum * new)
    else:
        running.lerp_(new, momentum)


def contiguous_or_channels_last(input: Tensor) -> Tensor:
    """``input`` itself if it is contiguous, channels last, or a compiler's or torch.func's; else a contiguous copy."""
    if input.is_contiguous() or torch.compiler.is_compiling() or torch_differentiates():
        return input
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.dim())
    if channels_last is not None and input.is_contiguous(memory_format=channels_last):
        return input
    return input.contiguous()


__getattr__ = names_of(__name__)  # names of version 0.1
