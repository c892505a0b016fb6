"""`auto_adapted`: shots, and the unlabelled batch, for images that differ from the shots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.auto import AutoModel, auto_logits, fit_auto
from trustvlm.scores.batch import batch_of, refine
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.registry import ScoreResult, register
from trustvlm.scores.spaces import SpaceName, images_in, scaled, shots_in
from trustvlm.scores.stacking import log_odds
from trustvlm.scores.text import vlm_prediction

__all__ = ["adapted_logits", "auto_adapted", "auto_adapted_star", "fit_adapted", "shift_of"]

Array = NDArray[np.float64]
_NEEDS = ("logits", "features", "support_features", "support_labels", "support_logits")
_FORMULA = (
    "as auto, the images moved by what sets the batch apart from the shots, then refined by the "
    "batch's own surest images"
)
# In-class differences may be this share of the shift before they are taken for proportions.
_IN_SPAN = 0.2


@dataclass(frozen=True)
class _Shots:
    """Statistics of the shots in one space, in the space's scale."""

    centre: Array
    basis: Array
    within: float
    count: int


@dataclass(frozen=True)
class _Adapted:
    model: AutoModel
    shots: dict[SpaceName, _Shots]


def shift_of(images: Array, centre: Array, basis: Array, within: float, shots: int) -> Array:
    """Say by which vector `(d,)` the images of a batch lie apart from the shots, as a domain.

    The difference of means has two causes: other proportions of the classes, which move it inside
    the span of the class means, and another kind of picture, which moves it anywhere. What lies
    outside the span is the domain's, less what sampling explains. What lies inside is the
    domain's too only where it is small beside that: a random direction hardly meets the span.

    Parameters
    ----------
    images
        `(n, d)` scaled images.
    centre, basis
        `(d,)` mean of the class means and `(d, r)` orthonormal basis of their differences.
    within
        Variance within classes, summed over the dimensions.
    shots
        Number of shots.

    Examples
    --------
    >>> basis = np.array([[1.0], [0.0]])
    >>> images = np.array([[5.0, 0.0]] * 50)  # all of one class: no shift
    >>> float(np.abs(shift_of(images, np.zeros(2), basis, 1.0, 50)).sum())
    0.0
    """
    apart = images.mean(axis=0) - centre
    inside = basis @ (basis.T @ apart)
    outside = apart - inside
    chance = within * (1.0 / len(images) + 1.0 / shots)
    beyond = float((outside**2).sum())
    if beyond <= chance:
        return np.zeros_like(apart)
    certain = beyond - chance
    whole = max(0.0, 1.0 - float((inside**2).sum()) / (_IN_SPAN * certain))
    return np.asarray(certain / beyond * (outside + whole * inside))


def fit_adapted(evidence: Evidence) -> _Adapted:
    """Learn `auto` and the shots' means and spread."""
    return evidence.once("auto_adapted", lambda: _fitted(evidence))


def _fitted(evidence: Evidence) -> _Adapted:
    model = fit_auto(evidence)
    labels = evidence.support_labels
    assert labels is not None  # noqa: S101 -- the registry demanded it
    column = (np.cumsum(model.present) - 1)[labels]
    known = int(model.present.sum())
    found: dict[SpaceName, _Shots] = {}
    for space, scale in model.scales.items():
        rows = scaled(shots_in(space, evidence), scale)
        sums = np.zeros((known, rows.shape[1]))
        np.add.at(sums, column, rows)
        means = sums / np.bincount(column)[:, None]
        centre = means.mean(axis=0)
        _, sizes, axes = np.linalg.svd(means - centre, full_matrices=False)
        basis = axes[sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-300)].T
        # With a shot a class nothing is known of the spread within: all variance stands for it.
        freedom = len(rows) - known
        residuals = rows - means[column] if freedom else rows - centre
        within = float((residuals**2).sum()) / max(freedom or len(rows) - 1, 1)
        found[space] = _Shots(centre, basis, within, len(rows))
    return _Adapted(model, found)


def adapted_logits(evidence: Evidence, learned: _Adapted) -> Array:
    """Combine text, shots and the batch into `(n, C)` logits; a single image gets `auto`'s."""
    if evidence.n < 2 or evidence.n_classes < 2:
        return auto_logits(evidence, learned.model)
    key = f"auto_adapted {id(learned)}"
    return evidence.once(key, lambda: (learned, _combined(evidence, learned)))[1]


def _combined(evidence: Evidence, learned: _Adapted) -> Array:
    model = learned.model
    shift = {
        space: shift_of(
            scaled(images_in(space, evidence), model.scales[space]),
            shots.centre,
            shots.basis,
            shots.within,
            shots.count,
        )
        for space, shots in learned.shots.items()
    }
    moved = model.logits(evidence, shift)
    batch = batch_of(evidence)
    return refine(moved, batch, first=moved, keep=1.0, prototypes=0.5, neighbours=0.5)


@register(
    "auto_adapted",
    needs=_NEEDS,
    formula=_FORMULA,
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d), fit as auto",
    fit=fit_adapted,
    whole_batch=True,
)
def auto_adapted(evidence: Evidence, learned: _Adapted) -> ScoreResult:
    """Log-odds of the VLM's prediction by `auto`, adapted to the batch that the image came in.

    For images of another kind than the shots: drawings, another camera. A verdict then depends on
    the other images of the batch.
    """
    prediction = vlm_prediction(evidence)
    return ScoreResult(prediction, log_odds(adapted_logits(evidence, learned), prediction))


@register(
    "auto_adapted_star",
    needs=_NEEDS,
    formula=_FORMULA,
    source="this project; docs/research/auto.md",
    complexity="O(n^2 d), fit as auto",
    corrects=True,
    fit=fit_adapted,
    whole_batch=True,
)
def auto_adapted_star(evidence: Evidence, learned: _Adapted) -> ScoreResult:
    """As `auto_adapted`, but the prediction is the class that text, shots and batch favour."""
    logits = adapted_logits(evidence, learned)
    prediction = logits.argmax(axis=1)
    return ScoreResult(prediction, log_odds(logits, prediction))
