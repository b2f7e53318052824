"""Right and wrong answers for the sets on experiments (6) and on many devices and fast layers (7)."""

import copy
import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from bncourse.claims import verdict as book_verdict
from bncourse.exercises.experiments_and_intervals import share_right
from bncourse.experiments import interval


def rule(low, high, d):
    return book_verdict("more", low, high, d)[0]


def by_zero(low, high, d):
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided here"


def by_middle(low, high, d):
    return "holds" if (low + high) / 2 >= d else "does not hold"


def pilot(run, seeds):
    return np.array([run("with", seed) - run("without", seed) for seed in seeds])


def enough(spread, squared=True, rounded=math.ceil, two=2.0):
    def answer(run, seeds, d):
        with_, without = ([run(variant, seed) for seed in seeds] for variant in ("with", "without"))
        ratio = two * spread(np.array(with_), np.array(without)) / d
        return rounded(ratio**2 if squared else ratio)

    return answer


def by_package(run, seeds):
    found = interval(run("with", seed) - run("without", seed) for seed in seeds)
    return found.mean, found.low, found.high


def by_scipy(run, seeds):
    from scipy import stats

    differences = pilot(run, seeds)
    return differences.mean(), *stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))


def by_hand(run, seeds):
    with_, without = (torch.tensor([run(name, seed) for seed in seeds]) for name in ("with", "without"))
    d, n = with_ - without, len(list(seeds))
    t = {5: 2.776, 6: 2.571, 10: 2.262, 20: 2.093}[n]
    error = (d - d.mean()).square().sum().div(n - 1).div(n).sqrt()
    return [d.mean().item(), (d.mean() - t * error).item(), (d.mean() + t * error).item()]


def unpaired(run, seeds):
    with_, without = (np.array([run(name, seed) for seed in seeds]) for name in ("with", "without"))
    reach = 2.262 * math.sqrt((with_.var(ddof=1) + without.var(ddof=1)) / len(with_))
    middle = with_.mean() - without.mean()
    return middle, middle - reach, middle + reach


def symmetric(factor, ddof=1, root=True, sign=1):
    def answer(run, seeds):
        d = sign * pilot(run, seeds)
        reach = factor(len(d)) * d.std(ddof=ddof) / (math.sqrt(len(d)) if root else 1)
        return d.mean(), d.mean() - reach, d.mean() + reach

    return answer


def student(n):
    return {5: 2.776, 6: 2.571, 10: 2.262, 20: 2.093}[n]


def other_seeds(run, seeds):
    return symmetric(student)(lambda variant, seed: run(variant, seed + (variant == "without")), seeds)


def costs(trained, seeds, batch=20, shuffle=False, both=False, share=100.0):
    found = []
    for seed in seeds:
        model, images, labels = trained(seed)
        if shuffle:
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
            images, labels = images[order], labels[order]
        first = share_right(model if both else model.eval(), images, labels, batch)
        found.append((first - share_right(model.train(), images, labels, batch)) * share / 100)
    return found


def forgotten(judge=rule, sign=1, t=None, **options):
    def answer(trained, seeds, d):
        found = interval(sign * cost for cost in costs(trained, seeds, **options))
        reach = found.high - found.mean if t is None else t * found.standard_error
        low, high = found.mean - reach, found.mean + reach
        return low, high, judge(low, high, d)

    return answer


def forgotten_by_hand(trained, seeds, d, wrong_first=False):
    lost = []
    for seed in seeds:
        model, images, labels = trained(seed)
        twin = model if wrong_first else copy.deepcopy(model)
        wrong = torch.cat([twin(part).argmax(1) for part in images.chunk(10)]) == labels
        model.eval()
        lost.append(100 * ((model(images).argmax(1) == labels).float().mean() - wrong.float().mean()).item())
    found = interval(lost)
    return found.low, found.high, rule(found.low, found.high, d)


def by_list(trained, seeds, d):
    return [*forgotten()(trained, list(seeds)[::-1], d)]


