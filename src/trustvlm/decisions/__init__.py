"""From verdicts to decisions: accept, or let a person review; and what to look after.

`certify` finds a threshold with a guaranteed risk, `certify_coverage` one that accepts enough,
`certify_per_class` one for each class, `cheapest` the one that costs least; `one_per_group` draws
images that are independent of each other; `select_conformal` accepts labels of a batch with an
expected share of errors; `PredictionSets` lists the labels that an image may have; `Calibrator`
turns a score into P(correct).
`check_shots` looks for trouble among the shots, `OODGate` stops out-of-distribution images,
`DriftMonitor` tells when incoming images change, `ShiftReference` whether a run of images differs
from the calibration images. All on NumPy arrays.
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
from trustvlm.monitoring.ood import OODGate, OODThreshold, Scope
from trustvlm.monitoring.shift import RunStatistics, ShiftReference, ShiftTest
from trustvlm.risk_control.certify import DEFAULT_METHOD, METHODS, Certificate, certify
from trustvlm.risk_control.conformal_selection import ConformalSelection, select_conformal
from trustvlm.risk_control.costs import CostThreshold, cheapest
from trustvlm.risk_control.goals import (
    GUARANTEES,
    UNCALIBRATED_RULE,
    accept_on_agreement,
    certify_coverage,
    guarantee_p_value,
)
from trustvlm.risk_control.groups import one_per_group
from trustvlm.risk_control.per_class import ClassCertificates, certify_per_class
from trustvlm.risk_control.prediction_sets import SET_METHODS, PredictionSets, nonconformity

__all__ = [
    "CALIBRATORS",
    "DEFAULT_CALIBRATOR",
    "DEFAULT_METHOD",
    "GUARANTEES",
    "METHODS",
    "SET_METHODS",
    "UNCALIBRATED_RULE",
    "Calibrator",
    "Certificate",
    "ClassCertificates",
    "ConformalSelection",
    "CostThreshold",
    "DriftMonitor",
    "Health",
    "LogisticPrior",
    "OODGate",
    "OODThreshold",
    "PredictionSets",
    "RunStatistics",
    "Scope",
    "ShiftReference",
    "ShiftTest",
    "accept_on_agreement",
    "certify",
    "certify_coverage",
    "certify_per_class",
    "cheapest",
    "check_shots",
    "cross_fitted",
    "guarantee_p_value",
    "near_duplicates",
    "nonconformity",
    "one_per_group",
    "select_conformal",
]
