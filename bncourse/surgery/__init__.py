"""Change a model that is already there: recalibrate, freeze or fold its batch norms, drop the biases they cancel."""

from bncourse.layers.frozen import FrozenBatchNorm
from bncourse.surgery.folding import drop_redundant_biases, fold
from bncourse.surgery.freezing import freeze, unfreeze
from bncourse.surgery.norms import BATCH_NORMS
from bncourse.surgery.report import Report, report
from bncourse.surgery.statistics import recalibrate

__all__ = [
    "BATCH_NORMS",
    "FrozenBatchNorm",
    "Report",
    "drop_redundant_biases",
    "fold",
    "freeze",
    "recalibrate",
    "report",
    "unfreeze",
]
