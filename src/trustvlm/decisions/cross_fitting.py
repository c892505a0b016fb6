"""P(correct) of the calibration images themselves, each from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.decisions.calibrator import DEFAULT_CALIBRATOR, Calibrator
from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array

__all__ = ["cross_fitted"]


def cross_fitted(
    confidence: ArrayLike,
    correct: ArrayLike,
    calibrator: str = DEFAULT_CALIBRATOR,
    *,
    folds: int = 10,
) -> NDArray[np.float64]:
    """Return P(correct) of every calibration image from a calibrator that has not seen it.

    These are fair to measure the calibrator with (`metrics.brier`, `metrics.ece`); what it says of
    the images that it was fitted on is not.

    Parameters
    ----------
    confidence, correct
        `(n,)`, as for `Calibrator.fit`.
    calibrator
        Of `CALIBRATORS`.
    folds
        At least 2. The images are dealt to them in the order of their confidence, so that every
        fold covers all confidences, and the order of the images does not matter.

    Returns
    -------
    ndarray
        `(n,)` float64; NaN with a single image, which has no others.

    Examples
    --------
    >>> cross_fitted([0.1, 0.2, 0.2, 0.3], [False, False, True, True], "isotonic", folds=4)
    array([0.5, 1. , 0. , 0.5])
    """
    score = confidence_array(confidence).astype(np.float64)
    right = correctness_array(correct, len(score))
    if folds < 2:
        raise InputError(f"Expected `folds` to be at least 2, but got {folds}.")
    fold = np.empty(len(score), dtype=np.int64)
    fold[np.lexsort((right, score))] = np.arange(len(score)) % folds
    probability = np.full(len(score), np.nan)
    for held_out in range(min(folds, len(score)) if len(score) > 1 else 0):
        seen = fold != held_out
        learned = Calibrator(calibrator).fit(score[seen], right[seen])
        probability[~seen] = learned.predict(score[~seen])
    return probability
