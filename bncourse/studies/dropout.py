"""Dropout beside BatchNorm: the variance shift of Li et al. 2019, and networks with the two in any order.

Torch's ``nn.Dropout(p)`` takes the probability to DROP; the paper's p is the probability to KEEP. Here it is ``drop``
or ``keep``, never p.
"""

import copy
from itertools import pairwise

import torch
from torch import nn

from bncourse.layers import BatchNorm1d

__all__ = ["dropout_network", "measured_ratio", "variance_ratio", "with_wrong_labels"]


def variance_ratio(x: torch.Tensor, keep: float) -> float:
    """The variance of ``x`` over that of ``x`` after dropout in training, by the theory of Li et al. 2019.

    Dropout multiplies each value by a / keep, where a is 1 with probability ``keep`` and otherwise 0. The mean stays,
    the mean square grows to E[x²] / keep.

    Args:
        x: values of one feature, any shape.

    Raises:
        ValueError: ``keep`` outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} is out of range; expected a probability above 0 and up to 1")
    variance, mean_square = x.var(correction=0), x.square().mean()
    return (variance / (variance + (1 / keep - 1) * mean_square)).item()


def dropout_network(sizes: list[int], order: str, drop: float = 0.3, only_last: bool = False) -> nn.Sequential:
    """A classifier whose hidden layers are linear layers followed by ``order``: (N, ...) to (N, sizes[-1]).

    Args:
        sizes: the features of every layer, input and output included.
        order: the words "batch", "relu" and "dropout" in the order wanted, or some of them: "batch relu dropout".
        drop: the probability to set a value to zero in training.
        only_last: keep the dropout of the last hidden layer only.

    Raises:
        ValueError: another word in ``order``.
    """
    make = {"batch": BatchNorm1d, "relu": lambda _: nn.ReLU(), "dropout": lambda _: nn.Dropout(drop)}
    words = order.split()
    if unknown := set(words) - set(make):
        raise ValueError(f"order={order!r} has {sorted(unknown)}; expected only the words {', '.join(make)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for depth, (features, out_features) in enumerate(pairwise(sizes[:-1]), start=2):
        layers.append(nn.Linear(features, out_features))
        skipped = "dropout" if only_last and depth < len(sizes) - 1 else ""
        layers += [make[word](out_features) for word in words if word != skipped]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


@torch.no_grad()
def measured_ratio(model: nn.Module, norm: nn.Module, images: torch.Tensor) -> float:
    """The variance that reaches ``norm`` without dropout, over that with dropout; the mean over its features.

    Every norm uses the statistics of ``images`` in both passes, so that dropout is the only difference. The model stays
    as it is.

    Args:
        norm: one of the model's layers.
        images: (N, ...).
    """
    name = next(name for name, module in model.named_modules() if module is norm)
    twin = copy.deepcopy(model).train()
    images = images.to(next(model.parameters()).device)
    variances = []
    twin.get_submodule(name).register_forward_pre_hook(lambda _, inputs: variances.append(inputs[0].var(0)))
    twin(images)
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    twin(images)
    with_dropout, without = variances
    return (without / with_dropout).mean().item()


def with_wrong_labels(labels: torch.Tensor, share: float, classes: int = 10, seed: int = 0) -> torch.Tensor:
    """The labels (N,) with ``share`` of them, chosen at random, replaced by another class."""
    random = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=random)[: round(share * len(labels))]
    labels = labels.clone()
    labels[wrong] = (labels[wrong] + torch.randint(1, classes, (len(wrong),), generator=random)) % classes
    return labels
