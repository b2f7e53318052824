"""Set 6: experiments over seeds, their intervals, and what may be said of them (chapters 1, 4, 6 and 10).

The learner writes the experiment; the check hands it runs whose truth is known, or small networks of its own, and looks
at which seeds it used.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import CaseFailed, expect, expect_items, expect_number, in_its_place, require
from bncourse.exercises.exercise import Exercise

HOLDS, NOT, UNDECIDED = "holds", "does not hold", "undecided here"
T = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262, 12: 2.201, 20: 2.093}  # Student's t, 95%
ZERO = (
    "Being above zero is not enough: the prediction holds only if the WHOLE interval is at d or above, where d is the "
    "smallest effect that matters."
)
WITHIN = (
    "An interval that lies below d shows that there is no effect that matters, even if it contains zero. The verdict "
    "is 'does not hold'."
)
MIDDLE = "Judge by the interval's ends, not by its middle."
UNPAIRED = (
    "This is the interval for two separate groups. Both variants ran with the same seeds, so take the difference seed "
    "by seed first, and then its interval."
)
NORMAL = (
    "This uses 1.96, which is right for a very large number of seeds. With few seeds, Student's t is larger: use "
    "T[number of seeds]."
)
DEVIATION = (
    "This is the spread of single runs. The standard error of their mean is smaller: divide by the square root of the "
    "number of runs."
)
BIASED = "The standard deviation of a sample divides by n - 1: std() does, std(correction=0) does not."
REVERSED = "The sign is reversed: with minus without."

verdict = Exercise("verdict", "What does the interval say?", chapter=1, minutes=10, level="easy")
enough_seeds = Exercise("enough-seeds", "How many seeds are enough?", chapter=4, minutes=15, level="medium")
paired = Exercise("paired", "The interval of a paired difference", chapter=6, minutes=20, level="medium")
forgotten_eval = Exercise(
    "forgotten-eval", "What does a forgotten eval() cost?", chapter=10, minutes=25, level="medium"
)
race = Exercise(
    "race",
    "A fair race",
    chapter=6,
    minutes=35,
    level="hard",
    weights={"rates are chosen on other seeds": 2},
)
EXERCISES = (verdict, enough_seeds, paired, forgotten_eval, race)


def rule(low, high, d):
    """The book's rule for a prediction of more."""
    return HOLDS if low >= d else NOT if high < d else UNDECIDED


def compare_verdict(answer, low, high, d):
    got, expected = answer(low, high, d), rule(low, high, d)
    require(
        got in (HOLDS, NOT, UNDECIDED),
        f"the verdict should be one of {HOLDS!r}, {NOT!r}, {UNDECIDED!r}; got {got!r}.",
        "The package's own verdict() adds a remark: take the first of the two." if isinstance(got, tuple) else None,
    )
    of_zero = HOLDS if low > 0 else NOT if high < 0 else UNDECIDED
    middle = (low + high) / 2
    of_middle = {HOLDS: middle >= d, NOT: middle < d}.get(got, False)
    hint = ""
    if got == of_zero:
        hint = WITHIN if got == UNDECIDED else ZERO
    elif of_middle:
        hint = MIDDLE
    given = f"with the interval [{low:g}, {high:g}] and d = {d:g}"
    require(got == expected, f"{given} the verdict is {expected!r}; got {got!r}.", hint)


verdict.add("a clear effect", compare_verdict, 2.0, 5.0, 1.0)
verdict.add("an effect that is too small to matter", compare_verdict, 0.2, 0.7, 1.0)
verdict.add("no effect that matters", compare_verdict, -0.4, 0.6, 1.0)
verdict.add("the opposite", compare_verdict, -6.0, -2.0, 1.0)
verdict.add("an effect, and perhaps one that matters", compare_verdict, 0.4, 4.0, 1.0)
verdict.add("anything is possible", compare_verdict, -3.0, 4.0, 0.5)
verdict.add("just enough", compare_verdict, 0.25, 0.5, 0.25)


