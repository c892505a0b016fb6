"""What decides between accept and review: any of the certified rules, behind one face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.certify import Certificate
from trustvlm.decisions.costs import CostThreshold
from trustvlm.decisions.per_class import ClassCertificates
from trustvlm.exceptions import InputError

__all__ = ["Rule", "rule_from_dict"]


class Rule(Protocol):
    """A threshold for every verdict, and what is known of it."""

    @property
    def certified(self) -> bool:
        """Whether anything is ever accepted."""
        ...

    @property
    def coverage(self) -> float:
        """Share of the calibration set that is accepted."""
        ...

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        ...

    def statement(self) -> str:
        """Say it in words."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ...


def rule_from_dict(stored: Mapping[str, Any]) -> Rule:
    """Restore what `to_dict` of a rule gave.

    Raises
    ------
    InputError
        If there is no such kind of rule.
    KeyError, TypeError
        If something is missing.

    Examples
    --------
    >>> rule_from_dict(Certificate.none(5, 55.0, 0.05, 0.95, "fixed_sequence").to_dict()).certified
    False
    """
    kinds: dict[str, Any] = {
        "risk": Certificate,
        "coverage": Certificate,
        "risk_per_class": ClassCertificates,
        "cost": CostThreshold,
    }
    if stored["kind"] not in kinds:
        raise InputError(f"There is no rule of the kind {stored['kind']!r}.")
    rule: Rule = kinds[stored["kind"]].from_dict(stored)
    return rule
