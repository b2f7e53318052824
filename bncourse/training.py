"""Train and evaluate a classifier: short, seeded, on the best device there is.

Where things live: what you hold is on the CPU. ``load`` hands out tensors there, a model is made there, and ``fit``
takes both to ``best_device()`` (a GPU if there is one) and brings the model back. So a cell that runs the model on the
data works on every machine. A model that you have put on a device yourself is trained there and stays there.

Data need not be where the model is: ``fit`` and ``evaluate`` here, ``surgery.recalibrate``, and ``train_many`` of the
studies take them to it.

Initial weights, the order of the examples, noise and the masks of ``models.Dropout`` are drawn on the CPU: a seed means
the same network on every device, up to rounding.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from bncourse.checkpoint import resume, save
from bncourse.checks import whole_number
from bncourse.devices import best_device, device_of, moved, seeded, training_device
from bncourse.progress import progress

__all__ = ["Evaluation", "History", "best_device", "evaluate", "fit", "in_evaluation", "quick"]

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class Evaluation(NamedTuple):
    """Mean cross-entropy (nats) and accuracy of a model on a set of examples."""

    loss: float
    accuracy: float


@dataclass
class History:
    """What happened while a model trained.

    Attributes:
        loss: training loss of every optimizer step, in nats.
        test: the evaluation on the test set after every epoch (empty without a test set).
        diverged: True if the loss was no longer finite; training stopped there.
    """

    loss: list[float] = field(default_factory=list)
    test: list[Evaluation] = field(default_factory=list)
    diverged: bool = False

    @property
    def accuracy(self) -> float:
        """The test accuracy after the last epoch.

        Raises:
            ValueError: there was no test set.
        """
        if not self.test:
            raise ValueError("accuracy needs a test set, got none: call fit(model, train, test)")
        return self.test[-1].accuracy


def fit(
    model: nn.Module,
    train,
    test=None,
    *,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    optimizer: str | Callable = "sgd",
    accumulate: int = 1,
    seed: int = 0,
    mixed_precision: bool = False,
    on_step: Callable[[int], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> History:
    """Train ``model`` on cross-entropy; a function of ``seed``, which leaves the global random state alone.

    The order of the examples has a generator of its own: dropout, and other noise in the model, does not change it.

    It trains on ``best_device()``, or where the model is if that is not the CPU; afterwards the model is in train mode
    where it was. A quick run (see ``quick``) makes at most 3 optimizer steps an epoch and 2 epochs.

    Args:
        train, test: pairs (images, labels) of tensors, (N, ...) and (N,), on any device.
        batch_size: examples in each forward pass. A last, smaller batch is left out, as with ``drop_last=True``.
        optimizer: "sgd", "momentum", "adam", "adamw", or a function (parameters, lr) that makes one.
        accumulate: how many batches' gradients are averaged into one optimizer step. A last incomplete window is
            averaged over the batches that it has and then stepped: nothing leaks into the next epoch.
        mixed_precision: run the forward pass under bfloat16 autocast.
        on_step: called with the number of steps so far after every optimizer step, with the model where it was. (To
            bring it back from a GPU takes time: put the model there yourself if it is large.)
        checkpoint: a file that keeps the run after every epoch. Called again with the same file and data, ``fit`` goes
            on after the last epoch that it finished; on a CPU all numbers are those of a run without the interruption.

    Raises:
        TypeError: examples that are not a pair of tensors, or a number that is not whole.
        ValueError: an argument out of its range, images and labels that differ in number, or a checkpoint that is
            damaged or of another model or run.
        OSError: the checkpoint cannot be written.
    """
    images, labels = _examples("train", train)
    if test is not None:
        _examples("test", test)
    epochs, accumulate = whole_number("epochs", epochs), whole_number("accumulate", accumulate)
    batch_size = whole_number("batch_size", batch_size, at_most=len(labels))
    seed = whole_number("seed", seed, at_least=-(2**63), at_most=2**64 - 1)
    make_optimizer = OPTIMIZERS.get(optimizer, optimizer)  # type: ignore[arg-type]
    if not callable(make_optimizer):
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, or a function, got {optimizer!r}")
    steps = math.ceil(len(labels) // batch_size / accumulate)  # of one epoch
    if quick():
        epochs, steps = min(epochs, 2), min(steps, 3)
    home, history = device_of(model), History()
    with moved(model, training_device(model)) as device, seeded(seed, device):
        train = images.to(device), labels.to(device)
        test = test and (test[0].to(device), test[1].to(device))
        optimizer = make_optimizer(model.parameters(), lr=learning_rate)
        settings: dict = {"train": list(images.shape), "test": test and list(test[0].shape), "seed": seed}
        settings |= {"batch_size": batch_size, "accumulate": accumulate, "mixed_precision": bool(mixed_precision)}
        settings |= {"steps": steps, "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}"}  # type: ignore[union-attr]
        if checkpoint is not None and (kept := resume(checkpoint, model, optimizer, settings)):
            history = History(kept["loss"], [Evaluation(*pair) for pair in kept["test"]], kept["diverged"])
            whole_number("epochs", epochs, at_least=math.ceil(len(history.loss) / steps))
        model.train()
        orders = islice(_orders(len(labels), seed), len(history.loss) // steps, None)
        with progress(epochs * steps, "fit", "step") as bar:
            bar.update(len(history.loss))
            while len(history.loss) < epochs * steps and not history.diverged:
                epoch = _epoch(model, optimizer, train, next(orders), batch_size, accumulate, mixed_precision)
                for loss in islice(epoch, steps):
                    history.loss.append(loss)
                    bar.update()
                    if on_step is not None:
                        with moved(model, home):
                            on_step(len(history.loss))
                    if not math.isfinite(loss):
                        history.diverged = True
                        break
                if test is not None:
                    history.test.append(evaluate(model, test))
                if checkpoint is not None:
                    save(checkpoint, model, optimizer, settings, vars(history) | {"test": [*map(tuple, history.test)]})
    return history


def _orders(count: int, seed: int) -> Iterator[Tensor]:
    """The examples of each epoch in its order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(count, generator=generator, device="cpu")


