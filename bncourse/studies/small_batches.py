"""Chapter 8: networks trained with few images in the statistics, judged by what their batches were like."""

import copy

import torch
from torch import Tensor, nn

from bncourse.layers import BatchNorm1d
from bncourse.models import small_cnn
from bncourse.studies.many_devices import Step
from bncourse.studies.many_networks import ManyNetworks, ParallelGhostBatchNorm, SideBySide

__all__ = ["ExpectedInBatch", "cnn_with_ghosts", "expecting_batches", "largest_difference", "mean_over_partners"]


class ExpectedInBatch(nn.Module):
    """Batch normalization (N, C) as it is to be expected for each sample among ``size - 1`` random others.

    If the others are independent, of mean μ and variance σ², then a batch with the value x has, in the mean over them,
    mean μ + (x - μ)/m and variance ((x - μ)² + (m - 1)σ²)(m - 1)/m². But for eps the output is therefore
    (x - μ) / sqrt(σ² + (x - μ)²/(m - 1)): a soft sign at m = 2, and evaluation's for large m. The idea is EvalNorm's
    (Singh and Shrivastava 2019, arXiv 1904.06031); this closed form is our own, and for linear layers.

    Args:
        norm: a batch norm; its running averages are taken for μ and σ².
        size: m.
    """

    def __init__(self, norm: BatchNorm1d, size: int) -> None:
        super().__init__()
        self.norm, self.size = norm, size

    def forward(self, x: Tensor) -> Tensor:
        norm, others = self.norm, self.size - 1
        away = x - norm.running_mean
        variance = others / self.size**2 * (away.square() + others * norm.running_var)
        return others / self.size * away * (variance + norm.eps).rsqrt() * norm.weight + norm.bias


def expecting_batches(networks: ManyNetworks, size: int) -> ManyNetworks:
    """A copy of the networks in evaluation whose batch norms are ``ExpectedInBatch`` of that size."""
    twin = copy.deepcopy(networks).eval()
    for module in twin:
        if isinstance(module, SideBySide):
            module.norm = ExpectedInBatch(module.norm, size)
    return twin


@torch.no_grad()
def mean_over_partners(networks: ManyNetworks, images: Tensor, others: Tensor, size: int, draws: int = 16) -> Tensor:
    """Each image's class probabilities in training mode, the mean over ``draws`` batches with random others.

    Args:
        networks: with ghost batches of ``size``; their running averages do not change.
        images: (S, N, F).
        others: what partners are drawn from, (S, M, F).

    Returns:
        (S, N, 10)
    """
    twin, generator = copy.deepcopy(networks).train(), torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for _ in range(draws):
        drawn = torch.randint(others.shape[1], (images.shape[1], size - 1), generator=generator)
        batches = torch.cat([images.unsqueeze(2), others[:, drawn]], dim=2)  # (S, N, size, F)
        scores = twin(batches.flatten(1, 2)).unflatten(1, (-1, size))[:, :, 0]
        total = total + scores.softmax(-1) / draws
    return total


def cnn_with_ghosts(channels: int, width: int, ghost_size: int) -> nn.Sequential:
    """``small_cnn`` whose batch norms take their statistics from ``ghost_size`` images at a time in training.

    One pass of a batch then has the gradient of as many passes of ``ghost_size`` images, accumulated.
    """
    model = small_cnn("batch", channels, width)
    for block in model:
        if isinstance(block, nn.Sequential):
            block[1] = ParallelGhostBatchNorm(block[1].num_features, ghost_size)
    return model


def largest_difference(step: Step, reference: Step) -> float:
    """By how much two training steps differ, each tensor relative to the reference's length; the largest of them.

    A tensor of length below 0.001 counts as one of 0.001: a bias before a norm has no gradient.
    """
    pairs = [(step.scores, reference.scores)]
    pairs += zip(step.gradients, reference.gradients, strict=True)
    pairs += zip(step.buffers, reference.buffers, strict=True)
    return max(((one.double() - other).norm() / other.double().norm().clamp(min=1e-3)).item() for one, other in pairs)
