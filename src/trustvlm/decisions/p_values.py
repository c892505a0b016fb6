"""P-values for the hypothesis that a risk is too high, from errors among accepted images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trustvlm.decisions.binomial import binomial_p_value

__all__ = ["PValue", "hoeffding_bentkus_p_value"]

PValue = Callable[[ArrayLike, ArrayLike, float], NDArray[np.float64]]


def hoeffding_bentkus_p_value(
    losses: ArrayLike, accepted: ArrayLike, risk: float
) -> NDArray[np.float64]:
    """P-value of the hypothesis that the mean of losses in [0, 1] exceeds `risk`.

    Parameters
    ----------
    losses, accepted
        Sum of the losses, and of how many images; for right or wrong, the errors among accepted.
        With no images the value is 1.
    risk
        In (0, 1).

    Notes
    -----
    The smaller of Hoeffding's p-value, exp(-m h(min(mean, risk), risk)) with the relative entropy
    h, and Bentkus', e P(Binomial(m, risk) <= ceil(sum)): Bates et al. 2021 (arXiv 2101.02703).
    For losses of 0 and 1 the exact binomial p-value is never larger.

    Examples
    --------
    >>> hoeffding_bentkus_p_value([0, 1], [59, 59], 0.05).round(4)
    array([0.0485, 0.4059])
    """
    total, m = np.broadcast_arrays(
        np.asarray(losses, dtype=np.float64), np.asarray(accepted, dtype=np.float64)
    )
    mean = np.minimum(total / np.maximum(m, 1), risk)
    entropy = special.rel_entr(mean, risk) + special.rel_entr(1 - mean, 1 - risk)
    hoeffding = np.exp(-m * entropy)
    # A sum of losses that is whole but for rounding is not rounded up.
    bentkus = np.e * binomial_p_value(np.ceil(total - 1e-9 * np.maximum(total, 1)), m, risk)
    smaller: NDArray[np.float64] = np.minimum(np.minimum(hoeffding, bentkus), 1.0)
    return smaller
