"""What goes wrong between training and evaluation, step by step."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from bncourse.doctor.norms import frozen, initial, norm_parameters
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.seen import distance
from bncourse.doctor.words import deviations, freezing, of, plural
from bncourse.layers.replace import known_class
from bncourse.layers.sync import world_size
from bncourse.surgery.norms import KNOWN


def chosen(record: Any, test) -> dict[str, list]:
    """The norms' events that pass a test."""
    found = {name: [event for event in events if test(event)] for name, events in record.events.items()}
    return {name: events for name, events in found.items() if events}


@rule("BN-W01", "error", "Validation in training mode", 10)
def moved_without_gradients(record: Any) -> Iterator[Sign]:
    """The statistics moved in a forward pass without gradients. ``no_grad()`` does not select the mode: without
    ``model.eval()`` a validation pass moves the statistics towards the validation data, and its result depends on the
    batch. A teacher or target network in training mode does the same. (``momentum=None``, as in ``update_bn``, is left
    out, because there it is intended.) If a pass recorded gradients and no backward pass used them, this is only a
    note: it may be a validation without ``no_grad()``, or a pass of a generator whose images another network learned
    from."""
    found = chosen(
        record, lambda event: event.moved and not event.grad and event.training and event.momentum is not None
    )
    if found:
        events = [event for each in found.values() for event in each]
        passes = {event.forward for event in events}
        undone = not any(event.model_training for event in events)
        yield Sign(
            found,
            f"{plural(len(passes), 'forward pass')} without gradients moved the statistics of "
            f"{of(found, record.norms)}{', though model.eval() had been called' if undone else ''}",
            "no train() in forward, and train(mode) for all parts; then surgery.recalibrate(model, loader)"
            if undone
            else "model.eval() before, model.train() after; then surgery.recalibrate(model, loader)",
        )
    unused = record.unused()
    found = chosen(
        record, lambda event: event.moved and event.forward in unused and event.training and event.momentum is not None
    )
    if found:
        passes = {event.forward for events in found.values() for event in events}
        yield Sign(
            found,
            f"{plural(len(passes), 'forward pass')} moved the statistics of {of(found, record.norms)}, and no backward "
            "pass came through the outputs",
            "if that was a validation: model.eval() and no_grad() before, model.train() after",
            "note",
        )


@rule("BN-W02", "warning", "Frozen parameters, and the statistics moved", 13)
def frozen_moved(record: Any) -> Iterator[Sign]:
    """Gamma and beta require no gradient, or no gradient reached them in any step, or the optimizer has neither them
    nor the layer before them; and yet the norm's statistics moved while you watched. What was meant to be frozen
    drifts: a backbone under ``no_grad()``, one whose output is detached, or one whose head alone is in the
    optimizer."""
    moved = chosen(record, lambda event: event.moved)
    stopped, idle = [], []
    for name in sorted(moved, key=lambda name: -len(moved[name])):
        values = norm_parameters(record.norms[name])
        if values and not any(value.requires_grad for value in values):
            stopped.append(name)
        elif values and record.is_idle(name) and any(event.grad for event in moved[name]):
            idle.append(name)
    for found, why in ((stopped, " with requires_grad=False"), (idle, ", and no step changed gamma and beta")):
        if found:
            yield Sign(
                found,
                f"its statistics moved {len(moved[found[0]])} times{why} ({of(found, record.norms)} did)",
                freezing(found, record.norms),
            )


@rule("BN-W03", "warning", "Statistics that move twice in one forward pass", 13)
def moved_twice(record: Any) -> Iterator[Sign]:
    """One forward pass of the model moved this norm's statistics more than once: activation checkpointing computes it
    again in the backward pass, or the forward pass calls it several times. The averages then forget twice as fast."""
    found, again = {}, False
    for name, events in record.events.items():
        counts = Counter(event.forward for event in events if event.moved)
        if counts and max(counts.values()) > 1:
            found[name] = max(counts.values())
            again |= any(event.again for event in events)
    if found:
        most = max(found, key=found.__getitem__)
        yield Sign(
            sorted(found, key=lambda name: -found[name]),
            f"its statistics moved {found[most]} times in one forward pass ({of(found, record.norms)} did)"
            f"{'; it was computed again in the backward pass' if again else ''}",
            "momentum 1 - sqrt(1 - m), 0.0513 for 0.1, or no checkpointing around the norm"
            if again
            else "a norm for each use, if the inputs differ",
            None if again else "note",
        )


