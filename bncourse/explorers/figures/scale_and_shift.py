"""Chapter 2: what gamma, beta and eps do to a distribution."""

import math

import numpy as np

from bncourse.explorers.explorer import Explorer
from bncourse.plotting import BLUE, GREY, figure

BATCH = 0.3 + 0.1 * np.random.default_rng(0).standard_gamma(4, size=4000) / 2  # skewed: a norm does not make a Gaussian


def scale_and_shift() -> Explorer:
    """One feature before and after BatchNorm, for each gamma, beta and eps."""
    return Explorer(
        draw,
        title="What γ, β and ε do to one feature",
        question=(
            "ε is there to prevent division by zero, and this feature's variance is 0.01. "
            "How large must ε be before the standard deviation of the output falls visibly below γ?"
        ),
        description=(
            "Two histograms, one above the other: a feature's values in a batch before BatchNorm, narrow and skewed, "
            "and the same values after it. A dot and a bar mark the mean and one standard deviation on each side."
        ),
        grid={"gamma": [0.5, 1, 2], "beta": [-2, 0, 2], "eps": [1e-5, 1e-3, 1e-2, 1e-1]},
        start={"gamma": 1, "beta": 0},
        labels={"gamma": "γ (weight)", "beta": "β (bias)", "eps": "ε (eps)"},
    )


def draw(gamma: float, beta: float, eps: float):
    mean, variance = BATCH.mean(), BATCH.var()
    output = gamma * (BATCH - mean) / math.sqrt(variance + eps) + beta
    fig, (before, after) = figure(2, height=3.8, sharex=True)
    _histogram(before, BATCH, GREY, "before")
    _histogram(after, output, BLUE, "after")
    after.set(xlim=(-5, 8), xlabel="value of the feature")
    spread = output.std()
    return fig, (
        f"Before: mean {mean:.2f}, standard deviation {math.sqrt(variance):.2f}.\n"
        f"After: mean {output.mean():z.2f}, standard deviation {spread:.2f}, which is γ × {spread / gamma:.3f}."
    )


def _histogram(ax, values, colour, name) -> None:
    heights, *_ = ax.hist(values, 50, color=colour, alpha=0.5, histtype="stepfilled")
    level = 1.12 * heights.max()
    ax.errorbar(values.mean(), level, xerr=values.std(), color=colour, marker="o", capsize=5, linewidth=2.5)
    ax.set(ylim=(0, 1.28 * heights.max()), yticks=[], title=name)
    ax.spines["left"].set_visible(False)
