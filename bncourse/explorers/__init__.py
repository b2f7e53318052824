"""The book's interactive figures: each function draws one and returns it as an ``Explorer``."""

from .activations import activations
from .axes import axes
from .batch_noise import batch_noise
from .batch_size import batch_size
from .running_statistics import running_statistics
from .scale_and_shift import scale_and_shift
from .variance_shift import variance_shift

__all__ = [
    "activations",
    "axes",
    "batch_noise",
    "batch_size",
    "running_statistics",
    "scale_and_shift",
    "variance_shift",
]
