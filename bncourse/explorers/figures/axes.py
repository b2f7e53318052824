"""Chapter 7: over which values each norm takes its mean and variance."""

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from bncourse.explorers.explorer import Explorer
from bncourse.layers import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from bncourse.plotting import BLACK, NORM_STYLES, figure
from bncourse.studies.variants import PerToken, partners

N, C, H, W = 3, 4, 4, 4
GAP = 0.6  # between the maps, in squares
GROUPS = 2
NORMS = {
    "BatchNorm2d(4)": "batch",
    "LayerNorm((4, 4, 4))": "layer",
    "LayerNorm(4), per token": "token",
    "InstanceNorm2d(4)": "instance",
    "GroupNorm(2, 4)": "group",
    "RMSNorm(4), per token": "rms",
}
LAYERS = {  # and what the values have in common that share statistics
    "batch": (BatchNorm2d(C), "its channel"),
    "layer": (LayerNorm((C, H, W)), "its sample"),
    "instance": (InstanceNorm2d(C), "its sample and its channel"),
    "group": (GroupNorm(GROUPS, C), "its sample and its group of channels"),
    "token": (PerToken(LayerNorm(C)), "its sample and its position"),
    "rms": (PerToken(RMSNorm(C)), "its sample and its position"),
}


def axes() -> Explorer:
    """The values that share their statistics with one chosen value, in a block of 3 x 4 x 4 x 4."""
    return Explorer(
        draw,
        title="Who shares a mean and a variance?",
        question=(
            "The ringed value is about to be normalized. For each norm, which other values of the block have a part in "
            "it? And for which norms does it matter what else is in the batch?"
        ),
        description=(
            "A block of 3 samples (one per row) and 4 channels (one per column), each with 4 x 4 values. One value is "
            "ringed, and all the values whose statistics normalize it are coloured."
        ),
        grid={"norm": list(NORMS), "sample": [1, 2, 3], "channel": [1, 2, 3, 4]},
    )


def draw(norm: str, sample: int, channel: int):
    name = NORMS[norm]
    shared = members(name, sample - 1, channel - 1)
    fig, ax = figure(height=3.9)
    fig.set_layout_engine("none")  # the layout never changes: much faster
    ax.set_position((0.16, 0, 0.84, 0.92))
    colours = np.where(shared, NORM_STYLES["layer" if name == "token" else name].colour, "#E8E8E8")
    left, bottom = np.meshgrid(range(W), range(H))
    corners = np.stack([left, bottom], axis=-1)  # of each value's square in its map, (H, W, 2)
    for n, c in np.ndindex(N, C):
        origin = c * (W + GAP), -n * (H + GAP)
        squares = [Rectangle(corner + origin, 0.94, 0.94) for corner in corners.reshape(-1, 2)]
        ax.add_collection(PatchCollection(squares, facecolors=colours[n, c].flatten()))
        if (n, c) == (sample - 1, channel - 1):
            ax.add_patch(Rectangle(np.add(origin, (0, H - 1)), 0.94, 0.94, fill=False, edgecolor=BLACK, linewidth=3))
    ax.set(xlim=(-0.2, C * (W + GAP)), ylim=(-(N - 1) * (H + GAP) - 0.2, H + 0.2), aspect="equal")
    ax.set_xticks([c * (W + GAP) + W / 2 for c in range(C)], [f"channel {c + 1}" for c in range(C)])
    ax.set_yticks([H / 2 - n * (H + GAP) for n in range(N)], [f"sample {n + 1}" for n in range(N)])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)

    what = "one root mean square" if name == "rms" else "one mean and variance"
    company = "matters" if shared.any(axis=(1, 2, 3)).sum() > 1 else "does not matter"
    return fig, (
        f"Sample {sample}, channel {channel}: {norm} takes {what} from {shared.sum()} values, "
        f"all those of {LAYERS[name][1]}. "
        f"The block has {shared.size // shared.sum()} such sets. The rest of the batch {company}."
    )


def members(name: str, n: int, c: int) -> np.ndarray:
    """Which values of the block share their statistics with those of sample ``n``, channel ``c``: (N, C, H, W)."""
    return partners(LAYERS[name][0], (N, C, H, W), at=(n, c, 0, 0)).numpy()
