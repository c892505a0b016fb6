"""From verdicts to decisions: accept, or let a person review; and what to look after.

`certify` finds a threshold with a guaranteed risk, `certify_coverage` one that accepts enough,
`certify_per_class` one for each class, `cheapest` the one that costs least; `Calibrator` turns a
score into P(correct).
`check_shots` looks for trouble among the shots, `Scope` flags images that resemble no class,
`DriftMonitor` tells when incoming images change. All on NumPy arrays.
"""

from __future__ import annotations

from trustvlm.decisions.calibrator import CALIBRATORS, DEFAULT_CALIBRATOR, Calibrator
from trustvlm.decisions.certify import Certificate, certify
from trustvlm.decisions.costs import CostThreshold, cheapest
from trustvlm.decisions.coverage_goal import certify_coverage
from trustvlm.decisions.cross_fitting import cross_fitted
from trustvlm.decisions.drift import DriftMonitor
from trustvlm.decisions.duplicates import near_duplicates
from trustvlm.decisions.health import Health, check_shots
from trustvlm.decisions.methods import DEFAULT_METHOD, METHODS
from trustvlm.decisions.per_class import ClassCertificates, certify_per_class
from trustvlm.decisions.scope import Scope
from trustvlm.decisions.uncalibrated import UNCALIBRATED_RULE, accept_on_agreement

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
