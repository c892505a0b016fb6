"""From verdicts to decisions: accept, or let a person review; and what to look after.

`certify` finds a threshold with a guaranteed risk, `Calibrator` turns a score into P(correct).
`check_shots` looks for trouble among the shots, `Scope` flags images that resemble no class,
`DriftMonitor` tells when incoming images change. All on NumPy arrays.
"""

from __future__ import annotations

from trustvlm.decisions.calibrator import CALIBRATORS, DEFAULT_CALIBRATOR, Calibrator
from trustvlm.decisions.certify import Certificate, certify
from trustvlm.decisions.drift import DriftMonitor
from trustvlm.decisions.duplicates import near_duplicates
from trustvlm.decisions.health import Health, check_shots
from trustvlm.decisions.methods import DEFAULT_METHOD, METHODS
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
    "DriftMonitor",
    "Health",
    "Scope",
    "accept_on_agreement",
    "certify",
    "check_shots",
    "near_duplicates",
]
