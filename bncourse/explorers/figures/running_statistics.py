"""Chapter 3: how running statistics follow the batches, in both conventions of ``momentum``."""

from itertools import accumulate

import numpy as np

from bncourse.explorers.explorer import Explorer
from bncourse.plotting import BLUE, GREY, ORANGE, figure

BATCHES = 40
MEAN, DEVIATION = 2.0, 2.0  # of the feature, over all data


def running_statistics() -> Explorer:
    """The running mean over 40 batches, for each momentum and batch size."""
    return Explorer(
        draw,
        title="One momentum, two conventions",
        question=(
            "A Keras model trains well with momentum 0.99. You copy the number into BatchNorm1d(64, momentum=0.99). "
            "What will the running mean look like: late, smooth, or as noisy as the batches themselves?"
        ),
        description=(
            "The running mean against the number of batches seen, in two conventions. Grey dots mark each batch's own "
            "mean, and a dashed line the mean of all the data. Both running means start at zero."
        ),
        grid={"momentum": [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99], "batch_size": [4, 32]},
        start={"momentum": 0.1, "batch_size": 32},
    )


def draw(momentum: float, batch_size: int):
    values = np.random.default_rng(0).normal(MEAN, DEVIATION, size=(BATCHES, 32))[:, :batch_size]
    means = values.mean(axis=1)
    fig, ax = figure(height=4)
    ax.axhline(MEAN, color=GREY, linestyle="--", linewidth=1)
    ax.plot(range(1, BATCHES + 1), means, "o", color="#B5B5B5")
    sentences = [f"The mean of all the data is {MEAN:g}."]
    for name, weight, colour in (("PyTorch", momentum, BLUE), ("Keras", 1 - momentum, ORANGE)):
        running = _follow(means, weight)
        ax.plot(running, color=colour, linewidth=2.5, label=f"{name}: {1 - weight:g} × running + {weight:g} × new")
        sentences.append(
            f"{name}: {1 - (1 - weight) ** 10:.0%} warmed up after 10 batches; "
            f"at the end it moves by {np.abs(np.diff(running[-21:])).mean():.3f} per batch."
        )
    ax.set(xlabel="batches seen", ylabel="mean", xlim=(0, BATCHES + 0.5), ylim=(-0.8, 4.8))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), handlelength=1.2)
    return fig, "\n".join(sentences)


def _follow(means: np.ndarray, weight: float) -> np.ndarray:
    """The running mean before the first batch and after each: running = (1 - weight) running + weight new."""
    return np.array(list(accumulate(means, lambda running, new: (1 - weight) * running + weight * new, initial=0.0)))
