"""Train and evaluate a classifier: short, seeded, on the device there is."""

import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from bncourse.checkpoint import TrainingFile
from bncourse.device import best_device
from bncourse.progress import progress

__all__ = ["Evaluation", "History", "evaluate", "fit"]

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class Evaluation(NamedTuple):
    """What a model does on a set of examples: mean cross-entropy in nats, and the share it gets right."""

    loss: float
    accuracy: float


@dataclass
class History:
    """What happened while a model trained.

    Attributes:
        loss: training loss of every optimizer step, in nats.
        test: the evaluation on the test set after every epoch (empty without a test set).
        diverged: True if the loss left the finite numbers; training stopped there.
    """

    loss: list[float] = field(default_factory=list)
    test: list[Evaluation] = field(default_factory=list)
    diverged: bool = False

    @property
    def accuracy(self) -> float:
        """The test accuracy after the last epoch."""
        return self.test[-1].accuracy

    def _plain(self) -> dict:
        """The same in plain values, which a checkpoint can hold; ``History(**plain)`` takes them back."""
        return asdict(self) | {"test": [tuple(evaluation) for evaluation in self.test]}

    def __post_init__(self):
        self.test = [Evaluation(*evaluation) for evaluation in self.test]


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

    Args:
        train, test: pairs (images, labels) of tensors, (N, ...) and (N,).
        batch_size: examples in each forward pass. A last, smaller batch is left out, as with ``drop_last=True``.
        optimizer: "sgd", "momentum", "adam", "adamw", or a function (parameters, lr) that makes one.
        accumulate: how many batches' gradients are averaged into one optimizer step. A last incomplete window is
            averaged over the batches that it has and then stepped: nothing leaks into the next epoch.
        mixed_precision: run the forward pass under bfloat16 autocast.
        on_step: called with the number of steps so far after every optimizer step.
        checkpoint: a file that keeps the run after every epoch. Called again with the same file, ``fit`` goes on after
            the last epoch that it finished; on a CPU all numbers are those of a run without the interruption.

    Raises:
        TypeError: examples that are no pair of tensors, a number that is not whole, an ``optimizer`` or ``on_step``
            that cannot be called.
        ValueError: an argument out of its range, images and labels that differ in number, fewer examples than one
            batch, or a checkpoint that is damaged or of another model, run or data.
        OSError: the checkpoint cannot be written.
    """
    images, labels = _examples("train", train)
    if test is not None:
        _examples("test", test)
    _check(len(labels), epochs, batch_size, accumulate, seed, optimizer, on_step)
    device = best_device()
    model.to(device)
    make = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    stepper = make(model.parameters(), lr=learning_rate)
    settings = {"batch_size": int(batch_size), "learning_rate": float(learning_rate), "optimizer": _name(optimizer)}
    settings |= {"accumulate": int(accumulate), "seed": int(seed), "mixed_precision": bool(mixed_precision)}
    settings |= {"shape of the training images": list(images.shape), "test": "given" if test is not None else "none"}
    if checkpoint is not None:
        sums = {name: _check_sum(part) for name, part in (("train", train), ("test", test)) if part is not None}
        settings |= {f"the check sum of {name}": value for name, value in sums.items()}
    file = TrainingFile(checkpoint, model, stepper, settings)
    steps = math.ceil(len(labels) // batch_size / accumulate)
    with torch.random.fork_rng(), progress(epochs * steps, "fit", "step") as bar:
        torch.manual_seed(seed)
        done, kept = file.load()
        history = History(**kept)
        model.train()
        if done > epochs:
            raise ValueError(f"epochs={epochs} is too few; checkpoint={str(checkpoint)!r} already has {done}")
        if done < epochs:
            file.save(done, history._plain())  # at once: a place that cannot be written is known before the work
        bar.update(len(history.loss))
        for epoch in range(done, epochs):
            if history.diverged:
                break
            for window in _windows(len(labels), batch_size, accumulate):
                stepper.zero_grad()
                step_loss = 0.0
                for chosen in window:
                    x, y = images[chosen].to(device), labels[chosen].to(device)
                    with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision):
                        loss = functional.cross_entropy(model(x), y) / len(window)
                    loss.backward()
                    step_loss += loss.item()
                stepper.step()
                history.loss.append(step_loss)
                bar.update()
                if on_step is not None:
                    on_step(len(history.loss))
                if not step_loss < float("inf"):
                    history.diverged = True
                    break
            if test is not None:
                history.test.append(evaluate(model, test))
            file.save(epoch + 1, history._plain())
    return history


@torch.no_grad()
def evaluate(model: nn.Module, examples, batch_size: int = 256) -> Evaluation:
    """The loss and accuracy of ``model`` in eval mode; its mode is left as it was found.

    Args:
        examples: a pair (images, labels) of tensors, (N, ...) and (N,).
        batch_size: examples in each forward pass; the result does not depend on it.

    Raises:
        TypeError: ``examples`` is no pair of tensors, or ``batch_size`` is not whole.
        ValueError: no examples, images and labels that differ in number, or ``batch_size`` below one.
    """
    images, labels = _examples("examples", examples)
    _check_count("batch_size", batch_size)
    device = next((p.device for p in model.parameters()), best_device())
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    loss, right = 0.0, 0
    try:
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            scores, y = model(x.to(device)).float(), y.to(device)
            loss += functional.cross_entropy(scores, y, reduction="sum").item()
            right += (scores.argmax(1) == y).sum().item()
    finally:
        for module, mode in modes:
            module.training = mode
    return Evaluation(loss / len(labels), right / len(labels))


def _windows(count: int, batch_size: int, accumulate: int) -> Iterator[list[torch.Tensor]]:
    """The shuffled indices of one epoch, in batches, grouped by optimizer step."""
    batches = torch.randperm(count)[: count - count % batch_size].split(batch_size)
    for start in range(0, len(batches), accumulate):
        yield list(batches[start : start + accumulate])


def _name(optimizer: str | Callable) -> str:
    return optimizer if isinstance(optimizer, str) else getattr(optimizer, "__qualname__", type(optimizer).__qualname__)


def _examples(name: str, examples) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels of ``examples``, which is the argument ``name``."""
    parts = examples if isinstance(examples, list | tuple) else ()
    if len(parts) != 2 or not all(map(torch.is_tensor, parts)):
        kinds = ", ".join(type(part).__name__ for part in parts) or type(examples).__name__
        raise TypeError(f"{name} is {kinds}; expected a pair (images, labels) of tensors")
    images, labels = parts
    if len(images) != len(labels):
        raise ValueError(f"{name} has {len(images)} images and {len(labels)} labels; expected as many of each")
    if len(labels) == 0:
        raise ValueError(f"{name} is empty; expected at least one example")
    return images, labels