class Runs:
    """A pretended experiment: ``run(variant, seed)`` is a variant's accuracy in points, always the same for a seed.

    A seed is easy or hard for both variants alike, which is what makes a paired difference exact. It notes the calls.
    """

    def __init__(self, effect=2.0, luck=6.0, noise=0.5):
        self.effect, self.luck, self.noise, self.calls = effect, luck, noise, []

    def __call__(self, variant, seed):
        require(variant in ("with", "without"), f"run takes 'with' or 'without', then a seed; got {variant!r}.")
        self.calls.append((variant, int(seed)))
        ease, own = self.draw(seed, 0), self.draw(seed, 1 if variant == "with" else 2)
        return 80 + self.luck * ease + self.noise * own + self.effect * (variant == "with")

    @staticmethod
    def draw(seed, stream):
        """A standard normal number that depends on a seed and on what it is for."""
        generator = torch.Generator("cpu").manual_seed(7919 * int(seed) + stream)
        return torch.randn((), generator=generator, dtype=torch.float64, device="cpu").item()

    def values(self, seeds):
        """What it gives, with and without, noting nothing."""
        twin = Runs(self.effect, self.luck, self.noise)
        return [torch.tensor([twin(variant, seed) for seed in seeds]).double() for variant in ("with", "without")]


def used_seeds(runs, seeds):
    """Both variants ran with just these seeds."""
    for variant in ("with", "without"):
        ran = {seed for name, seed in runs.calls if name == variant}
        require(
            ran == set(seeds),
            f"{variant!r} ran with the seeds {sorted(ran)}; it should run with {sorted(seeds)}.",
            "Run both variants with each of the given seeds, and with no others.",
        )


def interval_of(differences, quantile=None, correction=1, root=True):
    """Mean, low and high of the interval over seeds."""
    n = len(differences)
    reach = (quantile or T[n]) * differences.std(correction=correction) / (math.sqrt(n) if root else 1)
    return torch.stack([differences.mean(), differences.mean() - reach, differences.mean() + reach])


def compare_paired(answer, runs, seeds):
    got = expect_items(answer(runs, seeds), 3, "the answer")
    used_seeds(runs, seeds)
    first, second = runs.values(seeds)
    n, difference = len(seeds), first - second
    expected = interval_of(difference)
    error = T[n] * ((first.var() + second.var()) / n).sqrt()
    separate = torch.stack([difference.mean(), difference.mean() - error, difference.mean() + error])
    mistakes = {
        UNPAIRED: separate,
        NORMAL: interval_of(difference, NormalDist().inv_cdf(0.975)),
        DEVIATION: interval_of(difference, root=False),
        BIASED: interval_of(difference, correction=0),
        REVERSED: interval_of(-difference),
    }
    got = torch.tensor([expect_number(value, "each of the three values") for value in got]).double()
    expect(got, expected, "(mean, low, high)", mistakes, rtol=3e-3, atol=2e-3)


paired.add("ten seeds", compare_paired, Runs(), range(10, 20))
paired.add("five seeds, a small effect", compare_paired, Runs(effect=0.3), range(40, 45))
paired.add("seeds that are not consecutive", compare_paired, Runs(effect=-1.0), (3, 11, 12, 25, 31, 47))


def compare_enough(answer, runs, seeds, d):
    got = expect_number(answer(runs, seeds, d), "the number of seeds")
    used_seeds(runs, seeds)
    first, second = runs.values(seeds)
    difference = first - second

    def wanted(spread):
        return math.ceil((2 * spread.item() / d) ** 2)

    exact = (2 * difference.std().item() / d) ** 2
    mistakes = {
        "This uses the spread of one variant. What counts is the spread of the DIFFERENCE, seed by seed.": max(
            wanted(first.std()), wanted(second.std())
        ),
        "The error falls with the square ROOT of the number of seeds: square (2 s / d).": math.ceil(math.sqrt(exact)),
        "Round up: you cannot run part of a seed.": math.floor(exact),
        BIASED: wanted(difference.std(correction=0)),
        "Half of the interval's width is 2 s / sqrt(n): do not forget the 2 (for 95%).": math.ceil(exact / 4),
    }
    expect(got, wanted(difference.std()), "the number of seeds", mistakes)


