"""The risk-coverage curve of the stored calibration, for the slider of the review page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trustvlm import metrics
from trustvlm.pipeline.calibration import Calibration

__all__ = ["curve_of"]

_MOST_POINTS = 400


def curve_of(calibration: Calibration | None) -> dict[str, Any] | None:
    """Return what would be accepted at which risk, as plain JSON values; None uncalibrated.

    The risk is what was observed on the calibration images. Only the certified point, if there is
    one, holds for new images; `certified` is None where nothing is certified, or every class has a
    threshold of its own.
    """
    if calibration is None or not len(calibration.labels):
        return None
    curve = metrics.risk_coverage(calibration.result.confidence, calibration.correct)
    n = len(curve.coverage)
    kept = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(int))
    rule = calibration.certificate
    threshold = getattr(rule, "threshold", math.nan) if rule is not None else math.nan
    certified = None
    if rule is not None and rule.certified and not math.isnan(threshold):
        bound = getattr(rule, "risk_bound", math.nan)
        certified = {
            "threshold": float(threshold),
            "coverage": float(rule.coverage),
            "risk_bound": None if math.isnan(bound) else float(bound),
        }
    return {
        "images": len(calibration.labels),
        "points": [
            {
                "threshold": float(curve.thresholds[i]),
                "coverage": float(curve.coverage[i]),
                "risk": float(curve.risk[i]),
                "accepted": int(curve.accepted[i]),
                "wrong": int(curve.errors[i]),
            }
            for i in kept
        ],
        "certified": certified,
        "statement": calibration.statement,
    }
