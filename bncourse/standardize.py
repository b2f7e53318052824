"""The one operation behind every norm here: standardize over some axes, then scale and shift.

Read ``formula`` first: it is all that the norms compute. ``formula_backward`` is its gradient (chapter 12).
``Standardize`` computes the same two with less memory and less time (chapter 15). Set ``FAST = False``, and every layer
of the package runs through ``formula`` alone (``SyncBatchNorm`` across processes: through both formulas).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bncourse import kernels
from bncourse.kernels import mean_over

__all__ = ["formula", "formula_backward", "mean_and_variance", "standardize"]

FAST = True  # False: ``standardize`` is ``formula``, and torch finds the gradient


def formula(x, dims, weight=None, bias=None, eps=1e-5, *, statistics=None, center=True):
    """(x - mean) / sqrt(variance + eps) * weight + bias; see ``standardize``."""
    mean, variance = statistics or mean_and_variance(x, dims, center)
    x_hat = (at_least_float32(x) - mean) * inverse_std(variance, eps)
    return scale_and_shift(x_hat, weight, bias).to(x.dtype), mean, variance


def mean_and_variance(x: Tensor, dims: tuple[int, ...], center: bool = True) -> tuple[Tensor, Tensor]:
    """Mean, and mean squared distance from it, with size 1 along ``dims``.

    Half precision gives float32. The shortcut E[x^2] - E[x]^2 would lose all digits of
    a variance that is small beside the mean. The sum behind a large mean is rounded,
    too: what it missed is the mean distance from it.
    """
    x = at_least_float32(x)
    if center:
        mean = mean_over(x, dims)
        mean = mean + mean_over(x - mean, dims)
    else:
        mean = x.new_zeros(())
    return mean, mean_over((x - mean).square(), dims)


def pooled(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, biased variance and count of all values, from those of their parts, which lie along axis 0.

    The whole variance is the mean of the parts' variances plus the variance of the parts' means, both weighted by the
    counts (Chan et al. 1979): no difference of large numbers. Parts may be empty.
    """
    total = counts.sum(0)
    shares = counts / total.clamp(min=1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), total


def inverse_std(variance: Tensor, eps: float) -> Tensor:
    """1 / sqrt(variance + eps), for all who need it but ``kernels`` and ``loops``, which are checked against it."""
    return (at_least_float32(variance) + eps).rsqrt()