enough_seeds.add("a pilot of five seeds", compare_enough, Runs(noise=1.5), range(5), 1.0)
enough_seeds.add("a smaller effect needs more", compare_enough, Runs(noise=1.5), range(5), 0.25)
enough_seeds.add("luck that both variants share does not count", compare_enough, Runs(luck=30.0), range(20, 26), 0.4)


NOISE = 1.2


def trained(seed):
    """A small network with BatchNorm, trained on ten noisy patterns of that seed, and its test set, sorted by class.

    Returns:
        The model, in training mode as training left it; images, (200, 20); labels, (200,).
    """
    generator = torch.Generator("cpu").manual_seed(int(seed))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device="cpu")

    patterns = normal(10, 20)
    model = nn.Sequential(nn.Linear(20, 32, device="cpu"), nn.BatchNorm1d(32, device="cpu"), nn.ReLU())
    model.append(nn.Linear(32, 10, device="cpu"))
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.copy_(normal(*layer.weight.shape) / layer.in_features**0.5)
            layer.bias.zero_()
    with torch.enable_grad():
        for _ in range(30):
            labels = torch.randint(10, (40,), generator=generator, device="cpu")
            loss = F.cross_entropy(model(patterns[labels] + NOISE * normal(40, 20)), labels)
            for parameter, slope in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                parameter.data -= 0.3 * slope
    labels = torch.arange(200, device="cpu") // 20
    return model, patterns[labels] + NOISE * normal(200, 20), labels


@torch.no_grad()
def share_right(model, images, labels, batch=20):
    """Accuracy in points, in the mode that the model is in."""
    scores = torch.cat([model(part) for part in images.split(batch)])
    return 100 * (scores.argmax(1) == labels).double().mean().item()


@lru_cache
def costs_of_forgetting(seed):
    """What training mode costs one network, in points: sorted; sorted, but measured first; shuffled; all at once."""
    model, images, labels = trained(seed)
    order = torch.randperm(len(labels), generator=torch.Generator("cpu").manual_seed(0))
    right = share_right(model.eval(), images, labels)
    wrong = share_right(model.train(), images, labels)
    afterwards = share_right(model.eval(), images, labels)
    shuffled = share_right(model.train(), images[order], labels[order])
    return right - wrong, afterwards - wrong, right - shuffled, right - share_right(model, images, labels, len(labels))


def compare_forgotten(answer, seeds, d):
    asked = []

    def spied(seed):
        asked.append(int(seed))
        return trained(seed)

    with in_its_place(answer, verdict=rule):
        got = expect_items(answer(spied, seeds, d), 3, "the answer")
    require(
        set(asked) == set(seeds),
        f"networks were trained with the seeds {sorted(set(asked))}; it should be {sorted(seeds)}.",
        "Train one network for each of the given seeds, and judge no others.",
    )
    costs, late, shuffled, whole = torch.tensor([costs_of_forgetting(seed) for seed in seeds]).double().T
    expected = interval_of(costs)[1:]
    mistakes = {
        "The mistake seems to cost nothing because both accuracies were measured in the same mode. `trained` returns a "
        "model in training mode.": torch.zeros(2),
        "Here all 200 images were one batch. Take batches of 20, in order.": interval_of(whole)[1:],
        "The evaluation in training mode came first and changed the running statistics, so the one in the right mode "
        "no longer measured the network as it was trained. Evaluate in the right mode first.": interval_of(late)[1:],
        "These images were shuffled. Keep them in order, sorted by class.": interval_of(shuffled)[1:],
        REVERSED.partition(":")[0] + ": the cost is right mode minus wrong mode.": interval_of(-costs)[1:],
        "This is a share, not percentage points: multiply by 100.": expected / 100,
        NORMAL: interval_of(costs, NormalDist().inv_cdf(0.975))[1:],
        DEVIATION: interval_of(costs, root=False)[1:],
    }
    ends = torch.tensor([expect_number(value, "the ends of the interval") for value in got[:2]]).double()
    expect(ends, expected, "(low, high)", mistakes, atol=0.3)
    said, right = got[2], rule(*expected.tolist(), d)
    require(said == right, f"for [{ends[0]:.2f}, {ends[1]:.2f}] with d = {d:g} the verdict is {right!r}; got {said!r}.")


