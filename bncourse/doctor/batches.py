"""What ``diagnose`` is given to run a model with: batches with or without targets."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.surgery.inputs import tensors_in

__all__ = ["Batch", "Loss", "batches_of", "class_loss", "own_loss", "scores_in", "size_of", "takes_pair"]

AT_MOST = 8  # batches taken from a loader
NOT_CLASSES = (-100, -1, 255)  # targets that are to be ignored, by custom

Loss = Callable[[Any, Any], Tensor]


class Batch(NamedTuple):
    """Inputs of a model, as its call takes them, and targets; None if there are none."""

    inputs: Any
    targets: Any = None


def batches_of(batch: Any) -> list[Batch]:
    """A batch, a list of them, or the first ones of a loader, in one form.

    Raises:
        TypeError: not one of these.
        ValueError: there are none.
    """
    if isinstance(batch, list) and not _is_pair(batch):
        found = [_split(each) for each in batch]
    elif isinstance(batch, Tensor | tuple | list | Mapping):
        found = [_split(batch)]
    elif isinstance(batch, Iterable) and not isinstance(batch, str):
        found = [_split(each) for each in islice(batch, AT_MOST)]
    else:
        raise TypeError(f"batch must be inputs, a pair (inputs, targets) or a list of them, got {type(batch).__name__}")
    if not found or not all(tensors_in(each.inputs) for each in found):
        raise ValueError("batch must have tensors in it, got none")
    return found


def _is_pair(batch: list) -> bool:
    """Whether a list is one batch, inputs and targets as a ``DataLoader`` collates them, rather than several."""
    if len(batch) != 2 or not all(isinstance(each, Tensor) for each in batch):
        return False
    inputs, targets = batch
    return len(inputs) == len(targets) and (not targets.is_floating_point() or inputs.shape != targets.shape)


def _split(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return Batch(*batch)
    return Batch(batch)


def size_of(batch: Batch) -> int:
    return len(tensors_in(batch.inputs)[0])


def scores_in(output: Any) -> Tensor | None:
    """The tensor of an output that matters most: its logits, or its first tensor of numbers."""
    fields = _fields(output)
    for name in ("logits", "out"):
        if isinstance(fields.get(name), Tensor):
            return fields[name]
    numbers = [each for each in tensors_in(fields or output) if each.is_floating_point()]
    return next((each for each in numbers if each.dim()), None)


def _fields(output: Any) -> Mapping:
    """The parts of an output that have names."""
    if is_dataclass(output) and not isinstance(output, type):
        return vars(output)
    return output if isinstance(output, Mapping) else {}


def class_loss(output: Any, targets: Any) -> Tensor | None:
    """Cross-entropy, where targets are whole numbers and an output has scores for them; else None."""
    scores = scores_in(output)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.dtype == torch.bool or scores is None:
        return None
    if targets.dim() == 2 and scores.dim() == 2 and targets.size(1) == 1:
        targets = targets[:, 0]
    if scores.dim() < 2 or targets.shape != scores.shape[:1] + scores.shape[2:]:
        if scores.dim() == 3 and targets.shape == scores.shape[:2]:  # (N, L, classes), as language models have it
            scores = scores.movedim(-1, 1)
        else:
            return None
    if scores.size(1) < 2:  # of one class cross-entropy is 0, whatever the scores
        return None
    targets = targets.long()
    ignored = (targets < 0) | (targets >= scores.size(1))
    if ignored.all() or any(value not in NOT_CLASSES for value in targets[ignored].unique().tolist()):
        return None
    return functional.cross_entropy(scores.float(), targets.masked_fill(ignored, -100))


def own_loss(output: Any) -> Tensor | None:
    """The loss that a model gives with its scores, as those of Hugging Face do if they get labels; else None."""
    loss = _fields(output).get("loss")
    return loss.float().mean() if isinstance(loss, Tensor) and loss.numel() else None


def takes_pair(model: nn.Module, batch: Batch) -> bool:
    """Whether what looks like targets is a second input of the model."""
    if isinstance(model, torch.jit.ScriptModule):  # it has no signature to look at
        return False
    parameters = inspect.signature(model.forward).parameters.values()
    required = [each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]
    return isinstance(batch.inputs, Tensor) and batch.targets is not None and len(required) >= 2
