"""Change a model that is already there: give its batch norms the statistics of a whole data set."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .functional import batch_norm, mean_and_variance
from .layers.batch import BatchNorm

__all__ = ["recalibrate"]

BATCH_NORMS = (BatchNorm, nn.modules.batchnorm._BatchNorm)  # ours and torch's


class Moments:
    """Count, mean and variance of all values seen so far, pooled exactly from batch to batch."""

    def __init__(self) -> None:
        self.count, self.mean, self.variance = 0, 0.0, 0.0

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Take in ``count`` values with this mean and this biased variance (Chan et al. 1979)."""
        new, distance = count / (self.count + count), mean - self.mean
        within = (1 - new) * self.variance + new * variance
        self.variance = within + new * (1 - new) * distance.square()
        self.mean = self.mean + new * distance
        self.count += count


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable) -> None:
    """Replace the running averages of every batch norm in ``model`` by the population's mean and variance.

    One pass over ``batches``: each batch norm normalizes with the batch's own statistics, as in training, and the rest
    of the model (dropout for one) runs as in evaluation. The batches' moments are pooled exactly: the variance is the
    mean of the batches' biased variances plus the variance of their means, weighted by their sizes. This is the idea of
    PreciseBN (Wu and Johnson 2021, arXiv 2105.07576). ``torch.optim.swa_utils.update_bn`` averages the unbiased
    variances instead, and so misses the variance between batches.

    Nothing else changes: parameters, counters, the mode of each module.

    Args:
        batches: inputs of the model, or tuples that begin with them, as a ``DataLoader`` gives. Take batches as large
            as memory allows: the inputs of the second batch norm depend on the statistics used by the first.

    Raises:
        ValueError: no batch norm that tracks statistics, no batches, or a batch with one value per channel.
    """
    layers = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]
    if not layers:
        raise ValueError("model has no batch norm with running statistics; expected at least one")
    moments = {layer: Moments() for layer in layers}

    def normalize_as_in_training(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        x = inputs[0]
        mean, variance = mean_and_variance(x, (0, *range(2, x.dim())))
        moments[layer].add(x.numel() // x.size(1), mean.double().flatten(), variance.double().flatten())
        return batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)

    modes = [(module, module.training) for module in model.modules()]
    hooks = [layer.register_forward_hook(normalize_as_in_training) for layer in layers]
    model.eval()
    try:
        seen = _run(model, batches)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    if not seen:
        raise ValueError("batches is empty; expected at least one")
    for layer, total in moments.items():
        if total.count:  # a layer that the model did not use keeps what it has
            layer.running_mean.copy_(total.mean)
            layer.running_var.copy_(total.variance)


def _run(model: nn.Module, batches: Iterable) -> int:
    """Run the model on each batch, on the model's device, and count them."""
    device = next(model.buffers()).device
    count = 0
    for batch in batches:
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        model(inputs.to(device))
        count += 1
    return count