forgotten_eval.add("five seeds, d = 1", compare_forgotten, range(10, 15), 1.0)
forgotten_eval.add("four other seeds, and a d that is hard to reach", compare_forgotten, (31, 33, 35, 37), 78.0)


BEST = {"first": 0.3, "second": 0.03}  # rates
LUCKY = {"first": 0.03, "second": 0.3}  # what looks best on the seeds of the race, by chance


class Race:
    """A pretended race: ``run(variant, rate, seed)``. Each variant has a best rate, which other seeds show."""

    def __init__(self, effect, choosing, seeds):
        self.effect, self.choosing, self.seeds, self.calls = effect, set(choosing), set(seeds), []

    def __call__(self, variant, rate, seed):
        require(variant in BEST, f"run takes 'first' or 'second', a rate and a seed; got {variant!r}.")
        self.calls.append((variant, float(rate), int(seed)))
        return self.value(variant, rate, int(seed))

    def value(self, variant, rate, seed):
        distance = abs(math.log10(float(rate) / BEST[variant]))
        lucky = 9.0 if seed in self.seeds and float(rate) == LUCKY[variant] else 0.0
        own = Runs.draw(seed, 10 + sorted(BEST).index(variant))
        return 80 - 4 * distance + lucky + 5 * Runs.draw(seed, 0) + 0.4 * own + self.effect * (variant == "first")

    def interval(self, rates, seeds):
        first, second = (
            torch.tensor([self.value(name, rates[name], s) for s in seeds]).double() for name in ("first", "second")
        )
        return interval_of(first - second)[1:]


RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
PEEKED = (
    "The rates were chosen by their results on the seeds of the race. What looks best there is partly luck: choose on "
    "the other seeds."
)
COMMON = "Both variants run at the same rate here. Each needs its own best rate."


def compare_race(answer, effect, choosing, seeds, d=1.0):
    run = Race(effect, choosing, seeds)
    with in_its_place(answer, verdict=rule):
        got = expect_items(answer(run, RATES, choosing, seeds, d), 3, "the answer")
    expected = run.interval(BEST, seeds)
    # what a choice on the seeds of the race leads to
    peeked = {name: max(RATES, key=lambda rate: sum(run.value(name, rate, s) for s in seeds)) for name in BEST}  #
    mistakes = {PEEKED: run.interval(peeked, seeds)}
    mistakes |= {
        COMMON + " " * number: run.interval({"first": rate, "second": rate}, seeds) for number, rate in enumerate(RATES)
    }
    mistakes["Judge on the seeds of the race, not on those used for choosing."] = run.interval(BEST, choosing)
    ends = torch.tensor([expect_number(value, "the ends of the interval") for value in got[:2]]).double()
    expect(ends, expected, "(low, high)", mistakes, rtol=3e-3, atol=2e-3)
    said, right = got[2], rule(*expected.tolist(), d)
    require(said == right, f"for [{ends[0]:.2f}, {ends[1]:.2f}] with d = {d:g} the verdict is {right!r}; got {said!r}.")
    return run


race.add("the first is better", compare_race, 3.0, range(5), range(10, 20))
race.add("no difference that matters", compare_race, 0.1, range(5), range(30, 36))
race.add("too close to call", compare_race, 1.0, range(3), range(50, 55))


@race.case("rates are chosen on other seeds")
def chosen_elsewhere(answer):
    choosing, seeds = range(4), range(60, 68)
    run = compare_race(answer, 2.0, choosing, seeds)
    peeked = {
        name: sorted({rate for variant, rate, seed in run.calls if variant == name and seed in set(seeds)})
        for name in BEST
    }
    for name, rates in peeked.items():
        if len(rates) != 1:
            raise CaseFailed(f"{name!r} ran with the rates {rates} on the seeds of the race.", PEEKED)
    tried = {rate for variant, rate, seed in run.calls if seed in set(choosing)}
    require(tried == set(RATES), f"only the rates {sorted(tried)} were tried.", "Try each of the rates.")
