"""D: what the optimizer does with gamma and beta."""

from collections.abc import Iterator

import torch
from torch import nn

from bncourse.doctor.norms import affine_moved, batches_counted, initial, kind_of, named, norm_parameters, tracks
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.words import number, of


def unknown_norms(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[str], list[str]]:
    """The norms whose gamma or beta an optimizer lacks: those whose layer before it has, and those it lacks as well.

    For a norm that comes first, the layer after it counts. Of an optimizer of another model nothing is said.
    """
    known = {id(value) for group in optimizer.param_groups for value in group["params"]}
    modules = [(name, module, [*module.parameters(recurse=False)]) for name, module in named(model)]
    layers = [any(id(value) in known for value in own) for _, module, own in modules if own and not kind_of(module)]
    alone, with_layer, before = [], [], 0
    for name, module, own in modules:
        if own and not kind_of(module):
            before += 1
        elif any(value.requires_grad and id(value) not in known for value in own):
            (alone if not layers or layers[max(before - 1, 0)] else with_layer).append(name)
    return (alone, with_layer) if any(id(value) in known for value in model.parameters()) else ([], [])


def affine(patient: Patient) -> dict[str, list[torch.nn.Parameter]]:
    """Gamma and beta of all norms that have them."""
    norms = {name: norm_parameters(module) for name, module in named(patient.model) if kind_of(module)}
    return {name: values for name, values in norms.items() if values}


@rule("BN-S23", "note", "Weight decay on gamma and beta", 10)
def weight_decay(patient: Patient) -> Iterator[Sign]:
    """Weight decay pulls gamma, and the signal with it, towards 0; it does not regularize a batch norm's layer, whose
    scale does not matter. Many recipes decay all parameters and do well, so this is only a note. It is a warning if the
    optimizer has a group without decay that these should be in, or if gamma has shrunk to less than half of 1."""
    if patient.optimizer is None:
        return
    groups = patient.optimizer.param_groups
    decay = {id(value): group.get("weight_decay", 0) for group in groups for value in group["params"]}
    norms = affine(patient)
    found = {
        name: max(decay.get(id(value), 0) for value in values)
        for name, values in norms.items()
        if any(decay.get(id(value), 0) and value.requires_grad for value in values)
    }
    if not found:
        return
    gammas = [values[0].detach().float().abs().median() for name, values in norms.items() if name in found]
    median = float(torch.stack([each.cpu() for each in gammas]).median())
    meant = any(not group.get("weight_decay", 0) for group in groups)
    yield Sign(
        found,
        f"weight_decay {number(max(found.values()))} acts on gamma or beta of {of(found, norms, 'norm')}; the median "
        f"gamma is {number(median)}{', and another group has no decay' if meant else ''}",
        "a parameter group with weight_decay=0 for them",
        "warning" if meant or median < 0.5 else None,
    )


@rule("BN-S24", "error", "A norm that the optimizer does not know", 10)
def not_in_optimizer(patient: Patient) -> Iterator[Sign]:
    """Gamma and beta require gradients but are not in the optimizer, while the layer before them is: they never change.
    The optimizer was made before norms were converted, added or unfrozen, or from a list that leaves them out."""
    if patient.optimizer is None:
        return
    found, _ = unknown_norms(patient.model, patient.optimizer)
    if found:
        known = {id(value) for group in patient.optimizer.param_groups for value in group["params"]}
        strangers = known - {id(value) for value in patient.model.parameters()}
        old = f"; it has {len(strangers)} tensors that the model does not have" if strangers else ""
        yield Sign(
            found,
            f"gamma or beta of {of(found, affine(patient), 'norm')} is not in the optimizer{old}",
            "make the optimizer after all changes to the model",
        )


@rule("BN-S25", "warning", "Frozen parameters that the optimizer still moves", 13)
def frozen_with_gradient(patient: Patient) -> Iterator[Sign]:
    """A norm's parameter has ``requires_grad=False`` but still has a gradient from before, and is in the optimizer: the
    next step uses that gradient again."""
    if patient.optimizer is None:
        return
    known = {id(value) for group in patient.optimizer.param_groups for value in group["params"]}
    norms = affine(patient)
    found = [
        name
        for name, values in norms.items()
        if any(not value.requires_grad and value.grad is not None and id(value) in known for value in values)
    ]
    if found:
        yield Sign(
            found,
            f"{of(found, norms, 'norm', verb='have')} requires_grad=False and a gradient from an earlier step",
            "parameter.grad = None; surgery.freeze(model) does that",
        )


@rule("BN-S26", "note", "Gamma and beta never moved", 10)
def never_trained(patient: Patient) -> Iterator[Sign]:
    """Batches were counted, but gamma is exactly 1 and beta exactly 0 in every channel, although they require
    gradients: they are not in any optimizer, or its learning rate is 0."""
    norms = {
        name: norm
        for name, norm in patient.norms.items()
        if norm_parameters(norm) and tracks(norm) and any(value.requires_grad for value in norm_parameters(norm))
    }
    found = [
        name
        for name, norm in norms.items()
        if (batches_counted(norm) or 0) >= 10
        and not initial(norm)
        and not affine_moved(norm)
        and getattr(norm, "weight", None) is not None
        and bool((norm.weight == 1).all())
    ]
    if found:
        yield Sign(
            found,
            f"gamma 1 and beta 0 in every channel of {of(found, norms)} after "
            f"{batches_counted(norms[found[0]])} batches",
            "optimizer = SGD(model.parameters(), ...), made after the norms",
        )
