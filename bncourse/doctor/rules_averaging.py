"""E and H: models made of others: averaged, federated, folded, converted."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from bncourse.doctor.norms import batch_norms, batches_counted, initial, tracks
from bncourse.doctor.patient import Patient, untouched
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.rules_statistics import damage
from bncourse.doctor.words import number, of, plural
from bncourse.surgery.norms import plain_model

RECALIBRATE = "surgery.recalibrate(averaged, loader), or average with surgery.average(model)"


def inner(model: nn.Module) -> nn.Module:
    """The model inside torch's ``AveragedModel``, and inside what compiled it."""
    model = plain_model(model)
    return plain_model(model.module) if isinstance(model, torch.optim.swa_utils.AveragedModel) else model


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace("_orig_mod.", ""): value.detach() for name, value in model.named_parameters()}


def same_form(one: nn.Module, other: nn.Module) -> bool:
    shapes = [{name: value.shape for name, value in parameters(each).items()} for each in (one, other)]
    return shapes[0] == shapes[1]


def weight_change(one: nn.Module, other: nn.Module) -> float:
    """How far the parameters are apart, as a share of their size."""
    pairs = zip(parameters(one).values(), parameters(other).values(), strict=True)
    squares = [((a.float().cpu() - b.float().cpu()).square().sum(), b.float().cpu().square().sum()) for a, b in pairs]
    difference, size = (float(sum(each)) for each in zip(*squares, strict=True))
    return math.sqrt(difference / max(size, 1e-30))


def alike(patient: Patient) -> list[nn.Module]:
    """The other models with the form of this one."""
    return [one for one in map(inner, patient.averaged) if same_form(one, inner(patient.model))]


def mean_distance(patient: Patient) -> tuple[float, float]:
    """How far the parameters are from the mean of the others', and these from each other, as shares of their size."""
    own, others = parameters(inner(patient.model)), [parameters(one) for one in alike(patient)]
    means = {name: torch.stack([one[name].float().cpu() for one in others]).mean(0) for name in own}
    size = math.sqrt(sum(float(value.square().sum()) for value in means.values())) + 1e-30
    off = math.sqrt(sum(float((own[name].float().cpu() - means[name]).square().sum()) for name in own))
    spread = math.sqrt(
        sum(float((one[name].float().cpu() - means[name]).square().sum()) for one in others for name in own)
        / len(others)
    )
    return off / size, spread / size


def is_federated(patient: Patient) -> bool:
    """Whether the model's parameters are the mean of the others'."""
    if len(alike(patient)) < 2:
        return False
    off, spread = mean_distance(patient)
    return off < 0.1 * spread


@rule("BN-S27", "warning", "Averaged weights, another model's statistics", 13)
def borrowed_statistics(patient: Patient) -> Iterator[Sign]:
    """The weights of the second model are an average; its running statistics are bit for bit those of the first model,
    or those of a new layer: ``parameters()`` were averaged and the buffers copied or forgotten. Its activations have
    means and variances that neither set describes. ``torch.optim.swa_utils.AveragedModel`` does this by default, and
    leaves ``update_bn`` to you."""
    if is_federated(patient):
        return
    model = inner(patient.model)
    for other in alike(patient):
        change = weight_change(other, model)
        if change < 1e-6:
            continue
        norms, others = batch_norms(model), batch_norms(other)
        pairs = {name: (norms[name], others[name]) for name in norms if name in others and tracks(norms[name])}
        pairs = {name: pair for name, pair in pairs.items() if tracks(pair[1])}
        new = [name for name, (one, two) in pairs.items() if initial(two) and not initial(one)]
        equal = [name for name, (one, two) in pairs.items() if equal_statistics(one, two) and not initial(one)]
        if new:
            said = f"{of(new, pairs)} of the averaged model have mean 0 and variance 1, as new"
            yield Sign(new, f"the weights differ by {change:.1%}; {said}", RECALIBRATE, "error")
        elif equal and len(equal) == len(pairs):
            said = "all running statistics are bit for bit the first model's"
            yield Sign(equal, f"the weights differ by {change:.1%} of their size; {said}", RECALIBRATE)
        else:
            behind = [
                name
                for name, (one, two) in pairs.items()
                if (batches_counted(two) or 0) < 0.5 * (batches_counted(one) or 0)
            ]
            if behind:
                one, two = (batches_counted(each) for each in pairs[behind[0]])
                yield Sign(
                    behind, f"its statistics counted {two} batches, those of the model {one}", RECALIBRATE, "note"
                )