def _check_sum(examples) -> int:
    """Tells two sets of examples of the same shape apart."""
    value = 0
    for part in examples:
        value = zlib.crc32(part.detach().cpu().contiguous().view(torch.uint8).numpy(), value)
    return value


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is not a whole number; expected at least 1")
    if value < 1:
        raise ValueError(f"{name}={value} is too small; expected at least 1")


def _check(
    count: int,
    epochs: int,
    batch_size: int,
    accumulate: int,
    seed: int,
    optimizer: str | Callable,
    on_step: Callable | None,
) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("accumulate", accumulate)):
        _check_count(name, value)
    if not isinstance(seed, Integral):
        raise TypeError(f"seed={seed!r} is not a whole number")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed={seed} is too large; expected a number of 64 bits")
    if not (callable(optimizer) or isinstance(optimizer, str)):
        raise TypeError(f"optimizer={optimizer!r} cannot be called; expected a function")
    if not (callable(on_step) or on_step is None):
        raise TypeError(f"on_step={on_step!r} cannot be called; expected a function")
    if count < batch_size:
        raise ValueError(f"train has {count} examples, fewer than one batch; expected at least batch_size={batch_size}")
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer={optimizer!r} is unknown; expected one of {', '.join(OPTIMIZERS)}, or a function")
