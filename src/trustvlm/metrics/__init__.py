"""How good is a confidence score at telling right from wrong predictions.

All metrics take `(confidence, correct)`, work in float64 and need nothing but NumPy.

>>> from trustvlm import metrics
>>> round(metrics.auroc([0.9, 0.6, 0.4], [1, 1, 0]), 3)
1.0
"""

from __future__ import annotations

from trustvlm.metrics.curve import RiskCoverageCurve, risk_coverage
from trustvlm.metrics.discrimination import aupr_error, aupr_success, auroc, fpr95
from trustvlm.metrics.evaluation import METRICS, Evaluation, evaluate
from trustvlm.metrics.ranking import CONVENTIONS
from trustvlm.metrics.selective import accuracy, augrc, aurc, eaurc

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "Evaluation",
    "RiskCoverageCurve",
    "accuracy",
    "augrc",
    "aupr_error",
    "aupr_success",
    "aurc",
    "auroc",
    "eaurc",
    "evaluate",
    "fpr95",
    "risk_coverage",
]
