"""The ways to certify a threshold, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.decisions.procedures import bonferroni, fixed_sequence, holm
from trustvlm.exceptions import InputError

__all__ = ["DEFAULT_METHOD", "METHODS", "Method", "method_named"]

DEFAULT_METHOD = "fixed_sequence"


@dataclass(frozen=True)
class Method:
    """Exact binomial tests, and a procedure that keeps many of them honest.

    Attributes
    ----------
    name
        What users write.
    procedure
        Which hypotheses are rejected, of p-values from the strictest threshold to the most
        lenient, at a level.
    sequence
        Whether thresholds are tested where each number of errors is first allowed, or at evenly
        spaced levels of coverage.
    summary
        In words.
    source
        Where it is from.
    """

    name: str
    procedure: Callable[[ArrayLike, float], NDArray[np.bool_]]
    sequence: bool
    summary: str
    source: str


_ALL = (
    Method(
        "fixed_sequence",
        fixed_sequence,
        True,
        "exact binomial tests, from strict to lenient thresholds, up to the first failure",
        "Clopper & Pearson 1934; Bauer 1991; Angelopoulos et al. 2022, arXiv 2110.01052",
    ),
    Method(
        "bonferroni",
        bonferroni,
        False,
        "exact binomial tests at a few levels of coverage, corrected for their number",
        "Clopper & Pearson 1934; Bonferroni",
    ),
    Method(
        "learn_then_test",
        holm,
        False,
        "exact binomial tests at a few levels of coverage, corrected by Bonferroni-Holm",
        "Angelopoulos et al. 2022, arXiv 2110.01052; Holm 1979",
    ),
)
METHODS = {method.name: method for method in _ALL}


def method_named(name: str) -> Method:
    """Return a method by name.

    Raises
    ------
    InputError
        If there is none of that name.

    Examples
    --------
    >>> method_named("fixed_sequence").sequence
    True
    """
    if name == "hoeffding_bentkus":
        raise InputError(
            "Expected `method` to be one that is still offered, but got 'hoeffding_bentkus': use "
            "fixed_sequence, the default, whose exact test accepts at least as much."
        )
    if name not in METHODS:
        close = get_close_matches(str(name), METHODS, n=1)
        raise InputError(
            f"Expected `method` to be one of {', '.join(METHODS)}, but got {name!r}"
            + (f": did you mean {close[0]}?" if close else ".")
        )
    return METHODS[name]