def race(choose, judge=rule, common=False, on=None, all_rates=False):
    def answer(run, rates, choosing, seeds, d):
        pool = {"choosing": choosing, "seeds": seeds}[choose]
        mean = {
            (name, rate): sum(run(name, rate, seed) for seed in pool) for name in ("first", "second") for rate in rates
        }
        best = {name: max(rates, key=lambda rate: mean[name, rate]) for name in ("first", "second")}
        if common:
            best = dict.fromkeys(best, max(rates, key=lambda rate: mean["first", rate] + mean["second", rate]))
        if all_rates:
            for rate in rates:
                run("first", rate, seeds[0])
        there = choosing if on == "choosing" else seeds
        found = interval(run("first", best["first"], s) - run("second", best["second"], s) for s in there)
        return found.low, found.high, judge(found.low, found.high, d)

    return answer


def race_by_arrays(run, rates, choosing, seeds, d):
    best = [
        rates[int(np.argmax([np.mean([run(name, rate, s) for s in choosing]) for rate in rates]))]
        for name in ("first", "second")
    ]
    values = np.array(
        [[run(name, rate, s) for s in seeds] for name, rate in zip(("first", "second"), best, strict=True)]
    )
    found = interval(values[0] - values[1])
    return torch.tensor(found.low), torch.tensor(found.high), rule(found.low, found.high, d)


def race_lazily(run, rates, choosing, seeds, d):
    best = {}
    for name in ("first", "second"):
        scores = {rate: torch.tensor([run(name, rate, s) for s in choosing]).double().median() for rate in rates}
        scores = {rate: torch.tensor([run(name, rate, s) for s in choosing]).double().mean() for rate in scores}
        best[name] = sorted(scores, key=scores.get)[-1]
    found = interval([run("first", best["first"], s) - run("second", best["second"], s) for s in seeds])
    return [found.low, found.high, rule(found.low, found.high, d)]


def merge_by_sums(means, variances, counts):
    n, means, variances = counts[:, None].double(), means.double(), variances.double()
    mean = (n * means).sum(0) / n.sum()
    return mean, (n * (variances + means**2)).sum(0) / n.sum() - mean**2


def merge_pairwise(means, variances, counts):
    mean, variance, n = means[0], variances[0], int(counts[0])
    for m, v, k in zip(means[1:], variances[1:], counts[1:].tolist(), strict=True):
        gap = m - mean
        variance = (n * variance + k * v + gap**2 * n * k / (n + k)) / (n + k)
        mean, n = mean + gap * k / (n + k), n + k
    return mean, variance


def merge_by_torch(means, variances, counts):
    mean = torch.sum(means * counts[:, None], 0) / counts.sum()
    return mean, torch.sum(counts[:, None] * (variances + (means - mean).square()), 0) / counts.sum()


def merged(within=True, between=True, weighted=True, unbiased=1.0):
    def answer(means, variances, counts):
        share = (counts / counts.sum() if weighted else torch.ones_like(means[:, 0]) / len(counts))[:, None]
        mean = (counts[:, None] / counts.sum() * means).sum(0)
        variance = within * (share * variances).sum(0) + between * (share * (means - mean) ** 2).sum(0)
        return mean, variance * (counts.sum() / (counts.sum() - 1) if unbiased != 1.0 else 1.0)

    return answer


def kept_by_set(layers):
    found = set()
    for number, layer in enumerate(layers, 1):
        found.add(number if layer == "relu" else number - 1)
    return len(found)


def kept_by_counting(layers):
    twice = sum(first == "relu" and second != "relu" for first, second in pairwise(layers))
    return len(layers) - twice


def kept_by_autograd(layers):
    make = {"conv": lambda: nn.Conv2d(2, 2, 1), "norm": lambda: nn.BatchNorm2d(2), "relu": nn.ReLU}
    seen = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
        output = nn.Sequential(*(make[layer]() for layer in layers))(torch.randn(3, 2, 5, 5))
    return sum(tensor.numel() == output.numel() for tensor in seen.values())


