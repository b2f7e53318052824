"""Average a model's weights over its training, and its running averages with them."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bncourse.surgery.norms import plain_model

__all__ = ["average"]


def average(model: nn.Module, decay: float | None = None) -> AveragedModel:
    """torch's ``AveragedModel`` of ``model``, whose running averages belong to its weights.

    Call ``update_parameters(model)`` after each step, or each epoch. Parameters and floating-point buffers are averaged
    alike; counters are the model's. torch's own averages the parameters alone, so that averaged weights go with the
    statistics of the last ones, or counters too (``use_buffers=True``). Statistics that were averaged are near those of
    the averaged weights, not equal: ``recalibrate(averaged, batches)`` at the end makes them so (chapter 13).

    Args:
        decay: the share of the old average that each update keeps (EMA: 0.999 averages over about 1,000 updates). None
            weighs all updates equally (SWA: Izmailov et al. 2018, arXiv 1803.05407).

    Raises:
        ValueError: ``decay`` is not between 0 and 1.
    """
    if decay is not None and not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, got {decay}")

    def mean(averaged: Tensor, new: Tensor, updates: Tensor) -> Tensor:
        if not averaged.is_floating_point():
            return new
        return averaged + (new - averaged) * (1 / (updates + 1) if decay is None else 1 - decay)

    return AveragedModel(plain_model(model), avg_fn=mean, use_buffers=True)
