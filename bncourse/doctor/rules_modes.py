"""A: training and evaluation mode, and norms that no mode reaches."""

from collections.abc import Iterator

from torch import nn

from bncourse.doctor.norms import batch_norms, frozen, hidden_norms, kind_of, named, norm_parameters, tracks
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.rules_optimizer import unknown_norms
from bncourse.doctor.words import freezing, of, plural


@rule("BN-S14", "warning", "Frozen parameters, moving statistics", 13)
def frozen_but_moving(patient: Patient) -> Iterator[Sign]:
    """``requires_grad=False`` stops gamma and beta. The statistics are buffers: they move with every forward pass in
    training mode, and the network drifts although no weight changes. ``norm.eval()`` stops them until the next
    ``model.train()``. If gamma and beta are merely left out of the optimizer, together with the layer before them, this
    is only a note: another optimizer may have them."""
    model = patient.model
    trains = any(parameter.requires_grad for parameter in model.parameters())
    if not model.training and not trains:
        return  # a model for inference
    owners = {child: module for module in model.modules() for child in module.children()}
    modes = patient.norms if model.training else _in_training(patient)
    found = []
    for name, norm in modes.items():
        own = norm_parameters(norm)
        # without parameters of its own a norm belongs to the layers around it
        around = own or list(owners[norm].parameters() if norm in owners else ())
        stopped = around and not any(each.requires_grad for each in around)
        if norm.training and tracks(norm) and not frozen(norm) and stopped:
            found.append(name)
    if found:
        when = "they do in training mode" if model.training else "they will after model.train()"
        yield Sign(
            found,
            f"{of(found, patient.norms, verb='have')} parameters without gradients and statistics that move: {when}",
            freezing(found, patient.norms) if trains else "model.eval(): nothing in it is trained",
            None if model.training else "note",
        )
    elif model.training and patient.optimizer is not None:
        _, unknown = unknown_norms(model, patient.optimizer)
        found = [name for name in unknown if (norm := patient.norms.get(name)) and norm.training and tracks(norm)]
        if found:
            yield Sign(
                found,
                f"{of(found, patient.norms, verb='are')} not in the optimizer, nor are the layers before them; "
                "their statistics move in training mode",
                f"{freezing(found, patient.norms)}, unless another optimizer trains them",
                "note",
            )


def _in_training(patient: Patient) -> dict[str, nn.Module]:
    """The batch norms of the copy after ``train()``."""
    try:
        patient.copy.train()
        names = batch_norms(patient.copy)
        return {name: norm for name, norm in names.items() if norm.training}
    except Exception:
        return {}


@rule("BN-S15", "error", "A norm in training mode in a model in evaluation mode", 3)
def training_inside_evaluation(patient: Patient) -> Iterator[Sign]:
    """The model is in evaluation mode, but this norm is not: it normalizes with the statistics of the batch and moves
    its own. A half-done MC dropout, a ``train()`` call on one part, or a wrapper with its own flag leaves a model in
    this state."""
    if patient.model.training:
        return
    found = [name for name, norm in patient.norms.items() if norm.training and tracks(norm)]
    if found:
        yield Sign(
            found,
            f"{of(found, patient.norms, verb='are')} in training mode while the model is in evaluation mode",
            "model.eval(); for MC dropout set the dropout layers alone to train()",
        )


@rule("BN-S16", "error", "model.eval() does not reach a norm", 3)
def eval_does_not_reach(patient: Patient) -> Iterator[Sign]:
    """A copy of the model was put into evaluation mode, but this norm stayed in training mode: an overridden ``train``
    or ``eval`` method does not pass the mode on."""
    try:
        patient.copy.eval()
    except Exception:
        return
    found = [name for name, norm in batch_norms(patient.copy).items() if norm.training and tracks(norm)]
    if found:
        yield Sign(
            found,
            f"after model.eval() {of(found, patient.norms, verb='are')} still in training mode",
            "in an overridden train(self, mode=True): return super().train(mode)",
        )


