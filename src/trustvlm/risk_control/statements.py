"""Pieces of the sentences that say what was certified, and under which assumption."""

from __future__ import annotations

import math
from collections.abc import Mapping

ASSUMPTION = (
    "This holds if the calibration images are drawn independently and like the images to come: "
    "the same kinds of pictures, from the same sources, in the same proportions. The confidence is "
    "over the draw of the calibration images."
)


def percent(fraction: float, *, towards: str = "nearest") -> str:
    """Write a fraction in percent, with a decimal where it is not whole.

    `towards` is `nearest`, or `up` or `down` for bounds, which must not gain by the rounding.

    Examples
    --------
    >>> percent(0.95), percent(0.7123), percent(0.0133, towards="up"), percent(0.0009)
    ('95 %', '71.2 %', '1.4 %', '0.09 %')
    """
    digits = 1 if fraction >= 0.001 or fraction == 0 else 4
    # What is whole but for the rounding of floating point stays so.
    tenths = round(100 * fraction * 10**digits, 6)
    whole = {"nearest": round(tenths), "up": math.ceil(tenths), "down": math.floor(tenths)}
    return f"{whole[towards] / 10**digits:g} %"


def number(value: float) -> str:
    """Write a number with as few digits as it takes to read the same number again.

    Examples
    --------
    >>> number(0.0), number(0.1), number(1 / 3)
    ('0', '0.1', '0.3333333333333333')
    """
    texts = (f"{value:.{digits}g}" for digits in range(6, 18))
    return next(text for text in texts if float(text) == value)


def none_statement(n: int, n_needed: float, risk: float, confidence_level: float) -> str:
    """Say that no threshold is certified, and what it would take.

    Examples
    --------
    >>> none_statement(20, 40.0, 0.05, 0.95)  # doctest: +NORMALIZE_WHITESPACE
    'none: 20 labelled images certify no threshold at a risk of 5 % with 95 % confidence; you
    would need about 40 more labelled images'
    """
    images = "1 labelled image certifies" if n == 1 else f"{n} labelled images certify"
    begin = (
        f"none: {images} no threshold at a risk of {percent(risk)} with "
        f"{percent(confidence_level)} confidence; "
    )
    if math.isinf(n_needed):
        return (
            f"{begin}more images are not expected to help, since even the most trusted labels are "
            "wrong too often: allow a higher risk, or use a better score, model or examples"
        )
    more = "1 more labelled image" if n_needed == 1 else f"{n_needed:.0f} more labelled images"
    return f"{begin}you would need about {more}"


def coverage_statement(n: int, n_needed: float, coverage: float) -> str:
    """Say that so many images cannot show that a share of new ones is accepted.

    Examples
    --------
    >>> coverage_statement(5, 9.0, 0.8)
    'none: accepting 80 % of new images cannot be shown with 5; you would need 9 more'
    """
    return (
        f"none: accepting {percent(coverage)} of new images cannot be shown with {n}; you would "
        f"need {n_needed:.0f} more"
    )


def calibrator_statement(quality: Mapping[str, float | None]) -> str:
    """Say how true the probabilities are, from `Calibration.quality`.

    Examples
    --------
    >>> calibrator_statement({"brier": 0.08, "brier_constant": 0.2, "ece": 0.04,
    ...                       "ece_if_calibrated": 0.03, "rms_calibration_error": 0.02})
    'P(correct): Brier score 0.080 (a constant: 0.200), calibration error 0.040 (perfect \
probabilities would show 0.030)'
    """
    brier, constant = quality["brier"], quality["brier_constant"]
    ece, unavoidable = quality["ece"], quality["ece_if_calibrated"]
    if brier is None or constant is None or ece is None or unavoidable is None:
        return "P(correct): too few images to measure it"
    return (
        f"P(correct): Brier score {brier:.3f} (a constant: {constant:.3f}), calibration error "
        f"{ece:.3f} (perfect probabilities would show {unavoidable:.3f})"
    )
