"""`auto_unlabelled`: no shots at all; the batch itself shows what the classes look like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.batch import batch_of, fullness, refine
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.registry import ScoreResult, register
from trustvlm.scores.stacking import log_odds
from trustvlm.scores.text import vlm_prediction

__all__ = ["auto_unlabelled", "auto_unlabelled_star", "unlabelled_logits"]

_FORMULA = (
    "log-odds of yhat in the mean over rounds of softmax(a z + b S + log neighbours), "
    "S cosines to prototypes of the batch's own surest images"
)
_TEXT, _CENTRING = 0.3, 0.6


def unlabelled_logits(evidence: Evidence) -> NDArray[np.float64]:
    """Combine the logits with what the images of the batch say about each other, `(n, C)`.

    The logits are first freed of part of what all images of the batch have in common, which is
    mostly the model's fondness for some names. With few images a class, all of it fades and the
    logits stay.

    Examples
    --------
    >>> one = Evidence.of(logits=[[2.0, 0.0]], features=[[1.0, 0.0]])
    >>> unlabelled_logits(one)
    array([[2., 0.]])
    """
    return evidence.once("auto_unlabelled", lambda: _combined(evidence))


def _combined(evidence: Evidence) -> NDArray[np.float64]:
    z = evidence.logits.astype(np.float64)
    n, n_classes = z.shape
    if n < 2 or n_classes < 2:
        return z
    belief = fullness(n, n_classes)
    common = z.mean(axis=0)
    start = z - belief * _CENTRING * (common - common.mean())
    tempered = _TEXT**belief
    return refine(
        tempered * start,
        batch_of(evidence),
        first=tempered * z,
        keep=1.0,
        prototypes=1.0,
        neighbours=1.0,
    )


@register(
    "auto_unlabelled",
    needs=("logits", "features"),
    formula=_FORMULA,
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d)",
    whole_batch=True,
)
def auto_unlabelled(evidence: Evidence) -> ScoreResult:
    """Log-odds of the VLM's prediction, verified against the batch's own images; no shots.

    A verdict depends on the other images of the batch. A single image has the log-odds of MSP.
    """
    prediction = vlm_prediction(evidence)
    return ScoreResult(prediction, log_odds(unlabelled_logits(evidence), prediction))


@register(
    "auto_unlabelled_star",
    needs=("logits", "features"),
    formula=_FORMULA.replace("yhat", "the best class"),
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d)",
    corrects=True,
    whole_batch=True,
)
def auto_unlabelled_star(evidence: Evidence) -> ScoreResult:
    """As `auto_unlabelled`, but the prediction is the class that the batch favours."""
    logits = unlabelled_logits(evidence)
    prediction = logits.argmax(axis=1)
    return ScoreResult(prediction, log_odds(logits, prediction))
