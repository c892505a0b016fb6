"""Numbers and arrays as JSON: one rule for what JSON cannot hold."""

from __future__ import annotations

import math
from typing import Any


def nan_to_null(value: Any) -> Any:
    """Replace NaN and infinities by None, in mappings and sequences too; JSON has neither.

    Examples
    --------
    >>> nan_to_null({"aurc": float("nan"), "n": 3, "rows": [1.5, float("inf")]})
    {'aurc': None, 'n': 3, 'rows': [1.5, None]}
    """
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
