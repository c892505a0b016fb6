"""Metrics that have no value say so: NaN with a warning, never a silent number."""

from __future__ import annotations

import math
import warnings

from trustvlm.exceptions import UndefinedMetricWarning

__all__ = ["undefined"]


def undefined(metric: str, because: str) -> float:
    """Warn that a metric has no value on these samples, and return NaN."""
    warnings.warn(f"{metric} is undefined: {because}.", UndefinedMetricWarning, stacklevel=5)
    return math.nan
