"""What a specimen is: a bug that somebody had, small enough to read, beside the same code without it."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from bncourse.devices import seeded

__all__ = ["REGISTERED", "Patient", "Specimen", "Thread", "specimen"]


@dataclass
class Patient:
    """What a doctor can look at: a model, and whatever surrounds it that matters here.

    Attributes:
        model: in the mode and with the statistics that the bug left it with.
        batches: pairs (inputs, targets) of the data at hand; inputs are what the model takes (a tensor, a tuple of
            tensors, or a dict). Empty where the bug shows without data.
        optimizer: the one that trains the model, if there is one.
        averaged: a second model that was made of the first: its weights' average (EMA, SWA), a target network, a folded
            or exported one. Or the models of several clients.
        loss: of (outputs, targets); None means cross-entropy.
        session: trains or evaluates the patient as its owner did; called with the patient while a doctor watches.
            None where nothing has to run.
    """

    model: nn.Module
    batches: Sequence[tuple[Any, torch.Tensor]] = ()
    optimizer: Optimizer | None = None
    averaged: nn.Module | list[nn.Module] | None = None
    loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    session: Callable[["Patient"], Any] | None = None


class Thread(NamedTuple):
    """Where people met the bug: an address that we have read, and the day it was opened ("" if we could not see it)."""

    link: str
    date: str = ""


@dataclass(frozen=True)
class Specimen:
    """A bug with its fixed twin.

    Attributes:
        name: of the function that makes it, with hyphens.
        family: the title of the module that it is in, such as "A. Statistics and modes".
        symptom: one sentence, as the person met it. It is the first line of the function's docstring.
        cause: what was wrong: the rest of the docstring.
        before, after: the line that is wrong, and the right one.
        make: ``make(fixed)`` makes the patient, sick or well. Everything random comes from torch's global generator.
        damage: ``damage(patient)`` is a number that the bug changes, measured on a patient of its own.
        measure: what ``damage`` measures, with its unit.
        chapter: the number of the chapter that explains it.
        threads: where people met it.
        rules: ids of the doctor's rules that name the cause. Empty if no rule does.
    """

    name: str
    family: str
    symptom: str
    cause: str
    before: str
    after: str
    make: Callable[[bool], Patient]
    damage: Callable[[Patient], float]
    measure: str
    chapter: int
    threads: tuple[Thread, ...] = ()
    rules: tuple[str, ...] = ()

    def broken(self, seed: int = 0) -> Patient:
        """The patient with the bug; a function of ``seed``."""
        with seeded(seed):
            return self.make(False)

    def fixed(self, seed: int = 0) -> Patient:
        """The same patient, made by the right line."""
        with seeded(seed):
            return self.make(True)

    def measured(self, seed: int = 0) -> tuple[float, float]:
        """The damage of the broken patient and of the fixed one."""
        with seeded(seed):
            broken = self.damage(self.broken(seed))
        with seeded(seed):
            return broken, self.damage(self.fixed(seed))


REGISTERED: list[Specimen] = []


def specimen(*, networks: Sequence[Callable[[], nn.Module]] = (), **fields: Any) -> Callable:
    """Make the function below it a specimen; ``fields`` are those of ``Specimen`` that its docstring does not give.

    The function takes ``fixed`` and returns a ``Patient``. Its docstring is the symptom, an empty line, and the cause;
    the first line of its module's is the family. With ``networks``, such as ``(cnn, mlp)`` of ``museum.patients``, it
    takes one of them as ``network`` and becomes as many specimens, which have the network's name in theirs.
    """

    def register(make: Callable) -> Callable:
        symptom, _, cause = inspect.getdoc(make).partition("\n\n")
        family = sys.modules[make.__module__].__doc__.splitlines()[0].rstrip(".")
        threads = tuple(Thread(*one) for one in fields.pop("threads", ()))
        name = make.__name__.replace("_", "-")
        kinds: list[tuple[str, Callable]] = [(name, make)]
        if networks:
            kinds = [(f"{name} ({network.__name__})", partial(make, network=network)) for network in networks]
        for title, kind in kinds:
            REGISTERED.append(
                Specimen(
                    title, family, symptom=symptom, cause=" ".join(cause.split()), make=kind, threads=threads, **fields
                )
            )
        return make

    return register
