"""F and G: several devices, half precision, numbers that are not finite."""

from collections.abc import Iterator

import torch

from bncourse.doctor.norms import frozen, tracks
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.words import number, of, plural
from bncourse.layers.sync import world_size

TENSORS = ("running_mean", "running_var", "weight", "bias")


@rule("BN-S29", "error", "Statistics that are not finite", 10)
def not_finite(patient: Patient) -> Iterator[Sign]:
    """One batch with an overflow puts infinity or NaN into the running averages, and there it stays: training goes on
    as if nothing had happened, but evaluation gives NaN. A negative variance is just as bad."""
    found = {name: bad for name, norm in patient.norms.items() if (bad := impossible(norm))}
    if found:
        said = next(iter(found.values()))
        more = f"; {of(found, patient.norms, verb='have')} such values" if len(found) > 1 else ""
        cause = "find what wrote it" if "negative" in said else "skip such batches; bfloat16 or float32 before it"
        yield Sign(found, f"{said}{more}", f"{cause}; then surgery.recalibrate(model, loader)")


def impossible(norm: torch.nn.Module) -> str:
    """Which tensor of a norm has values that it cannot have, and in how many channels; "" if all are possible."""
    for key in TENSORS:
        value = getattr(norm, key, None)
        if not isinstance(value, torch.Tensor) or value.is_meta:
            continue
        for what, bad in (("not finite", ~torch.isfinite(value.detach())), ("negative", value.detach() < 0)):
            if bool(bad.any()) and (what != "negative" or key == "running_var"):
                return f"{key} is {what} in {int(bad.sum())} of {plural(value.numel(), 'channel')}"
    return ""


@rule("BN-S30", "note", "An implausible variance", 10)
def implausible(patient: Patient) -> Iterator[Sign]:
    """A running variance above a million comes from activations a thousand times as large as usual: the inputs are not
    scaled, the activations grow with depth, or one batch was near overflow. float16 ends at 65,504, which is 65 such
    standard deviations."""
    largest = {
        name: float(norm.running_var.detach().float().max())
        for name, norm in patient.norms.items()
        if tracks(norm) and norm.running_var.numel() and not norm.running_var.is_meta
    }
    found = sorted((name for name, value in largest.items() if 1e6 < value < float("inf")), key=lambda n: -largest[n])
    if found:
        yield Sign(
            found,
            f"the largest running variance is {number(largest[found[0]])}, above 1e6 in {of(found, patient.norms)}",
            "scale the inputs; look at the layer before it; surgery.recalibrate(model, loader) after one bad batch",
        )


@rule("BN-S31", "warning", "Statistics in half precision", 10)
def half_precision(patient: Patient) -> Iterator[Sign]:
    """With 8 bits (bfloat16) an update of less than 0.4% of a value changes nothing, and float16 ends at 65,504:
    running averages get stuck or overflow. Autocast keeps them in float32; ``model.half()`` does not. It matters while
    they still move."""
    halves = (torch.float16, torch.bfloat16)
    norms = {name: norm for name, norm in patient.norms.items() if tracks(norm)}
    found = [name for name, norm in norms.items() if norm.running_var.dtype in halves]
    if found:
        moving = any(norms[name].training and not frozen(norms[name]) for name in found)
        dtype = str(norms[found[0]].running_var.dtype).removeprefix("torch.")
        yield Sign(
            found,
            f"{of(found, norms, verb='keep')} their statistics in {dtype}",
            "float32 layers under torch.autocast; or norm.float() for these",
            None if moving else "note",
        )


@rule("BN-S32", "note", "Statistics of each device alone", 14)
def not_synchronized(patient: Patient) -> Iterator[Sign]:
    """Several processes train this model and its batch norms are not synchronized: each normalizes with its own part of
    the batch, and rank 0's statistics are saved. With many samples per device that is fine; with 2 or 4 it is not."""
    processes = world_size()
    plain = [name for name, norm in patient.norms.items() if "Sync" not in type(norm).__name__ and not frozen(norm)]
    if processes > 1 and plain:
        yield Sign(
            plain,
            f"{of(plain, patient.norms, verb='are')} not synchronized over {processes} processes",
            "surgery.convert_norms(model, 'sync'), before DistributedDataParallel",
        )


@rule("BN-F13", "error", "A norm gets values that are not finite", 10)
def first_not_finite(patient: Patient) -> Iterator[Sign]:
    """In evaluation, the input of this norm, the first to be affected, already contains infinity or NaN: the cause
    comes before it, in the data, the weights, or an overflow in half precision."""
    for name, calls in patient.evaluation.seen.calls.items():
        if not all(call.finite for call in calls):
            if not any(map(impossible, patient.norms.values())):  # BN-S29 says so
                yield Sign(
                    [name],
                    "its input is NaN or infinite in evaluation, the first of all norms",
                    "look at the layers before it: weights, inputs, float16 (bfloat16 has float32's range)",
                )
            return
