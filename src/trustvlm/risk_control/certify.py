"""The most lenient threshold whose risk is certified not to exceed what the user allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array
from trustvlm.risk_control.groups import one_per_group
from trustvlm.risk_control.sequences import (
    FIRST_SHARE,
    LEVELS,
    Accepting,
    Hypotheses,
    Openings,
    Plan,
    images_needed,
)
from trustvlm.risk_control.tests import (
    binomial_p_value,
    bonferroni,
    check_fraction,
    fewest_images,
    fixed_sequence,
    holm,
)
from trustvlm.serialization import nan_to_null
from trustvlm.text import did_you_mean, exact_number, short_percent

DEFAULT_METHOD = "fixed_sequence"
"""The one of `METHODS` that is taken where none is named."""

METHODS: dict[str, Callable[[ArrayLike, float], NDArray[np.bool_]]] = {
    "fixed_sequence": fixed_sequence,
    "bonferroni": bonferroni,
    "learn_then_test": holm,
}
"""The ways to certify a threshold, by name: which hypotheses are rejected, of the p-values of exact
binomial tests from the strictest threshold to the most lenient, at a level. The fixed sequence
tests where each number of errors is first allowed, the others at levels of coverage."""


def check_method(name: str) -> None:
    """Raise `InputError` for a method that is not offered.

    Examples
    --------
    >>> check_method("fixed_sequence")
    """
    if name == "hoeffding_bentkus":
        raise InputError(
            "Expected `method` to be one that is still offered, but got 'hoeffding_bentkus': use "
            "fixed_sequence, the default, whose exact test accepts at least as much."
        )
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS, 1)
        raise InputError(
            f"Expected `method` to be one of {', '.join(METHODS)}, but got {name!r}"
            + (f": {hint}" if hint else ".")
        )


# What is said of a threshold.


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


# The most lenient threshold whose risk is certified not to exceed what the user allows.


@dataclass(frozen=True)
class Certificate:
    """A threshold and what is certified of it.

    Attributes
    ----------
    threshold
        Accept where confidence >= threshold; NaN if none is certified: accept nothing. It lies
        just above the first image that is not accepted, or at the lowest confidence if all are.
    risk_bound
        The risk, the share of wrong labels among the accepted ones, is at most this with
        probability `confidence_level` over the draw of the calibration set; NaN if none.
    confidence_level
        That probability.
    coverage
        Share of the calibration set that is accepted; 0 if no threshold is certified.
    coverage_bound
        With probability `confidence_level`, the share of new images accepted is at least this.
    n, accepted, errors
        Images of the calibration set, how many of them are accepted, how many of those are wrong.
    n_needed
        0 where a threshold is certified; otherwise how many more labelled images succeed in about
        three of four draws, if any number can; infinity where none is expected to help.
    risk
        What was asked for.
    method
        A name of `METHODS`, or `coverage` where a coverage was asked for instead of a risk, which
        is NaN then.
    wanted_coverage
        The coverage that was asked for; NaN if a risk was.
    """

    threshold: float
    risk_bound: float
    confidence_level: float
    coverage: float
    coverage_bound: float
    n: int
    accepted: int
    errors: int
    n_needed: float
    risk: float
    method: str
    wanted_coverage: float = math.nan

    @classmethod
    def none(
        cls,
        n: int,
        n_needed: float,
        risk: float,
        confidence_level: float,
        method: str,
        wanted_coverage: float = math.nan,
    ) -> Certificate:
        """Say that n images certify no threshold."""
        return cls(
            threshold=math.nan,
            risk_bound=math.nan,
            confidence_level=confidence_level,
            coverage=0.0,
            coverage_bound=0.0,
            n=n,
            accepted=0,
            errors=0,
            n_needed=n_needed,
            risk=risk,
            method=method,
            wanted_coverage=wanted_coverage,
        )

    def __eq__(self, other: object) -> bool:
        """Whether all values are equal; undefined ones (NaN) are."""
        if not isinstance(other, Certificate):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[float | str | None, ...]:
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(None if value != value else value for value in values)

    @property
    def certified(self) -> bool:
        """Whether there is a threshold."""
        return not math.isnan(self.threshold)

    @property
    def observed_risk(self) -> float:
        """Share wrong among the accepted of the calibration set; NaN if none are accepted."""
        return self.errors / self.accepted if self.accepted else math.nan

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        return np.full(len(prediction), self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: None for NaN, and for infinitely many needed images.

        Examples
        --------
        >>> none = certify([0.5] * 99, [False] * 99)
        >>> Certificate.from_dict(none.to_dict()).n_needed
        inf
        """
        kind = "risk" if math.isnan(self.wanted_coverage) else "coverage"
        return {"kind": kind, "certified": self.certified, **nan_to_null(asdict(self))}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Certificate:
        """Restore what `to_dict` gave."""
        values: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        absent = {"n_needed": math.inf}
        for name, value in values.items():
            values[name] = absent.get(name, math.nan) if value is None else value
        return cls(**values)

    def statement(self) -> str:
        """Say it in words.

        Examples
        --------
        >>> print(certify(range(300), [True] * 300, risk=0.02).statement())
        accept at confidence >= 0; with 95 % confidence at most 2 % of what is accepted is wrong; \
it accepts 100 % of images like these (at least 92.9 %)
        """
        if not self.certified:
            return self._none_statement()
        return (
            f"accept at confidence >= {exact_number(self.threshold)}; with "
            f"{short_percent(self.confidence_level)} confidence at most "
            f"{short_percent(self.risk_bound, towards='up')} of what is accepted is wrong; it "
            f"accepts {short_percent(self.coverage)} of images like these "
            f"(at least {short_percent(self.coverage_bound, towards='down')})"
        )

    def _none_statement(self) -> str:
        """Say that no threshold is certified, and what it would take."""
        if math.isnan(self.risk):
            return (
                f"none: accepting {short_percent(self.wanted_coverage)} of new images "
                f"cannot be shown with {self.n}; you would need {self.n_needed:.0f} more"
            )
        images = (
            "1 labelled image certifies" if self.n == 1 else f"{self.n} labelled images certify"
        )
        begin = (
            f"none: {images} no threshold at a risk of {short_percent(self.risk)} with "
            f"{short_percent(self.confidence_level)} confidence; "
        )
        if math.isinf(self.n_needed):
            return (
                f"{begin}more images are not expected to help, since labels are wrong too often "
                "among the most trusted, wherever the tests could begin: allow a higher risk, or "
                "use a better score, model or examples"
            )
        if self.n_needed == 1:
            return f"{begin}you would need about 1 more labelled image"
        # Fewer images cannot do even if the labels of all of them are right.
        least = fewest_images(self.risk, self.confidence_level) - self.n
        at_least = f" (at least {least}, if all are right)" if 0 < least < self.n_needed else ""
        return f"{begin}you would need about {self.n_needed:.0f} more labelled images{at_least}"


