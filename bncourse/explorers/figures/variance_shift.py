"""Chapter 9: dropout before BatchNorm makes the variance in training another one than in evaluation."""

import torch
from torch import nn

from bncourse.devices import seeded
from bncourse.explorers.explorer import Explorer
from bncourse.layers import BatchNorm1d
from bncourse.plotting import BLUE, RED, figure
from bncourse.probes import outputs_of

INPUTS = {"zero mean": lambda x: x, "after a ReLU": torch.relu}
ORDERS = ["dropout, linear, BatchNorm", "linear, BatchNorm, dropout"]
COUNT, UNITS = 20_000, 32


def variance_shift() -> Explorer:
    """BatchNorm's input and output in training and in evaluation, for each dropout rate and order."""
    return Explorer(
        draw,
        title="Dropout in front of BatchNorm",
        question=(
            "BatchNorm promises a variance of 1. With dropout of 0.5 in front of it, what will the variance of its "
            "output be in evaluation, where nothing is dropped?"
        ),
        description=(
            "A unit after a linear layer with 32 inputs. Two histograms show the output of its BatchNorm: in training, "
            "and in evaluation with the statistics from that training. Bars above them mark one standard deviation on "
            "each side of the mean."
        ),
        grid={"order": ORDERS, "inputs": list(INPUTS), "rate": [0, 0.1, 0.2, 0.3, 0.5, 0.7]},
        start={"rate": 0.1},
        labels={"rate": "dropout rate", "inputs": "input"},
    )


def draw(order: str, inputs: str, rate: float):
    dropout, linear = nn.Dropout(rate), nn.utils.skip_init(nn.Linear, UNITS, 1, bias=False)
    norm = BatchNorm1d(1, affine=False, momentum=1.0)
    model = nn.Sequential(*((dropout, linear, norm) if order == ORDERS[0] else (linear, norm, dropout)))
    variances = {}
    fig, ax = figure(height=3.6)
    with seeded(0), torch.no_grad():
        linear.weight.normal_().div_(linear.weight.norm())
        x = INPUTS[inputs](torch.randn(COUNT, UNITS))
        for level, (mode, colour) in enumerate({"training": RED, "evaluation": BLUE}.items()):
            model.train(mode == "training")
            with outputs_of(model, BatchNorm1d) as calls:
                model(x)
            variances[mode] = calls[0].input.var().item(), calls[0].output.var().item()
            _histogram(ax, calls[0].output.flatten(), colour, mode, 1.2 - 0.12 * level)
    ax.set(xlim=(-4.5, 4.5), ylim=(0, 1.3), yticks=[], xlabel="output of BatchNorm")
    ax.spines["left"].set_visible(False)
    (before, after), (before_eval, after_eval) = variances["training"], variances["evaluation"]
    return fig, (
        f"Variance of BatchNorm's input: {before:.2f} in training and {before_eval:.2f} in evaluation, "
        f"{before_eval / before:.2f} times as much. Dropout keeps {1 - rate:g} of the values.\n"
        f"Variance of its output: {after:.2f} in training and {after_eval:.2f} in evaluation."
    )


def _histogram(ax, values, colour, name, level) -> None:
    heights, edges = torch.histogram(values, 90, range=(-4.5, 4.5))
    ax.stairs(heights / heights.max(), edges, color=colour, fill=True, alpha=0.35)
    ax.errorbar(values.mean(), level, xerr=values.std(), color=colour, marker="o", capsize=4)
    ax.annotate(name, (-4.4, level), color=colour, va="center")
