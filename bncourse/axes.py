"""A picture of what the norms differ in: which values share a mean and a variance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES, CHANNELS, GROUPS, GHOST_SIZE = 4, 6, 3, 2

# The rows (samples) and columns (channels) whose values share statistics with those of sample 0, channel 0; and how
# many values that are, for an input (N, C, H, W).
SHARED = {
    "batch": (SAMPLES, 1, "N·H·W values"),
    "ghost": (GHOST_SIZE, 1, "ghost size·H·W values"),
    "layer": (1, CHANNELS, "C·H·W values"),
    "rms": (1, CHANNELS, "C·H·W values, no mean"),
    "group": (1, CHANNELS // GROUPS, "C/G·H·W values"),
    "instance": (1, 1, "H·W values"),
}


def draw_axes(norms: Sequence[str] = ("batch", "layer", "group", "instance")) -> "Figure":
    """Draw a feature map (N, C, H, W) once for each norm; the coloured values share one mean and one variance.

    Rows are samples, columns are channels, and each tile is one channel of one sample, with its H x W values.

    Args:
        norms: names among "batch", "ghost", "layer", "rms", "group" and "instance".

    Raises:
        ValueError: a name that is none of these.
    """
    from matplotlib.patches import Rectangle

    from bncourse.plotting import NORM_STYLES, figure

    for norm in norms:
        if norm not in SHARED:
            raise ValueError(f"norms: expected names among {', '.join(SHARED)}, but got {norm!r}")
    columns = min(2, len(norms))
    rows = -(-len(norms) // columns)
    drawn, panels = figure(rows, columns, height=2.25 * rows, squeeze=False)
    panels = list(panels.flat)
    for panel, norm in zip(panels, norms, strict=False):
        shared_samples, shared_channels, count = SHARED[norm]
        for sample in range(SAMPLES):
            for channel in range(CHANNELS):
                shared = sample < shared_samples and channel < shared_channels
                colour = NORM_STYLES[norm].colour if shared else "#E8E8E8"
                for y in range(3):
                    for x in range(3):
                        corner = channel + 0.3 * x, SAMPLES - 1 - sample + 0.3 * y
                        panel.add_patch(Rectangle(corner, 0.27, 0.27, facecolor=colour))
        panel.set(xlim=(-0.1, CHANNELS), ylim=(-0.1, SAMPLES), aspect="equal", xticks=[], yticks=[])
        panel.set(title=f"{NORM_STYLES[norm].label}\n{count}", xlabel="channels C", ylabel="samples N")
        panel.grid(False)
        panel.spines[:].set_visible(False)
    for panel in panels[len(norms) :]:
        panel.set_axis_off()
    return drawn