@rule("BN-S17", "error", "A norm that torch does not know of", 5)
def hidden(patient: Patient) -> Iterator[Sign]:
    """A norm in a Python list or dictionary is not part of the model: ``eval()`` and ``to(device)`` do not reach it,
    ``state_dict()`` does not save it, and ``parameters()`` does not give it to the optimizer."""
    found = [name for name, _ in hidden_norms(patient.model)]
    if found:
        yield Sign(
            found,
            f"{plural(len(found), 'norm')} in a list or dictionary: eval(), state_dict() and parameters() miss it",
            "nn.ModuleList(...) or nn.ModuleDict(...) around them",
        )


@rule("BN-S18", "note", "InstanceNorm with running statistics", 7)
def tracking_instance_norm(patient: Patient) -> Iterator[Sign]:
    """An InstanceNorm normalizes each sample by itself in training. With ``track_running_stats=True`` it uses averages
    in evaluation, which is not the function that was trained."""
    norms = {name: module for name, module in named(patient.model) if kind_of(module) == "instance"}
    found = [name for name, norm in norms.items() if tracks(norm)]
    if found:
        yield Sign(
            found,
            f"{of(found, norms, 'instance norm', verb='keep')} running statistics and use them in evaluation",
            "track_running_stats=False, its default",
        )


@rule("BN-S19", "note", "Norms in evaluation while the model trains", 13)
def evaluation_inside_training(patient: Patient) -> Iterator[Sign]:
    """The model is in training mode, but these norms are not: gamma and beta train with fixed statistics. That is right
    for fine-tuning, if it is intended, and lasts until the next ``model.train()``."""
    if not patient.model.training:
        return
    found = [
        name
        for name, norm in patient.norms.items()
        if not norm.training and not frozen(norm) and any(each.requires_grad for each in norm_parameters(norm))
    ]
    if found:
        yield Sign(
            found,
            f"{of(found, patient.norms, verb='are')} in evaluation mode while the model is in training mode",
            "surgery.freeze(model, affine=False) lasts; model.train() undoes it",
        )


@rule("BN-F04", "error", "Evaluation depends on the batch", 3)
def depends_on_batch(patient: Patient) -> Iterator[Sign]:
    """The model was evaluated on whole batches, and again on their first halves alone. The outputs for the same samples
    differ, and these norms used the batch's statistics: a prediction depends on the other samples in the batch."""
    calls = patient.evaluation.seen.of_kind("batch")
    found = [name for name, seen in calls.items() if any(call.uses_batch for call in seen)]
    if not found:
        return
    change = patient.relative_change(patient.halves)
    norms = batch_norms(patient.copy)
    training = any(norms[name].training for name in found if name in norms)
    reached = not any(norm.training for norm in batch_norms(patient.copy.eval()).values())
    said = f"; outputs change by {change:.0%} without the other half of the batch" if change == change else ""
    if change != change or change > 1e-4:
        yield Sign(
            found,
            f"{of(found, calls, verb='use')} the batch's statistics in evaluation{said}",
            "track_running_stats=True and further training, or GroupNorm"
            if not training
            else "no train() in forward: it undoes model.eval()"
            if reached
            else "make model.eval() reach them",
            "error" if training else "warning",
        )


@rule("BN-F11", "error", "batch_norm called as a function, in the wrong mode", 3)
def functional_in_training(patient: Patient) -> Iterator[Sign]:
    """``torch.nn.functional.batch_norm`` was called outside any norm layer with ``training=True`` while the model was
    in evaluation: the call ignores the mode. (The function's flag must be ``self.training``. If it is left out it is
    False, and then training neither normalizes with the batch nor moves the statistics.)"""
    calls = [training for training, _ in patient.evaluation.seen.functional]
    if any(calls):
        change = patient.relative_change(patient.halves)
        said = f"; outputs change by {change:.0%} without the other half of the batch" if change == change else ""
        yield Sign(
            [],
            f"training=True in evaluation: {sum(calls)} of {plural(len(calls), 'call')} of functional.batch_norm{said}",
            "training=self.training, or a layer",
        )
    calls = patient.training.seen.functional if calls and patient.training is not None else []
    if idle := sum(new and not training for training, new in calls):
        yield Sign(
            [],
            f"training=False in training: {idle} of {plural(len(calls), 'call')} of functional.batch_norm, with mean 0 "
            "and variance 1, so that nothing is normalized",
            "training=self.training, or a layer",
        )