@rule("BN-W04", "note", "Several forward passes for one step", 8)
def several_forwards(record: Any) -> Iterator[Sign]:
    """Each forward pass normalizes with its own statistics and moves the averages: with gradients accumulated over k
    small batches a batch norm sees k small batches, not a large one. Several passes are usual in adversarial training;
    BN-W05 says whether they differ."""
    most = max(record.passes_for_each_step(), default=0)
    sizes = [(event.values, event.samples) for events in record.events.values() for event in events if event.training]
    if most > 1 and sizes:
        values, samples = min(sizes)
        yield Sign(
            [],
            f"up to {most} forward passes for one optimizer step; the fewest values per channel in one pass are "
            f"{values}, of {plural(samples, 'sample')}",
            "GroupNorm, LayerNorm or larger batches, if the passes' batches are small",
        )


@rule("BN-W05", "warning", "Batches of several kinds through one norm", 14)
def kinds_of_batches(record: Any) -> Iterator[Sign]:
    """In training mode the means of the batches that reach the first norm differ by more than half a standard
    deviation, far more than chance allows: real and generated images in turn, several domains, sorted data. The running
    statistics are an average that no batch resembles."""
    for name, events in record.events.items():
        kept = [event for event in events if event.moments is not None and event.grad and not event.again][:64]
        if len(kept) < 2 or not kept[0].training:
            return
        gaps = [distance(one.moments, other.moments) for one, other in pairwise(kept)]
        far = sum(_another_kind(kept, place, gap) for place, gap in enumerate(gaps))
        if far * 3 >= len(gaps):
            yield Sign(
                [name],
                f"the means of consecutive inputs differ by up to {deviations(max(gaps))} "
                f"({far} of {len(gaps)} times by more than 0.5, and not because of training)",
                "a norm for each kind, or both kinds in one batch, shuffled",
            )
        return  # the first norm only: later ones see what training changes


def _another_kind(events: list, place: int, gap: float) -> bool:
    """Whether a batch and the next are of two kinds, rather than before and after a long step of the weights.

    Either there was no step between them, or a later batch is like the first one again.
    """
    if gap <= 0.5 or events[place].step == events[place + 1].step:
        return gap > 0.5
    later = events[place + 2 : place + 8]
    return any(distance(events[place].moments, event.moments) < gap / 3 for event in later)


@rule("BN-W06", "warning", "Training in evaluation mode", 3)
def trained_in_evaluation(record: Any) -> Iterator[Sign]:
    """The optimizer stepped after forward passes in which the whole model was in evaluation mode: ``model.train()`` was
    forgotten, often after a validation. Nothing is normalized with the batch, and dropout is off."""
    if not record.steps:
        return
    found = chosen(record, lambda event: event.grad and not event.training and not event.model_training)
    found = {
        name: events
        for name, events in found.items()
        if not frozen(record.norms[name]) and any(event.step < record.steps for event in events)
    }
    if found:
        steps = {event.step for events in found.values() for event in events if event.step < record.steps}
        new = any(initial(record.norms[name]) for name in found)
        yield Sign(
            found,
            f"{len(steps)} of {plural(record.steps, 'step')} were made with the model in evaluation mode"
            f"{', with statistics that no batch has moved' if new else ''}",
            "model.train() at the start of each epoch",
            "error" if new else None,
        )


@rule("BN-W07", "error", "The batch that made the statistics infinite", 10)
def turned_bad(record: Any) -> Iterator[Sign]:
    """A forward pass left NaN or infinity in the running statistics; training does not use them, so it goes on."""
    bad = {
        name: next(i for i, event in enumerate(events) if not event.finite)
        for name, events in record.events.items()
        if any(not event.finite for event in events)
    }
    if bad:
        first = min(bad, key=lambda name: record.events[name][bad[name]].forward)
        event = record.events[first][bad[first]]
        yield Sign(
            [first, *(name for name in bad if name != first)],
            f"its statistics are not finite after forward pass {event.forward}, optimizer step {event.step}",
            "skip such batches; the layer before it in bfloat16 or float32; then surgery.recalibrate(model, loader)",
        )


