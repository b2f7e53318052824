"""Look at a model, its optimizer and its data, and report the mistakes that normalization makes easy.

Three levels of rules: *static* ones look at modules, optimizer and checkpoint; *forward* ones run a copy of the model
on batches; *watch* ones look on while you train and evaluate. ``print(diagnose(model, batch))``.
"""

from bncourse.doctor.diagnosis import diagnose
from bncourse.doctor.finding import SEVERITIES, Diagnosis, Finding
from bncourse.doctor.rule import RULES, Rule
from bncourse.doctor.watching import watch

__all__ = ["RULES", "SEVERITIES", "Diagnosis", "Finding", "Rule", "diagnose", "watch"]
