"""A: running statistics that do not fit, do not move, or are not there."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from bncourse.doctor.batches import size_of
from bncourse.doctor.norms import (
    affine_moved,
    batch_norms,
    batches_counted,
    frozen,
    initial,
    initial_share,
    named,
    tracks,
)
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.rules_architecture import dropout_ratios
from bncourse.doctor.seen import pooled
from bncourse.doctor.words import deviations, number, of, plural

__all__ = ["Damage", "Misfit", "damage", "misfits", "unfitting"]


def moving(patient: Patient) -> dict:
    """The batch norms whose statistics are meant to move."""
    return {name: norm for name, norm in patient.norms.items() if tracks(norm) and not frozen(norm)}


def is_new(patient: Patient) -> bool:
    """Whether all of its statistics and parameters are those of a model that was never trained."""
    norms = moving(patient)
    return bool(norms) and all(initial(norm) and not affine_moved(norm) for norm in norms.values())


@rule("BN-S01", "error", "Momentum 0: the statistics never move", 3)
def momentum_zero(patient: Patient) -> Iterator[Sign]:
    """In torch, ``momentum`` is the weight of the new batch in the running averages. With 0 they keep whatever values
    they have (in a new model, mean 0 and variance 1), and evaluation normalizes with those. It happens when 0 was meant
    to freeze a norm, or when a tool set it for a while and never set it back."""
    norms = moving(patient)
    found = [name for name, norm in norms.items() if getattr(norm, "momentum", None) == 0]
    if found:
        yield Sign(
            found,
            f"momentum is 0 in {of(found, norms)}: no batch ever moves the statistics",
            "momentum=0.1; to freeze a norm, surgery.freeze(model)",
        )


@rule("BN-S02", "warning", "Momentum of another framework", 3)
def momentum_large(patient: Patient) -> Iterator[Sign]:
    """In Keras and TensorFlow, momentum is the weight of the OLD value, 0.99 for example; torch's is 1 minus theirs. At
    0.5 or more in torch, the statistics are those of the last batch or two, and evaluation is as noisy as one batch."""
    norms = moving(patient)
    odd = {
        name: norm.momentum
        for name, norm in norms.items()
        if isinstance(getattr(norm, "momentum", None), float | int) and not 0 <= norm.momentum < 0.5
    }
    if odd:
        value = max(odd.values())
        share = f": the last batch has {value:.0%} of the weight" if value <= 1 else ", which must be between 0 and 1"
        yield Sign(
            sorted(odd, key=lambda each: -odd[each]),
            f"momentum is {number(value)} in {of(odd, norms)}{share}",
            f"momentum={number(1 - value)}, if it was copied from Keras or TensorFlow"
            if 0.5 <= value < 1
            else "momentum=0.1",
        )


@rule("BN-S03", "note", "Too few batches for the momentum", 3)
def not_warmed_up(patient: Patient) -> Iterator[Sign]:
    """After n batches, (1 - momentum)^n of the initial mean 0 and variance 1 is still part of the statistics. Above 5%
    it shows; above one half, most of the statistics do not come from the data. A model whose statistics did not start
    at 0 and 1 is left out."""
    norms = moving(patient)
    left = {name: share for name, norm in norms.items() if (share := initial_share(norm)) > 0.05}
    left = {name: share for name, share in left.items() if norms[name].momentum}
    if left:
        worst = max(left, key=left.__getitem__)
        count, share = batches_counted(norms[worst]), left[worst]
        yield Sign(
            sorted(left, key=lambda each: -left[each]),
            f"{share:.0%} of the initial mean 0 and variance 1 is left after {plural(count or 0, 'batch')} with "
            f"momentum {number(norms[worst].momentum)}, in {of(left, norms)}",
            "surgery.recalibrate(model, loader), or train further with a larger momentum",
            "warning" if share > 0.5 else None,
        )


@rule("BN-S04", "error", "A trained norm with a new layer's statistics", 3)
def statistics_never_came(patient: Patient) -> Iterator[Sign]:
    """Gamma and beta have been trained, but the running mean is 0 and the running variance 1 in every channel. Either
    the statistics were not loaded (``strict=False`` hides that, and so does copying ``parameters()`` alone), or the
    model was trained in evaluation mode, or its momentum is 0. In the first case evaluation is useless; in the second
    it computes what was trained, but nothing was ever normalized. If more than a tenth of the gammas are negative, this
    is only a note: some models draw gamma and beta at random, and may be new."""
    norms = moving(patient)
    found = [name for name, norm in norms.items() if initial(norm) and affine_moved(norm)]
    if found:
        counts = {batches_counted(norms[name]) for name in found} - {None}
        counted = f", and {max(counts)} batches were counted" if counts and max(counts) else ""
        weights = [getattr(norms[name], "weight", None) for name in found]
        gammas = [weight.detach().flatten().cpu() for weight in weights if weight is not None]
        negative = float((torch.cat(gammas) < 0).float().mean()) if gammas else 0.0
        drawn = negative > 0.1 and not counted
        yield Sign(
            found,
            f"mean 0 and variance 1 in every channel of {of(found, norms)}, although gamma and beta "
            + (f"differ between channels ({negative:.0%} of gamma is negative)" if drawn else f"were trained{counted}"),
            "load the buffers too (state_dict, strict=True), or surgery.recalibrate(model, loader)",
            "note" if drawn else None,
        )


@rule("BN-S05", "note", "A new model", 3)
def new_model(patient: Patient) -> Iterator[Sign]:
    """All statistics are 0 and 1, and gamma and beta are as they were made: nothing has been trained or loaded yet.
    Rules about statistics have something to say only after training."""
    norms = moving(patient)
    if is_new(patient):
        yield Sign(
            [],
            f"{plural(len(norms), 'batch norm')}, all as new: no statistics yet",
            "nothing to do, if you expect a new model",
        )


@rule("BN-S06", "error", "A checkpoint without statistics", 13)
def checkpoint_lacks_statistics(patient: Patient) -> Iterator[Sign]:
    """The checkpoint has gamma and beta but lacks running means or variances, like a file of ``parameters()`` or one
    that was saved by a model without tracking. (The counter ``num_batches_tracked`` may be missing: old files lack
    it.)"""
    missing = [name for name in patient.missing if not name.endswith("num_batches_tracked")]
    if missing:
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in missing))
        yield Sign(
            layers,
            f"the checkpoint lacks the running statistics of {plural(len(layers), 'layer')}",
            "save model.state_dict(); or surgery.recalibrate(model, loader) after loading",
        )


@rule("BN-S07", "note", "A norm that never saw a batch", 3)
def never_called(patient: Patient) -> Iterator[Sign]:
    """Other norms have counted batches, but this one has counted none, and its statistics are those of a new layer. It
    may be part of a new head, the forward pass may not call it, or it may have been in evaluation mode throughout."""
    norms = moving(patient)
    counts = {name: batches_counted(norm) for name, norm in norms.items()}
    most = max((count for count in counts.values() if count is not None), default=0)
    found = [
        name for name, norm in norms.items() if most and counts[name] == 0 and initial(norm) and not affine_moved(norm)
    ]
    if found:
        yield Sign(
            found,
            f"no batch was counted in {of(found, norms)}, up to {most} in the others",
            "remove it, or call it; if it is a new part of the model, train it",
        )


@rule("BN-S08", "error", "Batches were counted, and the statistics are still 0 and 1", 3)
def counted_but_initial(patient: Patient) -> Iterator[Sign]:
    """The counter moves with each batch, and so should the averages. Something resets them, writes them into another
    tensor, or averages only the parameters and the counter."""
    norms = moving(patient)
    found = [
        name
        for name, norm in norms.items()
        if initial(norm) and not affine_moved(norm) and (batches_counted(norm) or 0) > 0 and norm.momentum != 0
    ]
    if found:
        yield Sign(
            found,
            f"{batches_counted(norms[found[0]])} batches were counted, but the mean is 0 and the variance 1 in every "
            f"channel of {of(found, norms)}",
            "surgery.recalibrate(model, loader), and look for what resets or replaces the buffers",
        )


@rule("BN-S09", "warning", "No running statistics: evaluation depends on the batch", 3)
def no_statistics(patient: Patient) -> Iterator[Sign]:
    """With ``track_running_stats=False`` a batch norm also uses the batch's statistics in evaluation. A prediction then
    depends on the other samples, and a single sample is normalized by itself."""
    found = [name for name, norm in patient.norms.items() if not tracks(norm)]
    if found:
        yield Sign(
            found,
            f"{of(found, patient.norms, verb='keep')} no running statistics",
            "track_running_stats=True and further training, or surgery.convert_norms(model, 'group')",
        )


@rule("BN-S10", "error", "Statistics that are not buffers", 5)
def not_buffers(patient: Patient) -> Iterator[Sign]:
    """Statistics must be buffers: plain attributes are neither saved nor moved to a device, parameters are changed by
    the optimizer, and statistics with a gradient keep every batch's graph alive. torch's layers cannot get this wrong;
    handwritten layers do."""
    for name, norm in patient.norms.items():
        if isinstance(norm, torch.jit.ScriptModule):
            continue
        for key in ("running_mean", "running_var"):
            value, saved = (
                getattr(norm, key, None),
                key in norm._buffers and key not in norm._non_persistent_buffers_set,
            )
            if not isinstance(value, torch.Tensor):
                continue
            if isinstance(value, torch.nn.Parameter) and value.requires_grad:
                yield Sign([name], f"{key} is a parameter with a gradient", f"register_buffer('{key}', ...)")
            elif value.requires_grad:
                yield Sign(
                    [name],
                    f"{key} has a gradient: it keeps the graphs of earlier batches",
                    "update it under torch.no_grad()",
                )
            elif not saved and key not in norm._parameters:
                yield Sign(
                    [name],
                    f"{key} is not part of the state_dict: a checkpoint loses it",
                    f"register_buffer('{key}', ...)",
                )
            else:
                continue
            break
    for name, module in named(patient.model):
        if name not in patient.norms and not isinstance(module, torch.jit.ScriptModule):
            plain = [
                key for key, value in vars(module).items() if isinstance(value, torch.Tensor) and _is_statistic(key)
            ]
            if plain:
                said = f"{', '.join(plain)} of {type(module).__name__}: plain attributes, not part of the state_dict"
                yield Sign([name], said, f"register_buffer('{plain[0]}', ...)", "warning")


def _is_statistic(attribute: str) -> bool:
    return any(word in attribute.lower() for word in ("running", "moving", "mean", "var"))


@rule("BN-S34", "warning", "Tracking switched off in a norm that has statistics", 3)
def tracking_switched_off(patient: Patient) -> Iterator[Sign]:
    """``track_running_stats`` was set to False after the norm was made. It still has its statistics and uses them in
    evaluation, but training no longer moves them: they stay as they were at that moment."""
    norms = moving(patient)
    found = [name for name, norm in norms.items() if getattr(norm, "track_running_stats", True) is False]
    if found:
        yield Sign(
            found,
            f"track_running_stats is False in {of(found, norms)} that keep running statistics: no batch moves them",
            "track_running_stats=True; to freeze a norm, surgery.freeze(model)",
        )


@rule("BN-S11", "warning", "A damaged counter", 13)
def damaged_counter(patient: Patient) -> Iterator[Sign]:
    """``num_batches_tracked`` is a whole number. Averaging a state_dict, as in federated learning or by hand, makes it
    a fraction, negative or NaN; with ``momentum=None`` it determines the weight of the next batch."""
    found = {}
    for name, norm in patient.norms.items():
        count = getattr(norm, "num_batches_tracked", None)
        if (
            isinstance(count, torch.Tensor)
            and not count.is_meta
            and (count.is_floating_point() or bool((count < 0).any()))
        ):
            found[name] = count
    if found:
        first = next(iter(found.values()))
        yield Sign(
            found,
            f"num_batches_tracked is {first.flatten()[0].item()} ({str(first.dtype).removeprefix('torch.')}) in "
            f"{of(found, patient.norms)}",
            "average floating-point tensors only; copy the counter",
        )


@rule("BN-S12", "note", "Norms that counted different numbers of batches", 13)
def counters_differ(patient: Patient) -> Iterator[Sign]:
    """Some norms saw a different number of batches from most of the others: twice as many if activation checkpointing
    recomputes the forward pass or if the layer is called twice, fewer if a part was frozen for a while."""
    counts = {name: count for name, norm in moving(patient).items() if (count := batches_counted(norm))}
    if len(set(counts.values())) > 1:
        usual = sorted(counts.values())[len(counts) // 2]
        found = sorted((name for name in counts if counts[name] != usual), key=lambda name: -counts[name])
        yield Sign(
            found,
            f"{counts[found[0]]} batches counted, {usual} in most others ({of(found, counts, verb='differ')})",
            "if twice: no activation checkpointing around the norm, or momentum 1 - sqrt(1 - m), 0.0513 for 0.1",
        )


@rule("BN-S13", "note", "eps as large as the variance, or several eps", 2)
def eps_matters(patient: Patient) -> Iterator[Sign]:
    """A batch norm divides by sqrt(variance + eps). Where eps is as large as the variance of a typical channel, the
    output's variance is one half or less. Frameworks differ (1e-5 in torch, 1e-3 in Keras): weights from one, run with
    the eps of the other, give different outputs. Several values of eps in one model hint at that."""
    norms = {name: norm for name, norm in patient.norms.items() if tracks(norm) and not initial(norm)}
    share = {
        name: norm.eps / float(norm.running_var.float().median().clamp(min=1e-30))
        for name, norm in norms.items()
        if isinstance(getattr(norm, "eps", None), float | int) and bool((norm.running_var >= 0).all())
    }
    found = sorted((name for name in share if share[name] >= 1), key=lambda name: -share[name])
    if found:
        eps = norms[found[0]].eps
        yield Sign(
            found,
            f"eps {number(eps)} is {number(share[found[0]])} times the median channel's variance, "
            f"in {of(found, norms)}",
            "eps=1e-5, then train further" if eps > 1e-3 else "look for what makes these activations so small",
            "warning" if eps > 1e-2 else None,
        )
    values = [norm.eps for norm in patient.norms.values() if isinstance(getattr(norm, "eps", None), float | int)]
    if len(set(values)) > 1:
        usual = max(set(values), key=values.count)
        others = [name for name, norm in patient.norms.items() if getattr(norm, "eps", usual) != usual]
        said = ", ".join(f"{number(value)} in {values.count(value)}" for value in sorted(set(values)))
        yield Sign(others, f"eps differs between batch norms: {said}", "check it against where the weights come from")


class Misfit(NamedTuple):
    """How far a norm's running statistics are from those of its inputs.

    ``shift``: of the mean, in standard deviations of the channel (root mean square over nine tenths of the
    channels, without what chance explains); ``factor``: of the variance, in the median channel, at least 1.
    """

    name: str
    shift: float
    factor: float

    @property
    def matters(self) -> bool:
        """Far from chance: of 33 models trained until the losses agreed, the worst layer had 0.14 and 1.05.

        (benchmarks/healthy.py; with 32 samples 0.05 and 1.41.)
        """
        return self.shift > 0.5 or self.factor > 2

    @property
    def far(self) -> bool:
        """Enough to be told without a loss that says the same."""
        return self.shift > 1 or self.factor > 4

    def __str__(self) -> str:
        return (
            f"the mean is off by {deviations(self.shift)} of the channel, the variance by a factor of "
            f"{number(self.factor)}"
        )


def misfits(patient: Patient, seen) -> list[Misfit]:
    """Of all norms that saw at least 4 samples and 16 values a channel, the worst first."""
    found = []
    norms = batch_norms(patient.copy)
    for name, calls in seen.of_kind("batch").items():
        norm, moments = norms.get(name), pooled(calls)
        if norm is None or moments is None or not tracks(norm) or len(norm.running_mean) != len(moments.mean):
            continue
        if moments.samples < 4 or sum(call.values for call in calls) < 16:
            continue
        mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
        eps = float(getattr(norm, "eps", 1e-5))
        spread = moments.variance + eps
        square = ((moments.mean - mean).square() - moments.error) / spread
        most = (
            square.clamp(max=1e6).sort().values[: max(1, math.ceil(0.9 * len(square)))]
        )  # a dead channel proves nothing
        shift = most.mean().clamp(min=0).sqrt().item()
        factor = math.exp((spread / (variance.clamp(min=0) + eps)).log().abs().median().item())
        found.append(Misfit(name, shift, factor))
    return sorted(found, key=lambda one: -(one.shift + math.log(one.factor)))


class Damage(NamedTuple):
    """What running statistics that do not fit cost.

    ``severity``: None if it is nothing. ``measured`` says it. ``layers``: those that do not fit, the worst first.
    """

    severity: str | None
    measured: str
    layers: list[str]


def damage(patient: Patient) -> Damage:
    """The same batches with running statistics, with their own, and after recalibration."""
    own, none = patient.own_statistics, Damage(None, "", [])
    if own is None or not patient.real:
        return none
    moved = {name for name, norm in batch_norms(patient.copy).items() if not (initial(norm) and not affine_moved(norm))}
    new = is_new(patient)
    sick = [one for one in misfits(patient, own.seen) if one.matters and (one.name in moved or new)]
    if not sick:
        return none
    worst = f"worst of {plural(len(sick), 'layer')}: {sick[0]}"
    evaluation, recalibrated = patient.evaluation, patient.recalibrated
    best = min(own.loss, recalibrated.loss if recalibrated is not None else own.loss)
    if math.isfinite(best) and best >= 0:
        least = 0.05 if math.isfinite(patient.chance_loss) else 0.0
        worse = not evaluation.loss <= best + least  # NaN is worse
        if new and not best < 0.7 * patient.chance_loss:
            return none
        severity = "error" if worse and not evaluation.loss <= 2 * best else None
        if worse and severity is None and evaluation.loss > 1.1 * best:
            severity = "warning"
        after = "" if recalibrated is None else f", {number(recalibrated.loss)} after recalibrating a copy"
        said = f"loss {number(evaluation.loss)} with running statistics, {number(own.loss)} with the batch's{after}"
    elif new or not patient.relative_change(own) > 0.1:
        return none
    else:
        severity = "warning" if any(one.far for one in sick) else "note"
        said = f"outputs change by {patient.relative_change(own):.0%} with the batch's statistics"
    return Damage(severity, f"{said}; {worst}", [one.name for one in sick])


@rule("BN-F01", "error", "The running statistics do not fit the data", 3)
def unfitting(patient: Patient) -> Iterator[Sign]:
    """The strongest test there is. The same batches are run with the running statistics, as in evaluation; with their
    own statistics, as in training; and after recalibrating a copy. If the first loss is far above the others, and a
    layer's statistics are also off by half a standard deviation or a factor of two, then the weights are fine and the
    statistics are not. Both signs are needed, because the last long steps of training can double the loss of a healthy
    model. Without targets, the change in the outputs takes the place of the loss; up to one standard deviation and a
    factor of four, that is only a note."""
    found = damage(patient)
    if found.severity:
        fix = "surgery.recalibrate(model, loader) on training data"
        if any(other_data(patient)):
            fix = "see BN-F02: are these inputs prepared as in training? Then surgery.recalibrate(model, loader)"
        yield Sign(found.layers, found.measured, fix, found.severity)


@rule("BN-F02", "warning", "The data are not those that the first norm was trained on", 3)
def other_data(patient: Patient) -> Iterator[Sign]:
    """No other norm's statistics come before the first norm, so what reaches it depends only on the data and the
    weights. If its statistics are off by half a standard deviation or a factor of two, the inputs are scaled or
    normalized differently from those in training, or come from another domain, or the model was trained on several
    domains in turn. (Or the data are as in training, and this layer's statistics were damaged.)"""
    if not patient.real:
        return
    seen = patient.evaluation.seen
    first, calls = next(iter(seen.of_kind("batch").items()), ("", []))
    norm = batch_norms(patient.copy).get(first)
    if len(calls) > len(patient.batches):  # it comes after itself, too; BN-F10 looks at its calls
        return
    if norm is None or not tracks(norm) or initial(norm) or initial_share(norm) > 0.05 or norm.training:
        return
    for one in misfits(patient, seen):
        explained = one.shift <= 0.5 and dropout_ratios(patient).get(one.name, 1) > 1.1
        if one.name == first and one.matters and not explained:
            far = one.far or damage(patient).severity in ("error", "warning")
            yield Sign(
                [first],
                f"in the first batch norm {one}",
                "prepare inputs as in training; if they already are, surgery.recalibrate(model, loader)",
                None if far else "note",
            )


@rule("BN-F03", "warning", "Trained in evaluation mode", 3)
def trained_in_evaluation(patient: Patient) -> Iterator[Sign]:
    """The statistics are those of a new layer although gamma and beta were trained, and the loss is lower with mean 0
    and variance 1 than with the batch's statistics: the model has learned to do without normalization, because
    ``model.train()`` was forgotten. Recalibration would ruin it."""
    norms = moving(patient)
    found = [name for name, norm in norms.items() if initial(norm) and affine_moved(norm)]
    own = patient.own_statistics
    if found and own is not None and patient.real and patient.evaluation.loss < own.loss:
        yield Sign(
            found,
            f"loss {number(patient.evaluation.loss)} with mean 0 and variance 1, {number(own.loss)} with the batch's "
            "statistics",
            "call model.train() before each epoch, and train again; do not recalibrate these weights",
        )


@rule("BN-F12", "warning", "eps of another framework", 2)
def other_eps(patient: Patient) -> Iterator[Sign]:
    """Keras uses eps 1e-3, torch 1e-5. If all batch norms have one of the two, the loss is also measured with the
    other. If it is then lower by a tenth, and the statistics fit only then, the weights were trained with that eps."""
    values = {getattr(norm, "eps", None) for norm in patient.norms.values() if tracks(norm)}
    other = {1e-5: 1e-3, 1e-3: 1e-5}.get(next(iter(values), None)) if len(values) == 1 else None
    if other is None or not patient.real or not math.isfinite(patient.evaluation.loss) or is_new(patient):
        return
    if sum(map(size_of, patient.batches)) < 32 or not any(
        one.matters for one in misfits(patient, patient.evaluation.seen)
    ):
        return
    swapped = patient.with_eps(other)
    if swapped is None or any(one.matters for one in misfits(patient, swapped.seen)):
        return
    if swapped.loss < 0.9 * patient.evaluation.loss - 0.02:
        yield Sign(
            list(patient.norms),
            f"loss {number(patient.evaluation.loss)} with eps {number(values.pop())}, {number(swapped.loss)} with "
            f"{number(other)}",
            f"eps={number(other)} in all batch norms",
        )
