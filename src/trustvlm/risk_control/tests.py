"""Exact tests and bounds of a risk, and corrections for many of them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics import paired

# Exact binomial tests and bounds: what k errors among m independent images say about the risk.


def binomial_p_value(
    errors: ArrayLike, accepted: ArrayLike, risk: ArrayLike
) -> NDArray[np.float64]:
    """P-value of the hypothesis that the risk exceeds `risk`: P(Binomial(m, risk) <= k).

    Parameters
    ----------
    errors, accepted
        Whole numbers k <= m of one shape. With m = 0 the value is 1.
    risk
        In (0, 1).

    Returns
    -------
    ndarray
        float64 in [0, 1], the smaller, the stronger the evidence that the risk is at most `risk`.

    Notes
    -----
    Clopper & Pearson 1934; P(value <= u) <= u whenever the risk is at least `risk`.

    Examples
    --------
    >>> binomial_p_value([0, 0, 1], [58, 59, 59], 0.05).round(4)
    array([0.051 , 0.0485, 0.1991])
    """
    k, m = np.asarray(errors, dtype=np.float64), np.asarray(accepted, dtype=np.float64)
    full = k >= m
    tail = scipy.special.betainc(np.where(full, 1.0, m - k), k + 1, 1 - np.asarray(risk))
    return np.where(full, 1.0, tail)


def fewest_images(risk: float, confidence_level: float = 0.95) -> int:
    """Fewest accepted images, all right, that certify a risk: ln(1 - confidence) / ln(1 - risk).

    Examples
    --------
    >>> fewest_images(0.05), fewest_images(0.02, 0.9)
    (59, 114)
    """
    # The margin keeps a quotient that is whole but for rounding from asking for one image more.
    wanted = math.log1p(-confidence_level) / math.log1p(-risk)
    return max(1, math.ceil(wanted - 1e-9))


def check_fraction(value: float, name: str) -> float:
    """Return `value` as float, or raise `InputError` unless it lies strictly between 0 and 1.

    Examples
    --------
    >>> check_fraction(0.05, "risk")
    0.05
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise InputError(
            f"Expected `{name}` to lie between 0 and 1, ends excluded, but got {value!r}: "
            "write 5 percent as 0.05."
        )
    return number


# Which of several hypotheses are rejected so that a false rejection at all is rare.


def fixed_sequence(
    p_values: ArrayLike, level: float, shares: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Reject in order up to the first that is not rejected, and again from the next start on.

    Parameters
    ----------
    p_values
        `(t,)`, in the order of the tests.
    level
        Probability with which any true hypothesis may be rejected.
    shares
        `(t,)` shares of the level that start at each test, 0 for most, at most 1 in all; None for
        all of it at the first.

    Notes
    -----
    A start adds its share to the level of the tests before it, if they were all rejected since some
    start; otherwise the level is its share alone. With one start this is fixed-sequence testing
    (Bauer 1991), with more the fall-back procedure (Wiens 2003). P-values may depend on each other.

    Examples
    --------
    >>> fixed_sequence([0.01, 0.04, 0.2, 0.01], 0.05)
    array([ True,  True, False, False])
    >>> fixed_sequence([0.01, 0.04, 0.2, 0.01], 0.05, [0.6, 0.4, 0, 0])
    array([ True,  True, False, False])
    >>> fixed_sequence([0.04, 0.04, 0.2, 0.01], 0.05, [0.6, 0, 0, 0.4])
    array([False, False, False,  True])
    """
    p = np.asarray(p_values, dtype=np.float64)
    rejected = np.zeros(p.size, dtype=bool)
    share = np.arange(p.size) == 0 if shares is None else np.asarray(shares, dtype=np.float64)
    available = 0.0
    for begin, end in pairwise([*np.flatnonzero(share).tolist(), p.size]):
        # Rounding must not take from shares that add up to all of it.
        available = min(1.0, available + 1e-15 + float(share[begin]))
        rejected[begin:end] = np.logical_and.accumulate(p[begin:end] <= level * available)
        if not rejected[begin:end].all():
            available = 0.0
    return rejected


def bonferroni(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Reject whatever has a p-value of at most the level divided by the number of hypotheses.

    Examples
    --------
    >>> bonferroni([0.01, 0.04, 0.2, 0.01], 0.05)
    array([ True, False, False,  True])
    """
    p = np.asarray(p_values, dtype=np.float64)
    rejected: NDArray[np.bool_] = p <= level / max(1, p.size)
    return rejected


def holm(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Reject by Bonferroni, over and over on what is left (Holm 1979).

    Examples
    --------
    >>> holm([0.01, 0.02, 0.2, 0.01], 0.05)
    array([ True,  True, False,  True])
    """
    return np.asarray(paired.holm(p_values) <= level)
