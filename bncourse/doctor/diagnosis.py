"""Examine a model: the static rules, and with a batch those of a forward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bncourse.doctor import (  # noqa: F401  (importing them registers their rules)
    rules_architecture,
    rules_averaging,
    rules_modes,
    rules_optimizer,
    rules_precision,
    rules_shapes,
    rules_statistics,
)
from bncourse.doctor.batches import Loss, batches_of
from bncourse.doctor.finding import SEVERITIES, Diagnosis, Finding
from bncourse.doctor.norms import kind_of, named
from bncourse.doctor.patient import Patient, random_numbers_kept, untouched
from bncourse.doctor.rule import findings_of
from bncourse.doctor.words import plural
from bncourse.surgery.norms import plain_model

__all__ = ["check_types", "diagnose", "examine", "examined"]

IMPLIED = {"BN-F04": ("BN-S09",), "BN-W02": ("BN-S14",)}  # a finding on the left says all that those on the right say


def diagnose(
    model: nn.Module,
    batch: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
    averaged: nn.Module | Sequence[nn.Module] | None = None,
) -> Diagnosis:
    """What is wrong with the norms of ``model``, and with what surrounds them.

    The model is left as it was, to the bit: parameters, buffers, modes, random numbers. A copy of it runs, also where
    the model is compiled.

    Args:
        batch: inputs of the model (a tensor, a tuple or a dictionary of arguments), a pair of them and targets, a list
            of such batches, or a loader. Take data that the model was trained for, 32 samples or more. Without a batch
            only the static rules look.
        optimizer: the one that trains the model.
        loss: a function of output and targets; cross-entropy where the targets are classes.
        averaged: a second model that was made of this one: its running average (EMA, SWA), a teacher, a folded or
            converted one. Or the models that this one is the average of, as in federated learning.

    Raises:
        TypeError: a model, an optimizer or an averaged model that is not one, or a batch that is none of these.
        ValueError: a batch that does not fit the model, or a batch for a model on the meta device.
    """
    check_types(model, optimizer)
    others = averaged if isinstance(averaged, list | tuple) else [] if averaged is None else [averaged]
    for other in others:
        if not isinstance(other, nn.Module):
            raise TypeError(f"averaged must be a torch.nn.Module or a list of them, got {type(other).__name__}")
    with random_numbers_kept(plain_model(model)):
        batches = None if batch is None else batches_of(batch)
    return examine(Patient(model, batches, optimizer, loss, list(others)), loader=batch)


def check_types(model: Any, optimizer: Any) -> None:
    """Raise a TypeError for what is not a model, or not an optimizer or None."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")


def examine(patient: Patient, loader: Any = None) -> Diagnosis:
    """What the static rules find in a patient, and those of a forward pass if it came with a batch."""
    patient.loader = loader
    if patient.batches and any(value.is_meta for value in (*patient.model.parameters(), *patient.model.buffers())):
        raise ValueError("model must have values to run on a batch, got some on the meta device")
    with untouched(patient.model):
        found = findings_of(patient, "static")
        if patient.batches:
            patient.evaluation  # noqa: B018  (a batch that does not fit is reported first)
            found += findings_of(patient, "forward")
        calls = len(patient.evaluation.seen.functional) if patient.batches else 0
    looked_at = examined(patient.model)
    if calls:
        calls //= len(patient.batches)
        looked_at = f"{looked_at}, {plural(calls, 'call')} of functional.batch_norm"
    return Diagnosis(sorted_and_merged(found), looked_at)


def sorted_and_merged(found: list[Finding]) -> list[Finding]:
    """The worst first, without those that another one implies."""
    ids = {finding.rule for finding in found if finding.severity != "note"}
    implied = {rule for id in ids for rule in IMPLIED.get(id, ())}
    return sorted(
        (each for each in found if each.rule not in implied), key=lambda each: SEVERITIES.index(each.severity)
    )


def examined(model: nn.Module) -> str:
    """What there is to examine: "20 batch norms, 2 group norms"."""
    kinds = [kind for _, module in named(model) if (kind := kind_of(module))]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(f"{n} {kind} norm{'s' if n > 1 else ''}" for kind, n in counts.items()) or "no norms"
