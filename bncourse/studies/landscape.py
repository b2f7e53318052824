"""How far the gradient can be trusted: the loss and its gradient along the gradient's own direction.

After Santurkar et al. 2018, figure 4: from the point where training stands, walk against the gradient and look.
"""

import copy

import torch
from torch import nn
from torch.nn import functional

__all__ = ["walk_along_gradient"]


def walk_along_gradient(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, step_sizes: list[float]
) -> tuple[list[float], list[float]]:
    """The loss, and the gradient's relative change, after one step of each size; the model stays as it is.

    Args:
        images, labels: one batch, (N, ...) and (N,); the model runs in training mode.
        step_sizes: learning rates; each step starts at the model's present weights.

    Returns:
        the loss after each step, in nats, and ||gradient after - gradient before|| / ||gradient before||.
    """
    losses, changes = [], []
    _, before = _loss_and_gradient(model, images, labels)
    for size in step_sizes:
        loss, after = _loss_and_gradient(model, images, labels, before, size)
        losses.append(loss)
        changes.append(((after - before).norm() / before.norm()).item())
    return losses, changes


def _loss_and_gradient(model, images, labels, direction=None, size: float = 0.0) -> tuple[float, torch.Tensor]:
    walker = copy.deepcopy(model).train()
    parameters = list(walker.parameters())
    if direction is not None:
        flat = nn.utils.parameters_to_vector(parameters)
        nn.utils.vector_to_parameters(flat.detach() - size * direction, parameters)
    loss = functional.cross_entropy(walker(images), labels)
    gradients = torch.autograd.grad(loss, parameters)
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])
