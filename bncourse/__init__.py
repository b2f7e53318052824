"""Batch normalization: the layers, readable and drop-in for torch.nn."""

from bncourse import moved  # noqa: F401
from bncourse.layers import *  # noqa: F403
from bncourse.layers import __all__  # noqa: F401