RIGHT = {
    "verdict": [
        rule,
        lambda low, high, d: "holds" if low >= d else "does not hold" if high < d else "undecided here",
        lambda low, high, d: ("undecided here", "holds", "does not hold")[(low >= d) + 2 * (high < d)],
    ],
    "enough-seeds": [
        enough(lambda a, b: (a - b).std(ddof=1)),
        lambda run, seeds, d: torch.tensor(math.ceil(4 * pilot(run, seeds).var(ddof=1) / d**2)),
        lambda run, seeds, d: -int(-((2 * pilot(run, list(seeds)[::-1]).std(ddof=1) / d) ** 2) // 1),
    ],
    "paired": [by_package, by_scipy, by_hand],
    "forgotten-eval": [forgotten(), forgotten_by_hand, by_list],
    "race": [race("choosing"), race_by_arrays, race_lazily],
    "merge-statistics": [merge_by_sums, merge_pairwise, merge_by_torch],
    "loss-weights": [
        lambda sizes: [size * len(sizes) / sum(sizes) for size in sizes],
        lambda sizes: tuple(torch.tensor(sizes) / torch.tensor(sizes).double().mean()),
        lambda sizes: [size / (sum(sizes) / len(sizes)) for size in sizes],
    ],
    "kept-activations": [kept_by_set, kept_by_counting, kept_by_autograd],
}

WRONG = {
    "verdict": [
        (by_zero, "above zero is not enough"),
        (by_zero, "even if it contains zero"),
        (by_middle, "not by its middle"),
        (lambda low, high, d: book_verdict("more", low, high, d), "take the first of the two"),
        (lambda low, high, d: low >= d, ""),
        (lambda low, high, d: "holds", ""),
    ],
    "enough-seeds": [
        (enough(lambda a, b: max(a.std(ddof=1), b.std(ddof=1))), "spread of one variant"),
        (enough(lambda a, b: (a - b).std(ddof=1), squared=False), "square (2 s / d)"),
        (enough(lambda a, b: (a - b).std(ddof=1), rounded=math.floor), "Round up"),
        (enough(lambda a, b: (a - b).std()), "divides by n - 1"),
        (enough(lambda a, b: (a - b).std(ddof=1), two=1.0), "do not forget the 2"),
        (lambda run, seeds, d: 10, "each of the given seeds"),
    ],
    "paired": [
        (unpaired, "two separate groups"),
        (symmetric(lambda n: 1.96), "This uses 1.96"),
        (symmetric(student, root=False), "spread of single runs"),
        (symmetric(student, ddof=0), "divides by n - 1"),
        (symmetric(student, sign=-1), "The sign is reversed"),
        (other_seeds, "each of the given seeds"),
    ],
    "forgotten-eval": [
        (forgotten(both=True), "in the same mode"),
        (lambda trained, seeds, d: forgotten_by_hand(trained, seeds, d, wrong_first=True), "in the right mode first"),
        (forgotten(batch=200), "all 200 images were one batch"),
        (forgotten(shuffle=True), "Keep them in order"),
        (forgotten(sign=-1), "right mode minus wrong mode"),
        (forgotten(share=1.0), "multiply by 100"),
        (forgotten(t=1.96), "This uses 1.96"),
        (forgotten(judge=by_zero), ""),
        (lambda trained, seeds, d: forgotten()(trained, list(seeds)[1:], d), "one network for each"),
    ],
    "race": [
        (race("seeds"), "partly luck"),
        (race("choosing", common=True), "the same rate"),
        (race("choosing", on="choosing"), "not on those used for choosing"),
        (race("choosing", judge=by_zero), ""),
        (race("choosing", all_rates=True), "partly luck"),
    ],
    "merge-statistics": [
        (merged(between=False), "leaves out how far"),
        (merged(within=False), "means alone"),
        (merged(weighted=False), ""),
        (merged(unbiased=2.0), "the unbiased variance"),
        (lambda m, v, n: (m.mean(0), v.mean(0)), "weight by counts"),
        (
            lambda m, v, n: (merge_by_torch(m, v, n)[0], merged(between=False, weighted=False)(m, v, n)[1]),
            "leaves out how far",
        ),
        (lambda m, v, n: [part.float() for part in merge_by_float(m, v, n)], "has lost its precision"),
    ],
    "loss-weights": [
        (lambda sizes: [size / sum(sizes) for size in sizes], "multiply by their number"),
        (lambda sizes: [1.0] * len(sizes), "All parts count the same"),
        (lambda sizes: [sum(sizes) / len(sizes) / size for size in sizes], "other way round"),
        (lambda sizes: sizes, "the size of the WHOLE batch"),
        (lambda sizes: torch.tensor(sizes) / sum(sizes), ""),
    ],
    "kept-activations": [
        (len, "counts only once"),
        (lambda layers: len(layers) + 1, "Who keeps WHAT"),
        (lambda layers: len(layers) - 1, ""),
        (lambda layers: sum(layer != "relu" for layer in layers), ""),
        (lambda layers: 2, ""),
    ],
}


def merge_by_float(means, variances, counts):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (variances + means**2)).sum(0) - mean**2
