"""B: what a mean is taken over: too few values, the wrong axis, padding."""

from collections.abc import Iterator

import torch
from torch import nn

from bncourse.doctor.norms import frozen, kind_of, named
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.words import of


def fewest(seen: dict) -> list[tuple[int, str]]:
    """How many values a mean is taken over at least, for each norm, the smallest first."""
    return sorted((min(call.values for call in calls), name) for name, calls in seen.items())


@rule("BN-F05", "note", "Few values per channel", 8)
def few_values(patient: Patient) -> Iterator[Sign]:
    """What counts is not the batch size but how many values each channel has: samples times positions. One value has no
    variance: training raises an error, typically in the last batch of an epoch, and after pooling to 1x1. Two values
    leave only the sign of their difference. The note gives the smallest count with your batch."""
    norms = patient.norms
    seen = patient.evaluation.seen.of_kind("batch")
    counts = [(count, name) for count, name in fewest(seen) if name in norms and not frozen(norms[name])]
    few = [(count, name) for count, name in counts if count < 8]
    if few:
        count = few[0][0]
        says = {
            1: "1 value per channel: training on such a batch raises an error",
            2: "2 values per channel: in training their outputs are always +1 and -1",
        }.get(count, f"{count} values per channel: its statistics are noise")
        yield Sign(
            [name for _, name in few],
            f"{says} ({of(few, counts, verb='have')} fewer than 8)",
            "drop_last=True and larger batches, or surgery.convert_norms(model, 'group')",
            {1: "error", 2: "warning"}.get(count),
        )
        return
    single = [name for name, calls in seen.items() if _one_per_sample(calls)]
    if single and len(single) < len(seen):
        yield Sign(
            single,
            f"1 value per channel and sample: a last batch of one sample would stop training ({of(single, seen)})",
            "drop_last=True, or no batch norm on a 1x1 map",
        )


def _one_per_sample(calls: list) -> bool:
    return any(len(call.shape) > 2 and call.values == call.shape[0] for call in calls)


@rule("BN-F06", "error", "One value per group: nothing is left", 7)
def one_per_group(patient: Patient) -> Iterator[Sign]:
    """A GroupNorm, InstanceNorm or LayerNorm takes its mean over the values of one sample's group. One value leaves
    nothing after that: the output is the bias, whatever the input. Two leave a sign. (The usual case is a GroupNorm
    with as many groups as channels in place of a BatchNorm1d.)"""
    seen = patient.evaluation.seen.of_kind("group", "layer", "instance")
    few = [(count, name) for count, name in fewest(seen) if count <= 2]
    few = [(count, name) for count, name in few if count > 1 or not _only_scales(patient, name)]
    if few:
        one = few[0][0] == 1
        yield Sign(
            [name for _, name in few],
            "1 value per group: the output is the bias, whatever the input"
            if one
            else "2 values per group: only a sign is left of each group",
            "fewer groups: at least 2 channels, better 8, in each",
            None if one else "warning",
        )


def _only_scales(patient: Patient, name: str) -> bool:
    return "RMS" in type(dict(named(patient.copy)).get(name)).__name__


@rule("BN-F07", "error", "Features on the wrong axis", 5)
def wrong_axis(patient: Patient) -> Iterator[Sign]:
    """BatchNorm1d treats axis 1 of (N, C, L) as the channels. What comes from a Linear, an embedding, a LayerNorm, a
    recurrent or an attention layer is (N, L, C): it runs if ``num_features`` is the length, and then normalizes
    positions. InstanceNorm1d treats (N, C) as one sample with N channels, and then normalizes each sample over its
    features."""
    found = {}
    for name, calls in patient.evaluation.seen.of_kind("batch").items():
        for call in calls:
            if len(call.shape) == 3 and call.features_from:
                found[name] = call
    if found:
        name, call = next(iter(found.items()))
        yield Sign(
            found,
            f"its input {tuple(call.shape)} comes from a {call.features_from}, whose features are the last axis: "
            f"{call.shape[1]} positions are normalized as channels",
            f"norm(x.transpose(1, 2)).transpose(1, 2), with num_features={call.shape[2]}",
        )
    norms, calls = dict(named(patient.copy)), patient.evaluation.seen.of_kind("instance")
    found = {name: seen[0].shape for name, seen in calls.items() if _is_sample_by_mistake(norms[name], seen[0].shape)}
    if found:
        name, shape = next(iter(found.items()))
        kind = type(norms[name]).__name__
        yield Sign(
            found,
            f"{kind} takes its input {tuple(shape)} for one sample of {shape[0]} channels: each row is normalized over "
            f"its {shape[1:].numel()} values",
            f"an input with a batch axis, or LayerNorm({shape[1]}), if that is what you want",
            "warning",
        )


def _is_sample_by_mistake(norm: nn.Module, shape: torch.Size) -> bool:
    """Whether an instance norm takes samples for channels: what it gets has no batch axis for it."""
    return len(shape) == norm._get_no_batch_dim() and shape[0] != norm.num_features == shape[1]


@rule("BN-F08", "warning", "Padding in the statistics", 7)
def padding(patient: Patient) -> Iterator[Sign]:
    """Each sequence is constant from some position on, and these positions differ, which means padding. A batch norm
    counts it as data: the mean moves towards the padding, and the more padding there is, the smaller the variance."""
    if not patient.real:
        return
    shares = {
        name: max(call.padding for call in calls) for name, calls in patient.evaluation.seen.of_kind("batch").items()
    }
    found = sorted((name for name in shares if shares[name] >= 0.1), key=lambda name: -shares[name])
    if found:
        yield Sign(
            found,
            f"{shares[found[0]]:.0%} of the positions are padding: constant ends of sequences of different lengths",
            "bncourse.layers.masked.MaskedBatchNorm1d, with a mask, or a norm of each position (LayerNorm)",
        )


@rule("BN-S22", "note", "LayerNorm over several axes", 7)
def layer_norm_over_positions(patient: Patient) -> Iterator[Sign]:
    """A LayerNorm whose ``normalized_shape`` has several axes takes one mean over positions and features: for
    sequences, this ties the positions together, including padding and future ones, and fixes the length. A LayerNorm
    over a single feature leaves nothing."""
    norms = {name: module for name, module in named(patient.model) if kind_of(module) == "layer"}
    several = [name for name, norm in norms.items() if len(norm.normalized_shape) > 1]
    if several:
        shape = tuple(norms[several[0]].normalized_shape)
        sequences = len(shape) == 2
        yield Sign(
            several,
            f"normalized_shape {shape}: one mean over {torch.Size(shape).numel()} values of all positions and features",
            f"LayerNorm({shape[-1]}), if the last axis has the features",
            "warning" if sequences else None,
        )


@rule("BN-F17", "warning", "A last batch of one sample", 8)
def last_batch_of_one(patient: Patient) -> Iterator[Sign]:
    """The loader's last batch has one sample. A batch norm with one value per channel raises an error there, hours into
    the first epoch; one on a map normalizes the sample by itself."""
    loader = getattr(patient, "loader", None)
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    if isinstance(size, int) and size > 1 and hasattr(dataset, "__len__") and not getattr(loader, "drop_last", True):
        if len(dataset) % size == 1 and patient.norms:
            yield Sign([], f"{len(dataset)} samples in batches of {size}: the last batch has 1", "drop_last=True")
