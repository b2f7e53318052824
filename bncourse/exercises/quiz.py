"""Questions with numbers of their own for each class: ``bncourse quiz --class NAME --chapters 1-5 --out FILE.html``.

Each of the twenty is a function of ``draw``, which picks numbers that the class's name decides; it returns them, the
question, the answer, its unit and how one finds it. The answers are computed here and, in the tests, by torch.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from bncourse.files import write_whole

Draw = Callable[[Sequence[Any]], Any]
QUESTIONS: dict[Callable[[Draw], tuple], int] = {}  # each with the chapter that answers it


class Question(NamedTuple):
    """A question, its answer, how one finds it, and the numbers in it, by name."""

    name: str
    chapter: int
    text: str
    answer: float
    unit: str
    why: str
    numbers: dict[str, Any]


def question(chapter: int) -> Callable:
    def add(function: Callable[[Draw], tuple]) -> Callable[[Draw], tuple]:
        QUESTIONS[function] = chapter
        return function

    return add


def questions(of_class: str, chapters: range) -> list[Question]:
    """The questions of a class on these chapters, always the same for its name.

    Raises:
        ValueError: no question belongs to these chapters.
    """
    found = []
    for function in (function for function, chapter in QUESTIONS.items() if chapter in chapters):
        seed = hashlib.sha256(f"{of_class}\n{function.__name__}".encode()).digest()
        numbers, text, answer, unit, why = function(random.Random(seed).choice)
        name = function.__name__.replace("_", "-")
        found.append(
            Question(
                name,
                QUESTIONS[function],
                text.format(**numbers),
                answer,
                unit,
                why.format(answer=answer, **numbers),
                numbers,
            )
        )
    if not found:
        raise ValueError(f"chapters must have a question, got {chapters.start}-{chapters.stop - 1}")
    return found


@question(chapter=5)
def parameters(draw):
    n = {"c": draw([24, 48, 96, 160, 192, 320])}
    return n, "How many parameters does nn.BatchNorm2d({c}) have?", 2 * n["c"], "", "γ and β: 2 · {c}."


@question(chapter=5)
def buffers(draw):
    n = {"c": draw([20, 40, 72, 144, 288])}
    text = "How many numbers are in the buffers of nn.BatchNorm1d({c})?"
    return n, text, 2 * n["c"] + 1, "", "Running mean, running variance and one counter: 2 · {c} + 1."


@question(chapter=2)
def values_per_mean(draw):
    n = {"n": draw([4, 6, 12, 24]), "c": draw([16, 32, 48]), "h": draw([5, 7, 9, 14])}
    text = "A batch has the shape ({n}, {c}, {h}, {h}). How many values go into each of BatchNorm2d's means?"
    return n, text, n["n"] * n["h"] ** 2, "", "{n} samples times {h} · {h} positions."


@question(chapter=7)
def group_means(draw):
    n = {"n": draw([6, 10, 14]), "g": draw([2, 4, 8]), "c": 32}
    text = "How many means does nn.GroupNorm({g}, {c}) compute for a batch of {n} images?"
    return n, text, n["n"] * n["g"], "", "{g} groups in each of {n} samples."


@question(chapter=7)
def instance_means(draw):
    n = {"n": draw([5, 9, 11]), "c": draw([12, 24, 36])}
    text = "How many means does nn.InstanceNorm2d({c}) compute for a batch of {n} images?"
    return n, text, n["n"] * n["c"], "", "One for each channel of each sample: {n} · {c}."


@question(chapter=2)
def normalized(draw):
    n = {"a": draw([1, 2, 3]), "b": draw([4, 5, 6]), "c": draw([8, 9, 11])}
    values = [n["a"], n["b"], n["c"]]
    mean = sum(values) / 3
    variance = sum((v - mean) ** 2 for v in values) / 3
    text = (
        "In a batch of three, a feature has the values {a}, {b}, {c}, and ε = 0. What does {c} become, before γ and β "
        "(two decimals)?"
    )
    why = "Subtract the mean and divide by the root of the biased variance, the sum of squares divided by 3."
    return n, text, round((n["c"] - mean) / math.sqrt(variance), 2), "", why


@question(chapter=2)
def small_spread(draw):
    n = {"s": draw([0.002, 0.003, 0.004, 0.005]), "eps": draw(["1e-5", "2e-5", "1e-4"])}
    answer = round(n["s"] / math.sqrt(n["s"] ** 2 + float(n["eps"])), 2)
    text = (
        "A feature's standard deviation is {s} (biased), and eps={eps}. What is the standard deviation of BatchNorm's "
        "output (two decimals)?"
    )
    return n, text, answer, "", "σ / √(σ² + ε) = {answer}."


@question(chapter=3)
def remembered(draw):
    n = {"old": draw([0.5, 2.0, 3.0]), "new": draw([1.0, 4.0, 6.0]), "m": draw([0.05, 0.1, 0.2, 0.3])}
    answer = round((1 - n["m"]) * n["old"] + n["m"] * n["new"], 3)
    text = "The running mean is {old}, the batch's mean is {new}, and momentum={m}. What is the next running mean?"
    return n, text, answer, "", "(1 − {m}) · {old} + {m} · {new} = {answer}: momentum is the weight of the new value."


@question(chapter=3)
def unbiased_memory(draw):
    n = {"v": draw([1.5, 2.0, 3.0]), "n": draw([2, 4, 5]), "h": draw([1, 2])}
    count = n["n"] * n["h"] ** 2
    text = (
        "In a batch of {n} maps of {h} x {h}, a channel's biased variance is {v}. Which variance goes into the running "
        "average (two decimals)?"
    )
    why = "The unbiased one: n / (n − 1) times as large, with n = {n} · {h}²."
    return n, text, round(n["v"] * count / (count - 1), 2), "", why


@question(chapter=3)
def warm_up(draw):
    n = {"k": draw([5, 8, 12, 15, 20]), "m": draw([0.05, 0.1, 0.2])}
    answer = round(100 * (1 - (1 - n["m"]) ** n["k"]))
    text = "After {k} steps with momentum={m}, what share of the running mean comes from data (whole percent)?"
    return n, text, answer, "%", "1 − (1 − {m})^{k} = {answer}%."


@question(chapter=5)
def from_keras(draw):
    n = {"k": draw([0.9, 0.95, 0.98, 0.99, 0.999])}
    text = "Keras code has momentum={k}. What momentum is that in PyTorch?"
    why = "1 − {k}: in Keras it is the weight of the old value, in PyTorch that of the new one."
    return n, text, round(1 - n["k"], 3), "", why


@question(chapter=4)
def noise(draw):
    n = {"m": draw([16, 64, 100, 256])}
    text = (
        "A batch has {m} independent samples. By what factor is the standard deviation of its mean smaller than that "
        "of one sample?"
    )
    return n, text, round(math.sqrt(n["m"])), "", "√{m} = {answer}."


@question(chapter=2)
def furthest(draw):
    n = {"m": draw([5, 10, 17, 26, 37])}
    text = (
        "In a batch of {m}, how far from the batch's mean can a value lie at most, measured in standard deviations of "
        "the batch (one decimal)?"
    )
    return n, text, round(math.sqrt(n["m"] - 1), 1), "", "√({m} − 1) = {answer}."


@question(chapter=4)
def scaled_gradient(draw):
    n = {"a": draw([2, 4, 5, 8, 20])}
    text = (
        "You multiply the weights before a BatchNorm by {a}. By what factor does the gradient with respect to them "
        "shrink (ε = 0, training)?"
    )
    return (
        n,
        text,
        n["a"],
        "",
        "The output stays the same. As a function of weights {a} times as large, the loss is {a} times as flat.",
    )


@question(chapter=9)
def variance_shift(draw):
    n = {"p": draw([0.1, 0.2, 0.25, 0.4, 0.5]), "mean": draw([1, 2, 3])}
    answer = round(1 / (1 + (1 / (1 - n["p"]) - 1) * (1 + n["mean"] ** 2)), 2)
    text = (
        "Inputs with mean {mean} and variance 1 go through nn.Dropout({p}) and then into a BatchNorm. What is the "
        "variance in evaluation, as a fraction of the stored one (two decimals)?"
    )
    return n, text, answer, "", "1 / (1 + (1/k − 1) · (1 + {mean}²)) with k = 1 − {p}."


@question(chapter=14)
def merged(draw):
    n = {"a": draw([1, 2]), "b": draw([6, 8, 10]), "v": draw([1.0, 2.0])}
    answer = n["v"] + ((n["b"] - n["a"]) / 2) ** 2
    text = (
        "Two devices hold the same number of values, with means {a} and {b} and a biased variance of {v} on each. What "
        "is the biased variance of all the values together (two decimals)?"
    )
    return n, text, round(answer, 2), "", "{v} + the variance of the means = {answer:g}."


@question(chapter=14)
def uneven_factor(draw):
    n = {"a": draw([20, 24, 28]), "b": draw([12, 8, 4])}
    text = (
        "Two devices, with {a} and {b} images, each take their own mean loss, and DistributedDataParallel takes the "
        "mean of the gradients. By what factor must the second device multiply its loss, so that all images count the "
        "same (two decimals)?"
    )
    return n, text, round(2 * n["b"] / (n["a"] + n["b"]), 2), "", "{b} · 2 / ({a} + {b}) = {answer}."


@question(chapter=13)
def folded_bias(draw):
    n = {"g": draw([2.0, 3.0]), "mu": draw([0.5, 1.0, 2.0]), "v": draw([4.0, 16.0, 25.0]), "b": draw([1.0, -1.0])}
    answer = round(n["b"] - n["mu"] * n["g"] / math.sqrt(n["v"]), 2)
    text = (
        "A norm with γ = {g}, β = {b}, running mean {mu}, running variance {v} and ε = 0 is folded into a convolution "
        "that has no bias. What is the new convolution's bias (two decimals)?"
    )
    return n, text, answer, "", "β − μ · γ / σ = {answer}."


@question(chapter=1)
def judged(draw):
    n = {"mean": draw([1.2, 2.0, 3.5]), "s": draw([1.5, 2.5, 4.0]), "t": 2.262, "n": 10}
    low = round(n["mean"] - n["t"] * n["s"] / math.sqrt(n["n"]), 2)
    text = (
        "Ten paired differences have a mean of {mean} and a standard deviation of {s} (t = {t}). Where is the low end "
        "of their 95% interval (two decimals)?"
    )
    return n, text, low, "", "{mean} − {t} · {s} / √10 = {answer}."


@question(chapter=15)
def kept_bytes(draw):
    n = {"n": draw([8, 16, 32]), "c": draw([32, 64]), "h": draw([16, 28, 32])}
    answer = round(n["n"] * n["c"] * n["h"] ** 2 * 4 / 2**20, 2)
    text = (
        "In float32 BatchNorm2d keeps its input, of shape ({n}, {c}, {h}, {h}), for the backward pass. How many MiB is "
        "that (two decimals)?"
    )
    return n, text, answer, "MiB", "{n} · {c} · {h}² values of 4 bytes."


STYLE = """body { font: 17px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
li { margin-bottom: 1.1rem; } .answer { border-bottom: 1px solid #888; display: inline-block; min-width: 9rem; }
@media print { li { break-inside: avoid; } }"""


def page(of_class: str, asked: list[Question], key: bool) -> str:
    """The sheet of a class, or its key, as HTML."""
    rows = ""
    for one in asked:
        answer = (
            f"<b>{f'{one.answer:g} {one.unit}'.strip()}</b>. {escape(one.why)} (Chapter {one.chapter})"
            if key
            else f'<span class="answer"></span> {one.unit}'
        )
        rows += f"<li>{escape(one.text)}<br>{answer}</li>"
    count = f"{len(asked)} question{'' if len(asked) == 1 else 's'}"
    title = f"Batch normalization: {count}{' with answers' if key else ''}, {escape(of_class)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    name = "" if key else '<p>Name: <span class="answer"></span></p>'
    body = f"<h1>{title}</h1>{name}<ol>{rows}</ol>"
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def write_quiz(of_class: str, chapters: range, out: Path) -> Path:
    """Write the sheet to OUT and its key beside it; returns the key's path.

    Raises:
        ValueError: no question belongs to these chapters.
    """
    asked = questions(of_class, chapters)
    key = out.with_name(f"{out.stem}-key{out.suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page(of_class, asked, key=False).encode())
    write_whole(key, page(of_class, asked, key=True).encode())
    return key
