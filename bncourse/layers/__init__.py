"""The normalization layers, drop-in for those of ``torch.nn``."""

from bncourse.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from bncourse.layers.frozen import FrozenBatchNorm
from bncourse.layers.masked import MaskedBatchNorm1d
from bncourse.layers.sample import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm, RMSNorm
from bncourse.layers.sync import SyncBatchNorm
from bncourse.layers.variants import BatchRenorm, GhostBatchNorm, WeightStandardizedConv2d, renorm_limits

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm",
    "FrozenBatchNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "MaskedBatchNorm1d",
    "RMSNorm",
    "SyncBatchNorm",
    "WeightStandardizedConv2d",
    "renorm_limits",
]