def _epoch(
    model: nn.Module,
    optimizer: Optimizer,
    examples,
    order: Tensor,
    batch_size: int,
    accumulate: int,
    mixed_precision: bool,
) -> Iterator[float]:
    """Train for one epoch; yields the loss of every optimizer step."""
    images, labels = examples
    batches = order.to(images.device)[: len(labels) // batch_size * batch_size].split(batch_size)
    for start in range(0, len(batches), accumulate):
        window = batches[start : start + accumulate]
        optimizer.zero_grad()
        losses = []
        for chosen in window:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed_precision):
                loss = functional.cross_entropy(model(images[chosen]), labels[chosen]) / len(window)
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        yield sum(torch.stack(losses).tolist())  # the one wait for the device in a step


@torch.no_grad()
def evaluate(model: nn.Module, examples, batch_size: int = 256) -> Evaluation:
    """The loss and accuracy of ``model`` in eval mode, on the model's device.

    The model's mode is left as it was found.

    Args:
        examples: a pair (images, labels) of tensors, (N, ...) and (N,), on any device.
        batch_size: examples in each forward pass; the result does not depend on it.

    Raises:
        TypeError: ``examples`` must be a pair of tensors, ``batch_size`` whole.
        ValueError: no examples, images and labels that differ in number, or
            ``batch_size`` below one.
    """
    images, labels = _examples("examples", examples)
    batch_size = whole_number("batch_size", batch_size)
    device = device_of(model)
    losses, right = [], []
    with in_evaluation(model):
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            scores, y = model(x.to(device)).float(), y.to(device)
            losses.append(functional.cross_entropy(scores, y, reduction="sum"))
            right.append((scores.argmax(1) == y).sum())
    loss, count = (sum(torch.stack(parts).tolist()) for parts in (losses, right))
    return Evaluation(loss / len(labels), count / len(labels))


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Until the block ends, ``model`` is in eval mode; then each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def quick() -> bool:
    """Whether ``BNCOURSE_QUICK`` is 1: ``fit`` and ``compare`` then do just enough to show that things run."""
    return os.environ.get("BNCOURSE_QUICK") == "1"


def _examples(name: str, examples) -> tuple[Tensor, Tensor]:
    """The images and labels of ``examples``, which is the argument ``name``."""
    parts = examples if isinstance(examples, list | tuple) else (examples,)
    if len(parts) != 2 or not all(map(torch.is_tensor, parts)):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"{name} must be a pair (images, labels) of tensors, got {kinds}")
    if len(parts[0]) != len(parts[1]) or len(parts[0]) == 0:
        counts = f"{len(parts[0])} images and {len(parts[1])} labels"
        raise ValueError(f"{name} must have at least one image and as many labels, got {counts}")
    if parts[1].dim() != 1 or parts[1].dtype not in (torch.int64, torch.uint8):
        shape = tuple(parts[1].shape)
        raise TypeError(f"{name} must have labels of type int64 and shape (N,), got {parts[1].dtype} and {shape}")
    return parts[0], parts[1]
