"""C: where norms are, and whether they compute what they are called."""

import copy
from collections.abc import Iterator
from itertools import combinations

import torch
from torch import nn

from bncourse.doctor.norms import batch_norms, frozen, initial, tracks
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import Sign, rule
from bncourse.doctor.seen import distance, pooled
from bncourse.doctor.words import number, of
from bncourse.layers.replace import known_class
from bncourse.surgery.norms import KNOWN
from bncourse.surgery.tracing import traced_pairs


@rule("BN-S20", "note", "A bias that the norm cancels", 10)
def redundant_bias(patient: Patient) -> Iterator[Sign]:
    """A batch norm right after a linear or convolution layer subtracts the mean, and that layer's bias with it. The
    bias gets no gradient and only costs memory. (``torch.fx`` finds the pairs; models that it cannot trace are left
    out.) Before a frozen norm, a bias does matter."""
    try:
        pairs, _ = traced_pairs(patient.copy)
    except Exception:
        return
    found = [
        pair.layer
        for name, pair in pairs.items()
        if patient.copy.get_submodule(pair.layer).bias is not None and not frozen(patient.copy.get_submodule(name))
    ]
    if found:
        yield Sign(
            found,
            f"{of(found, pairs, 'layer', verb='have')} a bias that the next batch norm cancels",
            "bias=False there; model = surgery.drop_redundant_biases(model)",
        )


@rule("BN-S21", "note", "Dead channels", 6)
def dead_channels(patient: Patient) -> Iterator[Sign]:
    """A channel whose running variance is far below eps is constant on all data. The norm's gain there is 1/sqrt(eps),
    316 for 1e-5: the smallest change of that channel after deployment is multiplied by it."""
    dead = {}
    for name, norm in patient.norms.items():
        if tracks(norm) and not initial(norm):
            least = 0.01 * min(getattr(norm, "eps", 1e-5), 1e-5)
            count = int(((norm.running_var >= 0) & (norm.running_var < least)).sum())
            if count:
                dead[name] = count / len(norm.running_var)
    found = sorted(dead, key=lambda name: -dead[name])
    if found:
        yield Sign(
            found,
            f"{dead[found[0]]:.0%} of the channels have a variance below eps/100; "
            f"{of(found, patient.norms, verb='have')} such channels",
            "look at what comes before it: dead ReLUs, weights of 0, too large a learning rate",
            "warning" if dead[found[0]] == 1 else None,
        )


def dropout_ratios(patient: Patient) -> dict[str, float]:
    """The variance of each batch norm's inputs with dropout, as a multiple of that without, in the median channel."""
    with_dropout, without = patient.with_dropout, patient.own_statistics
    if with_dropout is None or without is None:
        return {}
    ratios = {}
    norms = batch_norms(patient.copy)
    for name, calls in with_dropout.seen.of_kind("batch").items():
        on, off = pooled(calls), pooled(without.seen.calls.get(name, []))
        if on is not None and off is not None and name in norms and on.variance.shape == off.variance.shape:
            alive = off.variance > getattr(norms[name], "eps", 1e-5)
            if alive.any() and on.samples >= 4:
                ratios[name] = float((on.variance / off.variance)[alive].median())
    return ratios


@rule("BN-F09", "note", "Dropout before a batch norm", 9)
def dropout_before(patient: Patient) -> Iterator[Sign]:
    """Dropout keeps the mean and raises the variance, in training only. A batch norm after it learns a running variance
    that evaluation never sees, and shrinks all activations. The rule measures the variance of the norm's inputs with
    dropout on and off. (WideResNet has a convolution between the two and works all the same, so the loss decides.)"""
    ratios, without = dropout_ratios(patient), patient.own_statistics
    if not ratios or without is None:
        return
    found = sorted((name for name in ratios if ratios[name] > 1.1), key=lambda name: -ratios[name])
    if found:
        best = min(without.loss, patient.evaluation.loss)
        hurts = patient.real and patient.evaluation.loss > 1.1 * best + 0.02 and ratios[found[0]] > 1.2
        loss = f"; loss {number(patient.evaluation.loss)} in evaluation, {number(without.loss)} with batch statistics"
        yield Sign(
            found,
            f"the variance of its inputs is {number(ratios[found[0]])} times as large with dropout as without"
            f"{loss if hurts else ''}",
            "dropout after the last batch norm; surgery.recalibrate(model, loader) repairs a trained model",
            "warning" if hurts else None,
        )