def scale_and_shift(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x_hat = x_hat * weight
    return x_hat if bias is None else x_hat + bias


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def standardize(
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    center: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give ``x`` mean 0 and variance 1 over ``dims``, then scale and shift it.

    output = (x - mean) / sqrt(variance + eps) * weight + bias, with the biased variance
    (divided by the count).

    Args:
        x: any shape, a floating-point type. Half precision is computed in float32.
        dims: the axes over which values share a mean and a variance, counted from 0.
        weight, bias: of shapes that broadcast against ``x``; None leaves them out.
        eps: added to the variance, so that a constant input does not divide by 0.
        statistics: mean and variance to use instead of the input's own; no gradient
            flows through them.
        center: False takes the mean as 0.

    Returns:
        output, of the shape and type of ``x``; the mean and variance used, with size 1
        along ``dims`` (a single 0 for a mean that is not computed). The gradient of the
        output includes what flows through its statistics; the returned mean and
        variance carry none.
    """
    if weight is None and bias is not None:
        # the gradients below have a bias's only beside a weight's
        weight = torch.ones_like(bias)
    if x.numel() == 0:  # nothing to standardize; weight and bias get gradients of 0
        nothing = x.new_zeros(())
        return scale_and_shift(x, weight, bias).to(x.dtype), nothing, nothing
    if FAST and not torch_differentiates():
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
            return Standardize.apply(x, weight, bias, *(statistics or (None, None)), dims, eps, center)
        if not torch.compiler.is_compiling():
            return kernels.forward(x, dims, weight, bias, eps, statistics=statistics, center=center)
    output, mean, variance = formula(x, dims, weight, bias, eps, statistics=statistics, center=center)
    return output, mean.detach(), variance.detach()


def formula_backward(
    dy: Tensor,
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    given: bool = False,
    center: bool = True,
    means: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of ``formula`` in closed form, given that of its output, ``dy``.

    Let std = sqrt(variance + eps), and g = dy * weight, the gradient of x_hat. A shift
    of x does not change x_hat, and a change of its scale hardly does (eps apart), so g
    loses its mean and its part along x_hat:

        dx = (g - mean(g) - x_hat * mean(g * x_hat)) / std

    With ``center=False`` the mean of g is not subtracted; with given statistics neither
    part is, and dx = g / std.

    Args:
        dy: of the shape of ``x``.
        x, dims, weight, eps, center: as for ``standardize``.
        statistics: the mean and variance of the forward pass; None computes them again.
        given: whether they were given to ``standardize``.
        means: how to average two tensors over ``dims``; None averages over the values
            that are here (``SyncBatchNorm`` averages over those of other processes as
            well).

    Returns:
        dx, dweight and dbias; the last two are None without a weight.
    """
    mean, variance = statistics or mean_and_variance(x, dims, center)
    scale = inverse_std(variance, eps)
    x_hat = (at_least_float32(x) - mean) * scale
    dy = at_least_float32(dy)
    g = dx = dy if weight is None else dy * weight
    if not given:
        products = g * x_hat
        mean_g, mean_products = means(g, products) if means else (mean_over(v, dims) for v in (g, products))
        dx = dx - x_hat * mean_products
        if center:
            dx = dx - mean_g
    dx = (dx * scale).to(x.dtype)
    if weight is None:
        return dx, None, None
    return dx, *(v.sum_to_size(weight.shape).to(weight.dtype) for v in (dy * x_hat, dy))


class Standardize(torch.autograd.Function):
    """``formula`` and ``formula_backward`` as torch's autograd calls them.

    Kept from forward to backward are the input and its statistics alone. Left to
    itself, autograd would keep x_hat and more, and a compiler would go over the input
    seven times where the closed form needs five. A compiler gets the two formulas,
    whose steps it fuses itself; otherwise ``kernels`` has them computed by loops or in
    place.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, dims, eps, center):
        given = mean is not None
        compute = formula if torch.compiler.is_compiling() else kernels.forward
        output, mean, variance = compute(
            x, dims, weight, bias, eps, statistics=(mean, variance) if given else None, center=center
        )
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.dims, ctx.eps, ctx.center, ctx.given, ctx.shifted = dims, eps, center, given, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        if not torch.compiler.is_compiling():  # it cannot follow (2.13), and need not
            # no zeros for the gradients of mean and variance
            ctx.set_materialize_grads(False)
        return output, mean, variance

    @staticmethod
    def backward(ctx, dy, _dmean, _dvariance):
        if dy is None:
            return (None,) * 8
        x, weight, mean, variance = ctx.saved_tensors
        compute, statistics = formula_backward, (mean, variance)
        if not torch.compiler.is_compiling():
            if torch.is_grad_enabled() or torch_differentiates() or _is_batched(dy):
                # Gradients are recorded here only under create_graph=True: a derivative
                # of this gradient is wanted, and the statistics are functions of the
                # input. Or many gradients come at once. Torch follows each step.
                statistics = statistics if ctx.given else None
            else:
                compute = kernels.backward
        dx, dweight, dbias = compute(
            dy, x, ctx.dims, weight, ctx.eps, statistics=statistics, given=ctx.given, center=ctx.center
        )
        return dx, dweight, dbias if ctx.shifted else None, None, None, None, None, None


# torch.compile follows ``Standardize`` since 2.13; older compilers get the formula.
_COMPILES_FUNCTIONS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)


def torch_differentiates() -> bool:
    """Whether torch works on the formula itself: torch.func, forward mode, tracing, export, older compilers."""
    if torch.compiler.is_compiling() and not (_COMPILES_FUNCTIONS and torch.compiler.is_dynamo_compiling()):
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or torch.jit.is_tracing()


def _is_batched(dy: Tensor) -> bool:
    """Whether ``dy`` is many gradients at once (``is_grads_batched``); if torch cannot tell, it may be."""
    functorch = getattr(torch._C, "_functorch", None)
    return functorch is None or getattr(functorch, "is_legacy_batchedtensor", lambda _: True)(dy)
