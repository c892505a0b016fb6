"""P(correct): from a score to the probability that the label is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.decisions.monotone import State, fit_isotonic, fit_smoothed, predict_isotonic
from trustvlm.decisions.sigmoid import fit_beta, fit_platt, predict_beta, predict_platt
from trustvlm.decisions.venn_abers import fit_venn_abers, predict_venn_abers
from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array

__all__ = ["CALIBRATORS", "DEFAULT_CALIBRATOR", "Calibrator"]

DEFAULT_CALIBRATOR = "smoothed_isotonic"


@dataclass(frozen=True)
class _Kind:
    fit: Callable[[NDArray[np.float64], NDArray[np.bool_]], State]
    predict: Callable[[State, NDArray[np.float64]], NDArray[np.float64]]
    keys: tuple[str, ...]


_KINDS = {
    "platt": _Kind(fit_platt, predict_platt, ("weights", "location", "scale")),
    "isotonic": _Kind(fit_isotonic, predict_isotonic, ("confidence", "probability")),
    "smoothed_isotonic": _Kind(fit_smoothed, predict_isotonic, ("confidence", "probability")),
    "beta": _Kind(fit_beta, predict_beta, ("weights", "location", "scale", "beta")),
    "venn_abers": _Kind(fit_venn_abers, predict_venn_abers, ("confidence", "low", "high")),
}
CALIBRATORS = tuple(_KINDS)


class Calibrator:
    """A non-decreasing map from confidence to the probability of being correct.

    Parameters
    ----------
    name
        `smoothed_isotonic`, the default: isotonic regression whose ends are drawn in from 0 and 1.
        `isotonic`: the best non-decreasing step function, linear in between. `platt`: a logistic
        curve, for few images. `beta`: Platt's curve with a shape of its own at either end.
        `venn_abers`: isotonic regression that allows for its own uncertainty.

    Attributes
    ----------
    state_ : dict of ndarray
        What `fit` learned; float64.

    Examples
    --------
    >>> confidence, correct = [0.1, 0.2, 0.3, 0.4], [False, True, False, True]
    >>> Calibrator("isotonic").fit(confidence, correct).predict([0.0, 0.25, 0.5])
    array([0. , 0.5, 1. ])
    >>> Calibrator("venn_abers").fit(confidence, correct).predict([0.0, 0.25, 0.5]).round(2)
    array([0.33, 0.5 , 0.67])
    """

    state_: State

    def __init__(self, name: str = DEFAULT_CALIBRATOR) -> None:
        self.name = name

    def check(self) -> Calibrator:
        """Raise `InputError` unless the name is known.

        Examples
        --------
        >>> Calibrator("plat").check()
        Traceback (most recent call last):
        trustvlm.exceptions.InputError: Expected a calibrator of platt, isotonic, \
smoothed_isotonic, beta, venn_abers, but got 'plat': did you mean platt?
        """
        self._kind()
        return self

    def fit(self, confidence: ArrayLike, correct: ArrayLike) -> Calibrator:
        """Learn from n >= 1 labelled images that neither shots nor score have seen.

        Parameters
        ----------
        confidence
            `(n,)` finite real numbers, higher is more trusted.
        correct
            `(n,)` booleans, or zeros and ones; they may be all alike.

        Raises
        ------
        InputError
            For an unknown name, no images, or arrays that do not fit.
        """
        kind = self._kind()
        score = confidence_array(confidence)
        right = correctness_array(correct, len(score))
        if not len(score):
            raise InputError("Expected at least one labelled image to calibrate on, but got none.")
        self.state_ = kind.fit(score.astype(np.float64), right)
        return self

    def predict(self, confidence: ArrayLike) -> NDArray[np.float64]:
        """Return `(n,)` float64 probabilities in [0, 1]; NaN where the confidence is NaN.

        Raises
        ------
        InputError
            If `fit` has not been called, or the confidence is not `(n,)` real numbers.
        """
        if not hasattr(self, "state_"):
            raise InputError("This Calibrator has learned nothing yet: call fit first.")
        score = np.asarray(confidence, dtype=np.float64)
        known = ~np.isnan(score)
        probability = np.full(score.shape, np.nan)
        probability[known] = self._kind().predict(
            self.state_, confidence_array(score[known]).astype(np.float64)
        )
        return probability

    def to_dict(self) -> dict[str, Any]:
        """Return name and state as plain JSON values."""
        return {"name": self.name, "state": {k: v.tolist() for k, v in self.state_.items()}}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibrator:
        """Restore what `to_dict` gave, or the same with arrays.

        Raises
        ------
        InputError
            If the name is unknown or the state is not complete.

        Examples
        --------
        >>> learned = Calibrator("platt").fit([0.1, 0.9], [False, True])
        >>> again = Calibrator.from_dict(learned.to_dict())
        >>> bool((again.predict([0.3]) == learned.predict([0.3])).all())
        True
        """
        calibrator = cls(str(stored["name"]))
        state = {k: np.asarray(v, dtype=np.float64) for k, v in stored["state"].items()}
        missing = [key for key in calibrator._kind().keys if key not in state]
        if missing:
            raise InputError(
                f"The stored calibrator `{calibrator.name}` lacks {', '.join(missing)}."
            )
        calibrator.state_ = state
        return calibrator

    def _kind(self) -> _Kind:
        if self.name not in _KINDS:
            close = get_close_matches(str(self.name), _KINDS, n=1)
            raise InputError(
                f"Expected a calibrator of {', '.join(_KINDS)}, but got {self.name!r}"
                + (f": did you mean {close[0]}?" if close else ".")
            )
        return _KINDS[self.name]
