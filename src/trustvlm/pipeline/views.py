"""The two views of a prediction, text and image, side by side: what a verdict is explained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.scope import EVERYTHING, Scope
from trustvlm.scores import Evidence
from trustvlm.scores.zero_shot import softmax

__all__ = ["Views", "look"]


@dataclass(frozen=True)
class Views:
    """What text and examples say about the predictions for n images.

    Attributes
    ----------
    text_score
        `(n,)` softmax probability of the predicted class.
    image_score
        `(n,)` cosine with the prototype of the predicted class, NaN if it has none.
    text_choice
        `(n,)` class that the text side alone would choose.
    nearest
        `(n,)` class of the most similar prototype, -1 if there is none at all.
    nearest_score
        `(n,)` its cosine, NaN if there is none.
    unlike
        `(n,)` bool, whether even that is so low that the image resembles no class.
    scope
        Where it becomes so low.
    runner_up
        `(n,)` class to consider instead: the nearest one if it is not the predicted one, else the
        most probable other one; -1 if there is a single class.
    runner_up_text, runner_up_image
        `(n,)` its probability and cosine, NaN where there is none.
    """

    text_score: NDArray[np.float64]
    image_score: NDArray[np.float64]
    text_choice: NDArray[np.int64]
    nearest: NDArray[np.int64]
    nearest_score: NDArray[np.float64]
    unlike: NDArray[np.bool_]
    scope: Scope
    runner_up: NDArray[np.int64]
    runner_up_text: NDArray[np.float64]
    runner_up_image: NDArray[np.float64]


def look(evidence: Evidence, prediction: NDArray[np.int64], scope: Scope = EVERYTHING) -> Views:
    """Look at predictions from the text side and from the image side.

    Parameters
    ----------
    evidence
        Logits of n images; features and prototypes where there are any.
    prediction
        `(n,)` class indices, from any score.
    scope
        Where an image resembles no class; by default none is so unlike.

    Examples
    --------
    >>> views = look(Evidence.of(logits=[[2.0, 0.0]]), np.array([0]))
    >>> views.text_score.round(3), views.runner_up, views.nearest
    (array([0.881]), array([1]), array([-1]))
    """
    n, n_classes = evidence.logits.shape
    p = softmax(evidence.logits)
    similarities = np.full((n, n_classes), np.nan)
    if evidence.bank is not None and evidence.features is not None:
        similarities = evidence.bank.similarities(evidence.features)
    known = ~np.isnan(similarities).all(axis=1)
    filled = np.where(np.isnan(similarities), -np.inf, similarities)
    nearest = np.where(known, filled.argmax(axis=1), -1)
    others = p.copy()
    np.put_along_axis(others, prediction[:, None], -1.0, axis=1)
    by_text = others.argmax(axis=1) if n_classes > 1 else np.full(n, -1)
    runner_up = np.where(known & (nearest != prediction), nearest, by_text)
    nearest_score = _at(similarities, nearest)
    return Views(
        text_score=_at(p, prediction),
        image_score=_at(similarities, prediction),
        text_choice=evidence.logits.argmax(axis=1),
        nearest=nearest,
        nearest_score=nearest_score,
        unlike=scope.flags(nearest_score),
        scope=scope,
        runner_up=runner_up,
        runner_up_text=_at(p, runner_up),
        runner_up_image=_at(similarities, runner_up),
    )


def _at(table: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.take_along_axis(table, np.maximum(columns, 0)[:, None], axis=1)[:, 0]
    return np.where(columns >= 0, values, np.nan)
