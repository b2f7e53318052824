"""Edit the norms of an existing model: recalibrate, freeze, fold, replace or convert them.

Each operation says what it did: ``print(report(model))``, of what it returned.
"""

from bncourse.layers.frozen import FrozenBatchNorm
from bncourse.surgery.averaging import average
from bncourse.surgery.conversion import convert_norms, replace_norms
from bncourse.surgery.folding import drop_redundant_biases, fold
from bncourse.surgery.freezing import freeze, unfreeze
from bncourse.surgery.norms import BATCH_NORMS
from bncourse.surgery.report import Report, report
from bncourse.surgery.statistics import recalibrate

__all__ = [
    "BATCH_NORMS",
    "FrozenBatchNorm",
    "Report",
    "average",
    "convert_norms",
    "drop_redundant_biases",
    "fold",
    "freeze",
    "recalibrate",
    "replace_norms",
    "report",
    "unfreeze",
]
