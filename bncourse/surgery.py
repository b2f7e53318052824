"""Change a model that is already there: recalibrate, freeze or fold its batch norms, drop the biases they cancel."""

import copy
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from bncourse.functional import batch_norm
from bncourse.layers.batch import BatchNorm
from bncourse.layers.frozen import FrozenBatchNorm
from bncourse.layers.replace import replace_layers
from bncourse.standardize import inverse_std, mean_and_variance, pooled

__all__ = ["FrozenBatchNorm", "drop_redundant_biases", "fold", "freeze", "recalibrate"]

BATCH_NORMS = (BatchNorm, nn.modules.batchnorm._BatchNorm)  # ours and torch's
LINEAR_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # their weight has the output channels first


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable) -> None:
    """Replace the running averages of every batch norm in ``model`` by the population's mean and variance.

    One pass over ``batches``: each batch norm normalizes with the batch's own statistics, as in training, and the rest
    of the model (dropout for one) runs as in evaluation. The batches' moments are pooled exactly: the variance is the
    mean of the batches' biased variances plus the variance of their means, weighted by their sizes. The idea is
    PreciseBN (Wu and Johnson 2021, arXiv 2105.07576; ``update_bn_stats`` of fvcore). ``update_bn`` of
    ``torch.optim.swa_utils`` averages the unbiased variances instead, so that it misses the variance between batches,
    and it runs dropout as in training.

    Nothing else changes: parameters, counters, the mode of each module.

    Args:
        batches: inputs of the model, or tuples that begin with them, as a ``DataLoader`` gives. Take batches as large
            as memory allows: the inputs of the second batch norm depend on the statistics used by the first.

    Raises:
        ValueError: no batch norm that tracks statistics, no batches, or a batch with no or one value per channel.
    """
    layers = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]
    if not layers:
        raise ValueError("model must have a batch norm with running statistics, got none")
    moments: dict[nn.Module, tuple[Tensor, ...]] = {}  # mean, variance and count of what each layer has seen

    def normalize_as_in_training(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        x = inputs[0]
        if x.numel() == 0:
            raise ValueError(f"batches must have at least 1 sample each, got one of shape {tuple(x.shape)}")
        mean, variance = mean_and_variance(x, (0, *range(2, x.dim())))
        new = mean.flatten(), variance.flatten(), torch.tensor([x.numel() // x.size(1)])
        new = tuple(value.cpu().double() for value in new)  # there: Apple's MPS has no double precision
        seen = moments.get(layer)
        moments[layer] = new if seen is None else pooled(*map(torch.stack, zip(seen, new, strict=True)))
        return batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)

    modes = [(module, module.training) for module in model.modules()]
    hooks = [layer.register_forward_hook(normalize_as_in_training) for layer in layers]
    model.eval()
    try:
        count = _run(model, batches)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    if count == 0:
        raise ValueError("batches must have at least 1 batch, got none")
    for layer, (mean, variance, _) in moments.items():  # a layer that the model did not use keeps what it has
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


def _run(model: nn.Module, batches: Iterable) -> int:
    """Run the model on each batch, on the model's device, and count them."""
    device = next(model.buffers()).device
    count = 0
    for batch in batches:
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        model(inputs.to(device))
        count += 1
    return count


def freeze(model: nn.Module, affine: bool = True) -> nn.Module:
    """Put a ``FrozenBatchNorm`` in the place of every batch norm in ``model`` that tracks statistics.

    Each normalizes with its running averages from now on, in training too (FrozenBN: Wu and Johnson 2021, arXiv
    2105.07576). ``requires_grad=False`` would not do it: it stops gamma and beta, not the statistics.

    Args:
        affine: stop the training of gamma and beta as well.

    Returns:
        The model, changed in place; the new layer, if the model itself is a batch norm.

    Raises:
        ValueError: no batch norm that tracks statistics.
    """
    frozen = {m: FrozenBatchNorm(m) for m in model.modules() if _tracks_statistics(m)}
    if not frozen:
        raise ValueError("model must have a batch norm with running statistics, got none")
    if affine:
        for norm in frozen.values():
            norm.requires_grad_(False)
    return replace_layers(model, frozen)


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose batch norms are folded (fused) into the linear or convolution layer before them.

    In evaluation a batch norm is a fixed scale and shift of each channel, s = gamma / sqrt(variance + eps) and
    beta - s * mean. Both go into the weight and the bias before it; an ``nn.Identity`` takes its place. The output is
    the same up to rounding. ``torch.fx`` finds what stands before a norm. A norm stays if that is another layer (a
    transposed convolution, or one that computes its weight), if something else reads the layer's output, or if either
    is used twice.

    Args:
        model: with its batch norms in evaluation mode. A norm after a linear layer must get (N, C).

    Raises:
        ValueError: a batch norm in training mode, nothing to fold, or a forward pass that ``torch.fx`` cannot follow.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS) and module.training:
            raise ValueError(f"model must be in evaluation mode, got {name!r} in training: call model.eval() first")
    folded = copy.deepcopy(model)
    pairs = [(layer, norm, place) for layer, norm, place in _pairs(folded) if _tracks_statistics(norm)]
    if not pairs:
        raise ValueError(
            "model must have a linear or convolution layer directly before a batch norm, got none: nothing to fold"
        )
    for layer, norm, (parent, name) in pairs:
        scale = inverse_std(norm.running_var, norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        shift = ((0 if layer.bias is None else layer.bias) - norm.running_mean) * scale
        shift = shift if norm.bias is None else shift + norm.bias
        trained = layer.weight.requires_grad
        scaled = layer.weight * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        layer.weight = nn.Parameter(scaled.to(layer.weight.dtype), trained)
        layer.bias = nn.Parameter(shift.to(layer.weight.dtype), trained)
        setattr(parent, name, nn.Identity())
    return folded


@torch.no_grad()
def drop_redundant_biases(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without the biases that a batch norm right after them cancels.

    The running mean loses what the bias added, so that the model stays the same in both modes. The layers are found as
    in ``fold``. Make the optimizer afterwards, for the copy's parameters.

    Raises:
        ValueError: a forward pass that ``torch.fx`` cannot follow.
    """
    slim = copy.deepcopy(model)
    for layer, norm, _ in _pairs(slim):
        if layer.bias is not None:
            if norm.running_mean is not None:
                norm.running_mean -= layer.bias
            layer.bias = None
    return slim


def _tracks_statistics(module: nn.Module) -> bool:
    return isinstance(module, BATCH_NORMS) and module.running_mean is not None


class _Tracer(fx.Tracer):
    """Follows the forward pass down to the layers that have no parts, ours as well as torch's."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return super().is_leaf_module(module, name) or not any(module.children())


def _pairs(model: nn.Module) -> list[tuple[nn.Module, nn.Module, tuple[nn.Module, str]]]:
    """Each layer of ``LINEAR_MAPS`` that only a batch norm reads, that norm, and its place: a module and a name."""
    try:
        nodes = _Tracer().trace(model).nodes
    except Exception as error:  # whatever a forward pass does with stand-ins for its tensors
        raise ValueError(f"model must have a forward pass that torch.fx can follow, got: {error}") from error
    owners = {"call_module": lambda name: name, "get_attr": lambda name: name.rpartition(".")[0]}
    uses = Counter(owners[node.op](node.target) for node in nodes if node.op in owners)
    found = []
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = model.get_submodule(before.target), model.get_submodule(node.target)
        if not isinstance(norm, BATCH_NORMS) or type(layer) not in LINEAR_MAPS or "weight" not in layer._parameters:
            continue
        if uses[before.target] == uses[node.target] == 1 and len(layer.weight) == norm.num_features:
            parent, _, name = node.target.rpartition(".")
            found.append((layer, norm, (model.get_submodule(parent), name)))
    return found