def equal_statistics(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(getattr(one, name).cpu().float(), getattr(other, name).cpu().float())
        for name in ("running_mean", "running_var")
    )


@rule("BN-S33", "warning", "A teacher in training mode", 13)
def teacher_in_training(patient: Patient) -> Iterator[Sign]:
    """The second model is a teacher, a target or an average that needs no gradients, but it is in training mode: each
    forward pass moves its statistics and depends on the batch. ``no_grad()`` does not prevent that."""
    for other in map(inner, patient.averaged):
        norms = {name: norm for name, norm in batch_norms(other).items() if tracks(norm)}
        found = [name for name, norm in norms.items() if norm.training]
        if found and not any(value.requires_grad for value in other.parameters()):
            yield Sign(
                found,
                f"{of(found, norms)} of the second model are in training mode, and its parameters have no gradients",
                "teacher.eval(), again after each model.train() that reaches it",
            )


@rule("BN-S28", "error", "Federated weights without statistics", 13)
def federated(patient: Patient) -> Iterator[Sign]:
    """The model's parameters are the mean of the clients', but its running statistics are not: they are those of a new
    layer or of one client, or older ones. ``model.parameters()`` was averaged instead of the state."""
    if not is_federated(patient):
        return
    clients = [batch_norms(one) for one in alike(patient)]
    new, single, old = [], [], []
    norms = {name: norm for name, norm in batch_norms(inner(patient.model)).items() if tracks(norm)}
    for name, norm in norms.items():
        theirs = [client[name] for client in clients]
        if all(map(initial, theirs)):
            continue
        distinct = not equal_statistics(theirs[0], theirs[-1])
        means = torch.stack([each.running_mean.float().cpu() for each in theirs])
        spread = (means - means.mean(0)).norm(dim=1).mean()
        if initial(norm):
            new.append(name)
        elif distinct and any(equal_statistics(norm, each) for each in theirs):
            single.append(name)
        elif distinct and (norm.running_mean.float().cpu() - means.mean(0)).norm() > 2 * spread + 1e-12:
            old.append(name)
    for found, said in (
        (new, "mean 0 and variance 1, as new"),
        (single, "one client's statistics"),
        (old, "none of theirs"),
    ):
        if found:
            yield Sign(
                found,
                f"the weights are the mean of {plural(len(clients), 'model')}; {of(found, norms, verb='have')} {said}",
                "average state_dict()'s floating-point tensors, or surgery.recalibrate(model, loader)",
                "warning" if found is old else None,
            )


@rule("BN-F15", "error", "The averaged model's statistics do not fit its weights", 13)
def averaged_unfitting(patient: Patient) -> Iterator[Sign]:
    """The second model is run on the same batches with its running statistics, with the batch's, and after
    recalibrating a copy of it, as BN-F01 does for the model itself."""
    if is_federated(patient):
        return
    for other in alike(patient):
        with untouched(other):
            found = damage(Patient(other, patient.batches, loss=patient.loss, real=patient.real))
        if found.severity:
            said = f"of the averaged model: {found.measured}"
            yield Sign(found.layers, said, "surgery.recalibrate(averaged, loader)", found.severity)


@rule("BN-F16", "error", "A converted model computes something else", 13)
def converted_differs(patient: Patient) -> Iterator[Sign]:
    """The second model does not have the parameters of the first: it was folded, fused, exported, quantized or ported.
    Both are evaluated on the same batches. Where norms were folded into weights, the outputs agree to 1e-3 of their
    size in single precision, unless the conversion was made in training mode, or with a different eps, order of
    channels or set of statistics."""
    for other in map(inner, patient.averaged):
        if same_form(other, inner(patient.model)):
            continue
        try:
            with untouched(other):
                change = patient.relative_change(Patient(other, patient.batches).evaluation)
        except Exception as error:
            yield Sign([], f"the converted model raised {type(error).__name__} on the batch", "convert it again")
            continue
        if not change < 0.01:
            yield Sign(
                [],
                f"the outputs of the two models differ by {number(change)} of their size in evaluation",
                "model.eval() before the conversion; surgery.fold(model, example) compares the outputs",
                None if not change < 0.1 else "note",
            )
