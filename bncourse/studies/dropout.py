"""Chapter 9: the variance shift that dropout causes in front of a BatchNorm (Li et al. 2019), and early stopping.

Torch's ``nn.Dropout(p)`` takes the probability to DROP; the paper's p is the probability to KEEP. Here it is ``drop``
or ``keep``, never p.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bncourse.models import fc_network
from bncourse.moved import names_of
from bncourse.probes import outputs_of
from bncourse.studies.many_networks import ManyNetworks, evaluate_many, train_many
from bncourse.training import fit

__all__ = ["Ratios", "Stopped", "measured_ratio", "ratios_around_training", "stopped_early", "variance_ratio"]


def variance_ratio(x: torch.Tensor, keep: float) -> float:
    """The variance of ``x`` over that of ``x`` after dropout in training.

    By the theory of Li et al. 2019. Dropout multiplies each value by a / keep, where a
    is 1 with probability ``keep`` and otherwise 0. The mean stays, the mean square
    grows to E[x²] / keep.

    Args:
        x: values of one feature, any shape.

    Raises:
        ValueError: ``keep`` outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    variance, mean_square = x.var(correction=0), x.square().mean()
    return (variance / (variance + (1 / keep - 1) * mean_square)).item()


@torch.no_grad()
def measured_ratio(model: nn.Module, norm: nn.Module, images: torch.Tensor) -> float:
    """The variance that reaches ``norm`` without dropout, over that with dropout; the mean over its features.

    Every norm uses the statistics of ``images`` in both passes, so that dropout is the only difference. The model stays
    as it is.

    Args:
        norm: one of the model's layers.
        images: (N, ...).
    """
    (name,) = (name for name, module in model.named_modules() if module is norm)
    twin = copy.deepcopy(model).train()
    with outputs_of(twin, type(norm)) as calls:
        twin(images)
        for module in twin.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        twin(images)
    with_dropout, without = (call.input.var(0) for call in calls if call.name == name)
    return (without / with_dropout).mean().item()


class Ratios(NamedTuple):
    """``measured_ratio`` at a network's second norm before training, after it, and after that with the weights of each
    unit in front of the norm shuffled among its inputs."""

    untrained: float
    trained: float
    shuffled: float


def ratios_around_training(width: int, images: Tensor, labels: Tensor, seed: int, *, epochs: int) -> Ratios:
    """Train a network with dropout of 0.5 behind its first hidden layer, of ``width`` units, and its second, of 64.

    Args:
        images: (N, F), of ten classes.
        labels: (N,).
    """
    torch.manual_seed(seed)
    model = fc_network([images.shape[1], width, 64, 10], "batch relu dropout", drop=0.5)
    linear, norm = model[5], model[6]
    untrained = measured_ratio(model, norm, images)
    fit(model, (images, labels), epochs=epochs, batch_size=50, seed=seed)
    trained = measured_ratio(model, norm, images)
    with torch.no_grad():  # each unit has an order of its own
        order = torch.rand_like(linear.weight).argsort(1)
        linear.weight.copy_(linear.weight.gather(1, order))
    return Ratios(untrained, trained, measured_ratio(model, norm, images))


class Stopped(NamedTuple):
    """Of each network: the test accuracy where the validation loss was lowest and at the end, that on its training
    labels at the end, and the epoch where it was stopped."""

    early: Tensor
    last: Tensor
    memorized: Tensor
    epoch: Tensor


def stopped_early(networks: ManyNetworks, train, validation, test, *, batch_size: int, epochs: int, rate) -> Stopped:
    """Train the networks, and note after each epoch where early stopping would have stopped them.

    Args:
        train, validation, test: images (S, N, F) and labels (S, N).
        rate: the learning rate.
    """
    steps, losses, accuracies = train[1].shape[1] // batch_size, [], []

    def measure(step: int) -> None:
        if step % steps == 0:
            losses.append(evaluate_many(networks, validation).loss)
            accuracies.append(evaluate_many(networks, test).accuracy)

    measure(0)
    train_many(networks, train, batch_size=batch_size, epochs=epochs, learning_rate=rate, on_step=measure)
    best = torch.stack(losses).nan_to_num(torch.inf).argmin(0)
    found = torch.stack(accuracies)
    early = found.gather(0, best.unsqueeze(0))[0]
    return Stopped(early, found[-1], evaluate_many(networks, train).accuracy, best)


__getattr__ = names_of(__name__)
