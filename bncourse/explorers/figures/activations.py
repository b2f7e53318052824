"""Chapter 1: how the activations of every layer move while a network trains, without and with BatchNorm."""

import copy
from functools import cache

import numpy as np
import torch
from torch import nn

from bncourse.data import digits
from bncourse.devices import seeded
from bncourse.explorers.explorer import Explorer
from bncourse.models import fc_network
from bncourse.plotting import GREY, NORM_STYLES, figure
from bncourse.probes import outputs_of
from bncourse.training import evaluate, fit

STEPS = [0, 5, 10, 20, 50, 100, 200]
LAYERS = 5
ACTIVATIONS = {"ReLU": ("relu", nn.ReLU), "sigmoid": ("sigmoid", nn.Sigmoid)}


def activations() -> Explorer:
    """What enters the activation of each hidden layer after some training steps, plain against BatchNorm."""
    return Explorer(
        draw,
        title="What every layer receives while the network learns",
        question=(
            "After 200 training steps, where will the values in layer 5 be without a norm, and where will they be with "
            "BatchNorm? Will the ones with BatchNorm have stayed where they were at the start?"
        ),
        description=(
            "For each of five hidden layers, one below the other, the distribution of the values that enter its "
            "activation, over 200 images and all units: without a norm on the left, with BatchNorm on the right. "
            "A grey outline shows the same distribution before training."
        ),
        grid={"activation": list(ACTIVATIONS), "step": STEPS},
        labels={"step": "training steps"},
    )


def draw(activation: str, step: int):
    fig, columns = figure(1, 2, height=4.8, sharex=True, sharey=True)
    sentences = [f"After {step} training steps, in layer {LAYERS}:"]
    for norm, ax in zip(("none", "batch"), columns, strict=True):
        (first, _), (now, accuracy) = (_trained(norm, activation)[each] for each in (0, step))
        for layer in range(LAYERS):
            _ridge(ax, now[layer], -layer, color=NORM_STYLES[norm].colour, fill=True, alpha=0.5)
            _ridge(ax, first[layer], -layer, color=GREY, linewidth=1)
        ax.set(title=NORM_STYLES[norm].label, xlim=(-6, 6), xticks=[-5, 0, 5], xlabel="value before the activation")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        before, after = first[-1], now[-1]
        sentences.append(
            f"{NORM_STYLES[norm].label}: mean {after.mean():z.2f}, standard deviation {after.std():.2f} "
            f"(at first {before.mean():z.2f} and {before.std():.2f}); test accuracy {accuracy:.0%}."
        )
    columns[0].set(yticks=[-layer for layer in range(LAYERS)], yticklabels=range(1, LAYERS + 1), ylabel="hidden layer")
    return fig, "\n".join(sentences)


@cache
def _trained(norm: str, activation: str) -> dict[int, tuple[list[torch.Tensor], float]]:
    """At each of ``STEPS`` of one training run, what enters the activations, and the test accuracy."""
    word, kind = ACTIVATIONS[activation]
    data = digits().standardized()
    with seeded(0):
        model = fc_network([784, *[64] * LAYERS, 10], f"{norm} {word}")
    seen = {}

    def look(step: int) -> None:
        if step in STEPS:
            seen[step] = _inputs(model, kind, data.train.images[:200]), evaluate(model, data.test).accuracy

    look(0)
    fit(model, data.train, epochs=10, batch_size=64, learning_rate=0.1, on_step=look)
    return {step: seen.get(step, seen[max(seen)]) for step in STEPS}  # a quick run ends before the last of them


@torch.no_grad()
def _inputs(model: nn.Module, kind: type[nn.Module], images: torch.Tensor) -> list[torch.Tensor]:
    """What enters each layer of ``kind``, (images, units), in training mode; ``model`` is left as it was found."""
    twin = copy.deepcopy(model).train()
    with outputs_of(twin, kind) as calls:
        twin(images)
    return [call.input for call in calls]


def _ridge(ax, values: torch.Tensor, base: float, **look) -> None:
    """The distribution of ``values``, as high as its neighbours', standing on ``base``."""
    heights, edges = np.histogram(values.numpy(), bins=50)
    ax.stairs(base + 0.85 * heights / heights.max(), edges, baseline=base, **look)
