"""The normalization layers, drop-in for those of ``torch.nn``."""

from bncourse.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