@rule("BN-W08", "error", "Statistics that move in evaluation", 5)
def moved_in_evaluation(record: Any) -> Iterator[Sign]:
    """The norm was in evaluation mode and its statistics moved: it ignores the mode. (The norms of torch and of this
    package cannot do that. If something writes into them, as recalibration does, that may be intended.)"""
    found = chosen(record, lambda event: event.moved and not event.training)
    found = {name: events for name, events in found.items() if not known_class(record.norms[name], KNOWN)}
    if found:
        first = next(iter(found))
        yield Sign(
            found,
            f"its statistics moved in {len(found[first])} calls in evaluation mode",
            "move them if self.training only",
        )


@rule("BN-W09", "warning", "A frozen norm that woke up", 13)
def woke_up(record: Any) -> Iterator[Sign]:
    """In earlier steps the norm was in evaluation mode while the model trained, as in fine-tuning; later it was in
    training mode: a ``model.train()`` after a validation undid the freezing."""
    found = []
    for name, events in record.events.items():
        modes = [event.training for event in events if event.grad and event.model_training and not event.again]
        if False in modes and True in modes[modes.index(False) :]:
            found.append(name)
    if found:
        yield Sign(
            found,
            f"{of(found, record.norms)} went from evaluation to training mode between steps",
            "surgery.freeze(model, affine=False): train() does not reach it",
        )


@rule("BN-W10", "warning", "Frozen parameters that were changed", 13)
def frozen_changed(record: Any) -> Iterator[Sign]:
    """Gamma or beta had ``requires_grad=False`` throughout, and yet it changed: the optimizer used an old gradient, or
    applied weight decay to it."""
    found = [
        name
        for name, values in record.before.items()
        if any(
            not (trained or value.requires_grad) and not torch.equal(value.detach(), old)
            for value, old, trained in values
        )
    ]
    if found:
        yield Sign(
            found,
            f"gamma or beta of {of(found, record.norms)} changed in spite of requires_grad=False",
            "parameter.grad = None, or an optimizer without them; surgery.freeze(model) clears gradients",
        )


@rule("BN-W11", "note", "Few values per channel in training", 8)
def few_values(record: Any) -> Iterator[Sign]:
    """In a training pass a channel had fewer than 8 values: samples times positions. Two leave only a sign. Or there
    are many values, but each pass has one sample: then training normalizes each sample by itself, as InstanceNorm does,
    but evaluation does not."""
    fewest = {
        name: min(event.values for event in events if event.training)
        for name, events in record.events.items()
        if any(event.training for event in events)
    }
    found = sorted((name for name in fewest if fewest[name] < 8), key=lambda name: fewest[name])
    if found:
        count = fewest[found[0]]
        yield Sign(
            found,
            f"{plural(count, 'value')} per channel in a training pass ({of(found, fewest)} had fewer than 8)",
            "larger batches, drop_last=True, or surgery.convert_norms(model, 'group')",
            {1: "error", 2: "warning"}.get(count),
        )
    own = chosen(record, lambda event: event.training and event.grad)
    lonely = [
        name
        for name, events in own.items()
        if all(event.samples == 1 for event in events) and not _synchronized(record.norms[name])
    ]
    if lonely and not found:
        yield Sign(
            lonely,
            f"1 sample in every training pass ({of(lonely, record.norms, verb='have')} no more): training normalizes "
            "each sample by itself, evaluation does not",
            "larger batches, or surgery.convert_norms(model, 'group')",
            "warning",
        )


def _synchronized(norm: torch.nn.Module) -> bool:
    return world_size() > 1 and "Sync" in type(norm).__name__


@rule("BN-W12", "note", "A norm that was never called", 5)
def never_called(record: Any) -> Iterator[Sign]:
    """The model ran and this norm did not: it is left over, or the forward pass takes another path."""
    found = [name for name in record.norms if name not in record.events]
    if found and record.events:
        yield Sign(
            found, f"{of(found, record.norms, verb='were')} not called while the model ran", "remove it, or call it"
        )
