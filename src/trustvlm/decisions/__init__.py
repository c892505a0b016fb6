"""From verdicts to decisions: accept, or let a person review; and what to look after.

`certify` finds a threshold with a guaranteed risk, `certify_coverage` one that accepts enough,
`certify_per_class` one for each class, `cheapest` the one that costs least; `Calibrator` turns a
score into P(correct).
`check_shots` looks for trouble among the shots, `OODThreshold` flags out-of-distribution images,
`DriftMonitor` tells when incoming images change. All on NumPy arrays.
"""

from __future__ import annotations

from trustvlm.calibration.calibrators import (
    CALIBRATORS,
    DEFAULT_CALIBRATOR,
    Calibrator,
    LogisticPrior,
    cross_fitted,
)
from trustvlm.data_quality.checks import Health, check_shots
from trustvlm.data_quality.duplicates import near_duplicates
from trustvlm.monitoring.drift import DriftMonitor
from trustvlm.monitoring.ood import OODThreshold, Scope
from trustvlm.risk_control.certify import DEFAULT_METHOD, METHODS, Certificate, certify
from trustvlm.risk_control.costs import CostThreshold, cheapest
from trustvlm.risk_control.goals import UNCALIBRATED_RULE, accept_on_agreement, certify_coverage
from trustvlm.risk_control.per_class import ClassCertificates, certify_per_class

__all__ = [
    "CALIBRATORS",
    "DEFAULT_CALIBRATOR",
    "DEFAULT_METHOD",
    "METHODS",
    "UNCALIBRATED_RULE",
    "Calibrator",
    "Certificate",
    "ClassCertificates",
    "CostThreshold",
    "DriftMonitor",
    "Health",
    "LogisticPrior",
    "OODThreshold",
    "Scope",
    "accept_on_agreement",
    "certify",
    "certify_coverage",
    "certify_per_class",
    "cheapest",
    "check_shots",
    "cross_fitted",
    "near_duplicates",
]
