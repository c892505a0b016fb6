"""The threshold that costs least, given the price of an error and the price of a review."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.intervals import proportion_lower_bound, risk_upper_bound
from trustvlm.risk_control.certify import among
from trustvlm.risk_control.tests import check_fraction
from trustvlm.serialization import nan_to_null
from trustvlm.text import exact_number, short_percent


@dataclass(frozen=True)
class CostThreshold:
    """A threshold and what it costs per image.

    Attributes
    ----------
    threshold
        Accept where confidence >= threshold; NaN to review everything.
    cost
        Mean cost per image of the calibration set.
    cost_bound
        With probability `confidence_level` a new image costs at most this on average.
    review_all, accept_all
        What the calibration set would cost without a threshold: `cost_review`, and the price of an
        error times the share of errors.
    cost_error, cost_review
        Price of a wrong label that is accepted, and of a review, in the same unit.
    confidence_level
        Of the bound.
    n, accepted, errors
        Images of the calibration set, how many of them are accepted, how many of those are wrong.
    """

    threshold: float
    cost: float
    cost_bound: float
    review_all: float
    accept_all: float
    cost_error: float
    cost_review: float
    confidence_level: float
    n: int
    accepted: int
    errors: int

    @property
    def certified(self) -> bool:
        """Whether anything is accepted."""
        return not math.isnan(self.threshold)

    @property
    def coverage(self) -> float:
        """Share of the calibration set that is accepted; 0 without images."""
        return self.accepted / self.n if self.n else 0.0

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        return np.full(len(prediction), self.threshold)

    def statement(self) -> str:
        """Say it in words.

        Examples
        --------
        >>> said = cheapest([3.0, 2.0, 1.0], [True, True, False], 10, 1).statement()
        >>> print(said.partition(":")[2])  # doctest: +NORMALIZE_WHITESPACE
         on the calibration images this costs 0.333 per image, against 1 if all were reviewed and
        3.33 if all were accepted; with 95 % confidence at most 10.3 per image
        """
        if not self.certified:
            return (
                f"none: at a price of {self.cost_error:g} for an error and {self.cost_review:g} "
                "for a review, reviewing everything costs least"
            )
        return (
            f"accept at confidence >= {exact_number(self.threshold)}: on the calibration images "
            f"this costs {self.cost:.3g} per image, against {self.review_all:.3g} if all were "
            f"reviewed and {self.accept_all:.3g} if all were accepted; with "
            f"{short_percent(self.confidence_level)} confidence at most {self.cost_bound:.3g} per "
            "image"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; None for NaN."""
        return {"kind": "cost", "certified": self.certified, **nan_to_null(asdict(self))}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CostThreshold:
        """Restore what `to_dict` gave."""
        values: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        for name, value in values.items():
            values[name] = math.nan if value is None else value
        return cls(**values)


def cheapest(
    confidence: ArrayLike,
    correct: ArrayLike,
    cost_error: float,
    cost_review: float,
    confidence_level: float = 0.95,
    *,
    eligible: ArrayLike | None = None,
) -> CostThreshold:
    """Find the threshold with the lowest cost on a calibration set, and bound its cost.

    Parameters
    ----------
    confidence, correct, confidence_level, eligible
        As in `certify`, with the same assumption.
    cost_error, cost_review
        Prices in the same unit, above 0. Nothing is accepted if a review is cheaper throughout.

    Returns
    -------
    CostThreshold
        Of equally cheap thresholds the strictest.

    Raises
    ------
    InputError
        For prices that are not above 0, or arrays that do not fit.

    Notes
    -----
    Chow 1970: accept where the probability of an error is below `cost_review` / `cost_error`. The
    bound holds for every threshold at once: coverage and risk at each rank are bounded as in
    `certify_coverage`, with the remaining probability shared by the 3 m bounds of m ranks.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 1000)
    >>> t = cheapest(confidence, confidence > 0.3, cost_error=20, cost_review=1)
    >>> round(t.threshold, 2), round(t.cost, 2), round(t.cost_bound, 2)
    (0.3, 0.3, 0.6)
    """
    check_fraction(confidence_level, "confidence_level")
    for name, price in (("cost_error", cost_error), ("cost_review", cost_review)):
        if not (math.isfinite(price) and price > 0):
            raise InputError(f"Expected `{name}` to be a price above 0, but got {price!r}.")
    n, accepting = among(confidence, correct, eligible)
    ranks = np.flatnonzero(accepting.reachable)
    costs = cost_error * accepting.errors[ranks] + cost_review * (n - ranks)
    best = int(ranks[int(np.argmin(costs))])
    level = 1 - (1 - confidence_level) / max(1, 3 * len(ranks))
    # Reviewing everything has a certain price.
    bound = cost_review
    if best:
        most = 1 - proportion_lower_bound(n - best, n, level)
        reviewed = 1 - proportion_lower_bound(best, n, level)
        risk = risk_upper_bound(accepting.errors[best], best, level)
        bound = float(cost_error * most * risk + cost_review * reviewed)
    wrong = int(np.count_nonzero(~np.asarray(correct, dtype=bool)))
    return CostThreshold(
        threshold=float(accepting.thresholds(best)) if best else math.nan,
        cost=float(costs.min()) / n if n else cost_review,
        cost_bound=bound,
        review_all=cost_review,
        accept_all=cost_error * wrong / n if n else math.nan,
        cost_error=cost_error,
        cost_review=cost_review,
        confidence_level=confidence_level,
        n=n,
        accepted=best,
        errors=int(accepting.errors[best]),
    )
