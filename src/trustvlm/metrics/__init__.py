"""How good is a confidence score at telling right from wrong predictions.

All metrics take `(confidence, correct)`: higher confidence is more trusted, correct is boolean or 0
and 1. They work in float64, need nothing but NumPy, and return fractions.

`evaluate` gives every metric from one sort; each is also a function of its own. `register` adds one
of your own to all of them. `risk_coverage`
gives the operating points and `risk_band` how far they would move; `risk_at_threshold`,
`risk_at_coverage` and `coverage_at_risk` read one of them, with an interval. `bootstrap` gives
intervals of metrics, `paired_bootstrap` a comparison of two confidences on the same images,
`by_group` a metric of each group. `nll`, `brier` and `ece` measure probabilities.

Convention `exact`, the default, does not depend on the order of the samples, ties included.
Convention `trustvlm` repeats the rules of the paper's released script, to compare with its numbers.

>>> from trustvlm import metrics
>>> round(metrics.auroc([0.9, 0.6, 0.4], [1, 1, 0]), 3)
1.0
"""

from __future__ import annotations

from trustvlm.metrics.bootstrap import Interval, bootstrap
from trustvlm.metrics.calibration_error import (
    Reliability,
    brier,
    ece,
    ece_debiased,
    ece_if_calibrated,
    ece_sweep,
    nll,
    probability_quality,
    reliability,
    rms_calibration_error,
)
from trustvlm.metrics.conventions import CONVENTIONS
from trustvlm.metrics.curve import RiskBand, RiskCoverageCurve, risk_band, risk_coverage
from trustvlm.metrics.evaluation import (
    Evaluation,
    accuracy,
    augrc,
    aupr_error,
    aupr_success,
    aurc,
    auroc,
    compute,
    eaugrc,
    eaurc,
    evaluate,
    fpr95,
)
from trustvlm.metrics.groups import GroupMetric, by_group
from trustvlm.metrics.info import METRICS, MetricInfo, get, names, register, unregister
from trustvlm.metrics.operating_points import (
    CoverageAtRisk,
    OperatingPoint,
    coverage_at_risk,
    risk_at_coverage,
    risk_at_threshold,
)
from trustvlm.metrics.paired import PairedDifference, paired_bootstrap, paired_bootstraps

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "CoverageAtRisk",
    "Evaluation",
    "GroupMetric",
    "Interval",
    "MetricInfo",
    "OperatingPoint",
    "PairedDifference",
    "Reliability",
    "RiskBand",
    "RiskCoverageCurve",
    "accuracy",
    "augrc",
    "aupr_error",
    "aupr_success",
    "aurc",
    "auroc",
    "bootstrap",
    "brier",
    "by_group",
    "compute",
    "coverage_at_risk",
    "eaugrc",
    "eaurc",
    "ece",
    "ece_debiased",
    "ece_if_calibrated",
    "ece_sweep",
    "evaluate",
    "fpr95",
    "get",
    "names",
    "nll",
    "paired_bootstrap",
    "paired_bootstraps",
    "probability_quality",
    "register",
    "reliability",
    "risk_at_coverage",
    "risk_at_threshold",
    "risk_band",
    "risk_coverage",
    "rms_calibration_error",
    "unregister",
]
