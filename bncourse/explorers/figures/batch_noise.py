"""Chapter 4: one sample, normalized in many batches."""

from functools import cache

import torch

from bncourse.data import digits
from bncourse.explorers.explorer import Explorer
from bncourse.functional import batch_norm
from bncourse.plotting import BLUE, GREY, figure, log_ticks

SIZES = [2, 4, 8, 16, 32, 64, 128, 256]
DRAWS = 2000
CHOICES = {"a typical one": 0.5, "an extreme one": 0.995}  # as quantiles of the feature


def batch_noise() -> Explorer:
    """One value of a sample after BatchNorm in 2,000 random batches, for each batch size."""
    return Explorer(
        draw,
        title="One sample in 2,000 batches",
        question=(
            "The sample never changes; only the other samples in its batch do. When you double the batch size, how "
            "much does the variance of its normalized value fall? And what is left of that value at batch size 2?"
        ),
        description=(
            "Above, a histogram of one sample's value after BatchNorm in 2,000 batches with other samples drawn at "
            "random. Below, the variance of that value against the batch size, on logarithmic axes, with the chosen "
            "size marked and a dashed line that falls as one over the batch size."
        ),
        grid={"batch_size": SIZES, "sample": list(CHOICES)},
        start={"batch_size": 8},
        labels={"sample": "the sample is"},
    )


def draw(batch_size: int, sample: str):
    values, variances = _normalized(sample)
    chosen, index = values[batch_size], SIZES.index(batch_size)

    fig, (above, below) = figure(2, height=5)
    above.hist(chosen, 120, range=(-2, 6), color=BLUE, alpha=0.5, histtype="stepfilled")
    above.set(xlim=(-2, 6), yticks=[], xlabel="the sample's value after BatchNorm")
    above.spines["left"].set_visible(False)
    below.loglog(SIZES, variances, color=BLUE)
    below.loglog(SIZES, [variances[-1] * SIZES[-1] / size for size in SIZES], "--", color=GREY, linewidth=1)
    below.plot(batch_size, variances[index], "o", color=BLUE, markersize=10)
    below.text(2, 0.02, "dashed: falls as 1/m", color=GREY)
    below.set(xlabel="batch size m", ylabel="variance", ylim=(0.001, 20))
    log_ticks(below, SIZES)
    log_ticks(below, [0.001, 0.01, 0.1, 1, 10], "y")
    text = f"Batch size {batch_size}: mean {chosen.mean():z.2f}, variance {chosen.var():.3g} over {DRAWS:,} batches."
    if index:
        ratio = variances[index] / variances[index - 1]
        text += f"\nThat is {ratio:.2f} of the variance at batch size {SIZES[index - 1]}."
    return fig, text


@cache
def _normalized(sample: str):
    """The sample's value in every batch, by batch size, and its variance for each size."""
    random = torch.Generator().manual_seed(0)
    pixels = digits().train.images.flatten(1)
    feature = pixels @ torch.randn(pixels.shape[1], generator=random)  # what a unit of a new first layer computes
    own = feature.sort().values[round(CHOICES[sample] * (len(feature) - 1))]
    values = {}
    for size in SIZES:
        others = feature[torch.randint(len(feature), (size - 1, DRAWS), generator=random)]
        batches = torch.cat([own.expand(1, DRAWS), others])  # (size, DRAWS): every column is a batch
        values[size] = batch_norm(batches, None, None, training=True)[0].numpy()
    return values, [float(each.var()) for each in values.values()]
