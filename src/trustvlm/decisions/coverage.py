"""How much of new images a threshold accepts."""

from __future__ import annotations

import math

__all__ = ["coverage_lower_bound"]


def coverage_lower_bound(accepted: int, n: int, confidence_level: float = 0.95) -> float:
    """Lower bound of the share of new images at or above a threshold that accepts k of n.

    Holds for all thresholds at once, hence also for one that was chosen on these images.

    Notes
    -----
    Dvoretzky, Kiefer & Wolfowitz 1956 with the constant of Massart 1990, which holds for one side
    where the confidence is at least one half; a lower one is treated as one half.

    Examples
    --------
    >>> round(coverage_lower_bound(710, 1000), 3), coverage_lower_bound(0, 0)
    (0.671, 0.0)
    """
    if n == 0:
        return 0.0
    margin = math.sqrt(-math.log(min(1 - confidence_level, 0.5)) / (2 * n))
    return max(0.0, accepted / n - margin)
