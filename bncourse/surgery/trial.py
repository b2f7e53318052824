"""Which batch norms can be folded, found by running copies of the model on an example."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bncourse.devices import device_of, seeded
from bncourse.layers.replace import known_class
from bncourse.probes import as_written
from bncourse.surgery.inputs import Call, convert, tensors_in
from bncourse.surgery.norms import KNOWN, plain_model
from bncourse.surgery.pairs import Pair, fold_pairs
from bncourse.surgery.tracing import has_hooks, is_hooked
from bncourse.surgery.watching import Watch, close, has_statistics
from bncourse.training import in_evaluation

__all__ = ["difference", "tried_pairs"]

# The operations of a batch norm in evaluation that is written out. What is made of these alone, and scales and shifts
# random numbers as it should, does so with all numbers: no other such function agrees with it there.
ELEMENTARY = set(
    "add sub rsub mul div addcmul rsqrt sqrt reciprocal pow neg view reshape _unsafe_view unsqueeze expand alias "
    "detach clone transpose _to_copy empty native_batch_norm cudnn_batch_norm miopen_batch_norm "
    "_native_batch_norm_legit "
    "_native_batch_norm_legit_no_training _batch_norm_no_update".split()
)


def tried_pairs(model: nn.Module, example: Any, call: Call) -> tuple[dict[str, Pair], dict[str, str]]:
    """The batch norms that can be folded in ``model`` with the layers before them, and why others cannot be, by name.

    Copies of the model run on the example, if possible in double precision. They have other statistics, gammas and
    betas than the model: no mistake hides behind a gamma of 0. One is watched, in others the pairs are folded, until
    each folded layer gives what its norm gave, and the model what it gave.

    Raises:
        ValueError: the outputs of the model change although no folded layer's does: they are different in every run.
    """
    try:
        trial, tolerance = _shaken(copy.deepcopy(model).double()), 1e-6
        example = convert(example, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
        watch, outputs = _watched(trial, example, call, tolerance / 1000)
    except Exception:  # it converts to single precision inside, or its device has no double
        trial, tolerance = _shaken(copy.deepcopy(model)), 1e-2
        watch, outputs = _watched(trial, example, call, tolerance / 100)
    pairs, reasons = _judged(trial, watch, outputs)
    expected = {name: watch.seen[trial.get_submodule(name)].expected for name in pairs}
    while True:
        folded, wrong = fold_pairs(copy.deepcopy(trial), pairs.values()), []

        def check(name: str, layer: nn.Module, _args: Any, output: Tensor) -> None:
            if not close(output, expected[name], tolerance):
                wrong.append(name)  # noqa: B023  (this hook runs in this round only)

        for name, pair in pairs.items():
            folded.get_submodule(pair.layer).register_forward_hook(partial(check, name))
        again = tensors_in(_run(folded, example, call))
        if not wrong:
            break
        reasons[wrong[0]] = "folding it would change the output"  # the others may be wrong because of it
        del pairs[wrong[0]]
    if not all(close(now, was, tolerance) for now, was in zip(again, outputs, strict=True)):
        raise ValueError("model must give the same output whenever it gets the same input, got another in a second run")
    return pairs, reasons


def difference(model: nn.Module, other: nn.Module, example: Any, call: Call) -> float:
    """How far the outputs of two models are apart, as a share of their size."""
    pairs = zip(*(tensors_in(_run(each, example, call)) for each in (model, other)), strict=True)
    numbers = [(a.double().cpu(), b.double().cpu()) for a, b in pairs if a.is_floating_point()]
    return max((float((a - b).norm() / b.norm().clamp(min=1e-300)) for a, b in numbers), default=0.0)


def _run(model: nn.Module, example: Any, call: Call) -> Any:
    """What the model gives in evaluation, with the same random numbers each time; compiled parts run as written."""
    device = device_of(model)
    with in_evaluation(model), as_written(model), seeded(0, device):
        return call(plain_model(model), convert(example, lambda tensor: tensor.to(device)))


def _watched(model: nn.Module, example: Any, call: Call, tolerance: float) -> tuple[Watch, list[Tensor]]:
    with Watch(model, tolerance) as watch:
        return watch, tensors_in(_run(model, example, call))


def _shaken(model: nn.Module) -> nn.Module:
    """The model, with the statistics, gammas and betas of its batch norms moved at random, each by its own size."""
    numbers = torch.Generator().manual_seed(0)
    for norm in filter(has_statistics, model.modules()):
        draw = [torch.rand(len(norm.running_mean), generator=numbers) for _ in range(4)]
        draw = [each.to(norm.running_mean) for each in draw]
        norm.running_mean += 0.6 * (draw[0] - 0.5) * norm.running_var.sqrt()
        norm.running_var *= 0.7 + 0.7 * draw[1]
        if isinstance(norm._parameters.get("weight", norm._buffers.get("weight")), Tensor):
            norm.weight.mul_(0.7 + 0.7 * draw[2]).add_(0.1)
        if isinstance(norm._parameters.get("bias", norm._buffers.get("bias")), Tensor):
            norm.bias.add_(0.6 * (draw[3] - 0.5))
    return model


def _judged(model: nn.Module, watch: Watch, outputs: list[Tensor]) -> tuple[dict[str, Pair], dict[str, str]]:
    names = {module: name for name, module in model.named_modules()}
    pairs, reasons = {}, {}
    for norm, name in names.items():
        if has_statistics(norm):
            reason = _why_not(norm, watch, outputs)
            if reason is None:
                made, parts = watch.made[id(watch.seen[norm].input)], watch.seen[norm].parts
                pairs[name] = Pair(
                    names[made.module], name, made.transposed, made.groups, tuple(names[part] for part in parts)
                )
            else:
                reasons[name] = reason
    return pairs, reasons


def _why_not(norm: nn.Module, watch: Watch, outputs: list[Tensor]) -> str | None:
    """Why a norm cannot be folded, if so."""
    if has_hooks(norm):
        return "it has hooks"
    if watch.calls[norm] != 1 or norm not in watch.seen:
        return f"called {watch.calls[norm]} times with the example, not once"
    call = watch.seen[norm]
    known = known_class(norm, KNOWN) is not None or watch.operations[norm] <= ELEMENTARY
    if not call.as_expected or not known:
        return f"{type(norm).__name__} may do more than a batch norm and its parts"
    own = [getattr(norm, name, None) for name in ("weight", "bias", "running_mean", "running_var")]
    if any(reader is not norm for value in own for reader in watch.read_by.get(id(value), ())):
        return "something else reads its parameters"
    made = watch.made.get(id(call.input))
    if made is None:
        return "no linear or convolution layer directly before it"
    layer, kind = made.module, type(made.module).__name__
    weight, bias = (layer._parameters.get(name) for name in ("weight", "bias"))
    if weight is None or made.weight is not weight or made.bias is not bias or "bias" not in layer._parameters:
        return f"the {kind} before it computes its weight, or is not known to be linear"
    if is_hooked(layer):
        return f"the {kind} before it has hooks"
    if watch.calls[layer] != 1:
        return f"the {kind} before it is called {watch.calls[layer]} times with the example"
    if any(len(watch.read_by[id(value)]) != 1 for value in (weight, bias) if value is not None):
        return f"something else reads the weight of the {kind} before it"
    if any(reader is not norm for reader in watch.read_by[id(call.input)]) or any(call.input is o for o in outputs):
        return f"something else reads the output of the {kind} before it"
    return None