@rule("BN-F10", "warning", "One norm for several kinds of input", 14)
def several_populations(patient: Patient) -> Iterator[Sign]:
    """The norm is called several times in one forward pass, and the means of its inputs differ by half a standard
    deviation or more between the calls: pyramid levels, domains, real and generated images. One set of statistics fits
    none of them."""
    batches = len(patient.batches)
    apart = {}
    for name, calls in patient.evaluation.seen.of_kind("batch").items():
        turns = len(calls) // batches
        if turns < 2 or turns * batches != len(calls):
            continue
        moments = [pooled(calls[turn::turns]) for turn in range(turns)]
        if all(each is not None and each.samples >= 4 for each in moments):
            apart[name] = max(distance(one, other) for one, other in combinations(moments, 2))
    found = sorted((name for name in apart if apart[name] > 0.5), key=lambda name: -apart[name])
    if found:
        calls = len(patient.evaluation.seen.calls[found[0]]) // batches
        yield Sign(
            found,
            f"called {calls} times in one forward pass, on inputs whose means are {number(apart[found[0]])} standard "
            "deviations apart",
            "a norm for each kind of input; the layers around it can be shared",
        )


@rule("BN-F14", "warning", "A batch norm that does something else", 5)
def hand_made(patient: Patient) -> Iterator[Sign]:
    """Norms of unknown classes are tested on their own, with random numbers: how far one batch moves the statistics,
    which variance they use (torch uses the unbiased one for the running average), and whether evaluation depends on the
    batch or moves anything. Many handwritten layers, and some frameworks, get one of these wrong."""
    for name, norm in batch_norms(patient.copy).items():
        calls = patient.evaluation.seen.calls.get(name)
        if not tracks(norm) or frozen(norm) or not calls or known_class(norm, KNOWN) or norm.running_mean.dim() != 1:
            continue
        if isinstance(norm, torch.jit.ScriptModule):
            continue
        try:
            sign = _tried(name, norm, calls[0].shape)
        except Exception:
            continue
        if sign is not None:
            yield sign


@torch.no_grad()
def _tried(name: str, norm: nn.Module, shape: torch.Size) -> Sign | None:
    kind, channels = type(norm).__name__, len(norm.running_mean)
    numbers = torch.Generator().manual_seed(0)
    x = (torch.randn(6, channels, *[2] * (len(shape) - 2), generator=numbers) * 2 + 3).to(norm.running_mean)
    values = x.numel() // channels

    def fresh() -> nn.Module:
        new = copy.deepcopy(norm)
        new.running_mean.zero_()
        new.running_var.fill_(1)
        return new

    evaluated = fresh().eval()
    whole, half = evaluated(x), evaluated(x[:3])
    if not isinstance(whole, torch.Tensor) or whole.shape != x.shape:
        return None
    if evaluated.running_mean.any() or bool((evaluated.running_var != 1).any()):
        return Sign([name], f"{kind} moves its statistics in evaluation", "move them if self.training only", "error")
    if not torch.allclose(whole[:3], half, rtol=1e-3, atol=1e-4):
        said = f"{kind} normalizes with the batch's statistics in evaluation, although it keeps running ones"
        return Sign([name], said, "use running_mean and running_var if not self.training", "error")
    trained = fresh().train()
    momentum = getattr(trained, "momentum", None)
    trained(x)
    mean, variance = (each.flatten() for each in _moments(x))
    moved = float((trained.running_mean / mean).median())
    if abs(moved) < 1e-6:
        if momentum == 0:
            return None
        return Sign([name], f"{kind} does not move its running mean in training", "update it in forward", "error")
    if isinstance(momentum, float) and abs(moved - momentum) > 0.02 and abs(moved - (1 - momentum)) < 0.02:
        return Sign(
            [name],
            f"{kind} with momentum {number(momentum)} gives a new batch the weight {number(moved)}; torch does "
            f"{number(momentum)}",
            "running = (1 - momentum) * running + momentum * new",
        )
    seen = float(((trained.running_var - (1 - moved)) / (moved * variance)).median())
    unbiased = values / (values - 1)
    if abs(seen - 1) < 0.1 * (unbiased - 1):
        return Sign(
            [name],
            f"{kind} averages the biased variance: {number(unbiased)} times too small for {values} values per channel",
            "var(correction=1) for the running variance, as in torch; the biased one for the output",
        )
    if abs(seen - unbiased) > 0.1 * unbiased and abs(seen**0.5 - 1) > 0.01:
        says = f"{kind} puts {number(seen)} times the batch's variance into its running variance"
        return Sign([name], says, "average the variance: not the standard deviation, not the mean square")
    return None


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x, dim=(0, *range(2, x.dim())), correction=0)
    return mean, variance