def certify(
    confidence: ArrayLike,
    correct: ArrayLike,
    risk: float = 0.05,
    confidence_level: float = 0.95,
    *,
    method: str = DEFAULT_METHOD,
    first_share: float = FIRST_SHARE,
    levels: int = LEVELS,
    thresholds: ArrayLike | None = None,
    eligible: ArrayLike | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Certificate:
    """Find the most lenient threshold at which the risk is certified to be at most `risk`.

    The risk is the share of wrong labels among those accepted. Over the draw of the calibration
    set, the probability that the risk of new images exceeds `risk` is at most
    1 - `confidence_level`. This assumes that calibration images and new images are independent
    draws of the same kind, and that neither shots nor score were chosen with the calibration set.
    Nothing is assumed about the confidence; `trustvlm.risk_control.sequences` says more on ties.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted. Equal ones are accepted together.
    correct
        `(n,)` booleans, or zeros and ones.
    risk, confidence_level
        In (0, 1).
    method
        `fixed_sequence`: exact binomial tests from strict to lenient, up to the first failure, and
        with what is left of the error budget from the next of up to four starts on.
        `bonferroni`, `learn_then_test`: exact tests at `levels` levels of coverage, corrected for
        their number.
    first_share
        Most of the images that the main start of a sequence uses, as a share; more where so few
        could not certify. Heads that use fewer come before it where there are images enough. Fix
        it before looking at the labels.
    levels
        How many levels of coverage the methods with a correction test.
    thresholds
        Test these instead; they must have been fixed without the calibration set.
    eligible
        `(n,)` booleans: which images may be accepted at all, by a rule that does not depend on the
        calibration set and is applied to new images too; None for all. Others only lower the
        coverage.
    groups
        `(n,)` what images have in common that are not independent of each other, such as the scene
        of a frame. One image of each is used, by `one_per_group`, and counted in `n`. The groups
        have to be independent draws then, and the risk is that of new images drawn so: every group
        counts once.

    Returns
    -------
    Certificate
        With `threshold` NaN where none can be certified, n = 0 included.

    Raises
    ------
    InputError
        For arrays that do not fit, NaN, or settings out of range.

    Notes
    -----
    Clopper & Pearson 1934; Bauer 1991; Wiens 2003; Angelopoulos et al. 2022 (arXiv 2110.01052). The
    sequence of data-dependent thresholds is justified in `trustvlm.risk_control.sequences`.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 1000)
    >>> t = certify(confidence, confidence > 0.3, risk=0.05)
    >>> round(t.threshold, 3), round(t.coverage, 3), round(t.coverage_bound, 3)
    (0.28, 0.719, 0.68)
    >>> certify([0.9, 0.8], [True, True], risk=0.05).n_needed
    4023.0
    """
    check_method(method)
    check_fraction(risk, "risk")
    check_fraction(confidence_level, "confidence_level")
    if groups is not None:
        score = confidence_array(confidence)
        right = correctness_array(correct, len(score))
        # Checked before the draw, after which a mask of another length could fit.
        among(score, right, eligible)
        drawn = one_per_group(groups, [str(i) for i in range(len(score))])
        confidence, correct = score[drawn], right[drawn]
        eligible = None if eligible is None else np.asarray(eligible)[drawn]
    n, accepting = among(confidence, correct, eligible)
    check_fraction(first_share, "first_share")
    budget = 1 - confidence_level
    if thresholds is not None:
        tried = Hypotheses.of_thresholds(accepting, thresholds)
    elif method == "fixed_sequence":
        plan = Plan.of(accepting.n, risk, confidence_level, first_share)
        tried = Hypotheses.of_sequence(accepting, plan)
    else:
        tried = Hypotheses.of_levels(accepting, levels)
    p_values = binomial_p_value(tried.errors, tried.accepted, risk)
    if method == "fixed_sequence":
        rejected = np.flatnonzero(fixed_sequence(p_values, budget, tried.shares))
    else:
        rejected = np.flatnonzero(METHODS[method](p_values, budget))
    if not rejected.size:
        if thresholds is not None:
            # A sequence without its first test certifies nothing.
            decisive = tried.accepted[: 1 if method == "fixed_sequence" else None]
            shares = decisive / max(1, accepting.n)
            openings = Openings.of_shares(shares, risk, confidence_level, budget / len(shares))
        elif method == "fixed_sequence":
            openings = Openings.of_sequence(risk, confidence_level, first_share)
        else:
            shares = np.arange(1, levels + 1) / levels
            openings = Openings.of_shares(shares, risk, confidence_level, budget / levels)
        needed = images_needed(accepting, openings, risk)
        # Not every new image will be eligible either.
        scaled = np.ceil(needed * n / accepting.n) if accepting.n else needed
        return Certificate.none(n, float(scaled), risk, confidence_level, method)
    last = rejected[-1]
    accepted = int(tried.accepted[last])
    return Certificate(
        threshold=float(tried.thresholds[last]),
        risk_bound=risk,
        confidence_level=confidence_level,
        coverage=accepted / n,
        coverage_bound=coverage_lower_bound(accepted, n, confidence_level),
        n=n,
        accepted=accepted,
        errors=int(tried.errors[last]),
        n_needed=0.0,
        risk=risk,
        method=method,
    )


def among(
    confidence: ArrayLike, correct: ArrayLike, eligible: ArrayLike | None
) -> tuple[int, Accepting]:
    """Return how many images there are, and those of them that may be accepted, in order.

    Raises
    ------
    InputError
        For arrays that do not fit together.
    """
    score = confidence_array(confidence)
    right = correctness_array(correct, len(score))
    if eligible is None:
        return len(score), Accepting.of(score, right)
    mask = np.asarray(eligible)
    if mask.shape != score.shape or mask.dtype != bool:
        raise InputError(
            f"Expected `eligible` to be {len(score)} booleans like `confidence`, but got shape "
            f"{mask.shape} of {mask.dtype}."
        )
    return len(score), Accepting.of(score[mask], right[mask])
