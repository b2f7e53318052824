"""Chapter 8: what the batch size does to a batch's statistics, and to the accuracy with three norms.

The accuracies come from ``batch_size.json``, which ``tools/batch_size_runs.py`` made.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from bncourse.data import digits
from bncourse.devices import seeded
from bncourse.explorers.explorer import Explorer
from bncourse.models import fc_network, small_cnn
from bncourse.plotting import GREY, NORM_STYLES, band, direct_labels, figure, log_ticks

SIZES = [2, 4, 8, 16, 32, 64]
SEEDS = 5
NORMS = ["batch", "group", "layer"]
NETWORKS = {
    "fully connected": lambda norm: fc_network([784, 96, 96, 96, 10], norm),
    "convolutional": lambda norm: small_cnn(norm, channels=1, width=8),
}
RUNS = Path(__file__).with_name("batch_size.json")
DRAWS = 2000


def batch_size() -> Explorer:
    """How far one batch's mean is off, and what three norms reach, for each batch size."""
    return Explorer(
        draw,
        title="What small batches cost",
        question=(
            "BatchNorm at batch size 2: in which of the two networks will it fail, the fully connected or the "
            "convolutional one? Would better statistics in evaluation rescue it?"
        ),
        description=(
            "Above, a histogram of how far the batch mean of one unit or channel is from its mean over all the data. "
            "Below, test accuracy against batch size with BatchNorm, GroupNorm and LayerNorm: means over "
            f"{SEEDS} seeds with 95% intervals as bands. A dotted line shows BatchNorm with statistics recomputed from "
            "the training set. A dashed vertical line marks the chosen batch size."
        ),
        grid={"network": list(NETWORKS), "batch_size": SIZES},
    )


def draw(network: str, batch_size: int):
    accuracy, index = _accuracy()[network], SIZES.index(batch_size)
    errors = _mean_errors(network, batch_size)
    fig, (above, below) = figure(2, height=5, height_ratios=[2, 3])
    above.hist(errors.numpy(), 100, range=(-2.5, 2.5), color=GREY, alpha=0.6, histtype="stepfilled")
    above.set(xlim=(-2.5, 2.5), yticks=[], xlabel="error of a batch's mean, in standard deviations")
    above.spines["left"].set_visible(False)
    below.axvline(batch_size, color=GREY, linestyle="--", linewidth=1)
    for norm in NORMS:
        band(below, SIZES, accuracy[norm], norm)
    below.plot(SIZES, accuracy["recalibrated"].mean(0), ":", color=NORM_STYLES["batch"].colour, label="recomputed")
    log_ticks(below, SIZES)
    below.set(xlabel="batch size", ylabel="test accuracy, %", ylim=(30, 103))
    direct_labels(below)
    reached = {NORM_STYLES[norm].label: accuracy[norm][:, index].mean() for norm in NORMS}
    reached["BatchNorm with statistics recomputed"] = accuracy["recalibrated"][:, index].mean()
    return fig, (
        f"Batch size {batch_size}: a batch's mean is off by {errors.abs().mean():.2f} standard deviations on average.\n"
        f"Test accuracy: {', '.join(f'{name} {value:.1f}%' for name, value in reached.items())}. "
        "All were trained for four epochs, so with larger batches they took fewer steps."
    )


@cache
def _accuracy() -> dict[str, dict[str, np.ndarray]]:
    """Test accuracy in percent, (seeds, batch sizes), by network and norm."""
    kept = json.loads(RUNS.read_text())["accuracy"]
    return {network: {norm: 100 * np.array(runs) for norm, runs in norms.items()} for network, norms in kept.items()}


@cache
def _mean_errors(network: str, batch_size: int) -> torch.Tensor:
    """Error of the batch mean of one output of the untrained first layer, in standard deviations, in many batches."""
    images, random = digits().train.images, torch.Generator().manual_seed(0)
    with seeded(0), torch.no_grad():
        first = next(m for m in NETWORKS[network]("batch").modules() if hasattr(m, "weight"))
        inputs = images.flatten(1) if isinstance(first, torch.nn.Linear) else images
        outputs = first(inputs)[:, 0]  # (N,) or (N, H, W)
    own_means = outputs.flatten(1).mean(1) if outputs.ndim > 1 else outputs
    chosen = torch.randint(len(images), (DRAWS, batch_size), generator=random)
    return (own_means[chosen].mean(1) - outputs.mean()) / outputs.std()
