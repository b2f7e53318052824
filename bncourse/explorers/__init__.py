"""The book's interactive figures: each function draws one and returns it as an ``Explorer``."""

from bncourse.explorers.activations import activations
from bncourse.explorers.axes import axes
from bncourse.explorers.batch_noise import batch_noise
from bncourse.explorers.batch_size import batch_size
from bncourse.explorers.running_statistics import running_statistics
from bncourse.explorers.scale_and_shift import scale_and_shift
from bncourse.explorers.variance_shift import variance_shift

__all__ = [
    "activations",
    "axes",
    "batch_noise",
    "batch_size",
    "running_statistics",
    "scale_and_shift",
    "variance_shift",
]
