"""`auto` and `auto_star`: text and shots weighed against each other by what held-out shots say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores import held_out
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import NO_SHOTS, Evidence
from trustvlm.scores.zero_shot import vlm_prediction

Array = NDArray[np.float64]
NEEDS = ("logits", "features", "support_features", "support_labels", "support_logits")
OPTIONAL = ("image_embeddings", "support_image_embeddings")
_FORMULA = (
    "log-odds of yhat in softmax(mean over base scorers of a z + b E + b' E'), "
    "E prototypes, neighbours, ridge; a, b, b' by leave-one-out on the shots"
)

# Means and spreads of the prior on weights, in units of the evidence's own scale. They matter
# where there are few shots, and alone decide at one shot a class.
_TEXT, _TEXT_SPREAD = 0.3, 0.5
_VISUAL: Mapping[held_out.FeatureSpace, float] = {"features": 1.0, "image_embeddings": 0.3}
_VISUAL_SPREAD = 0.5


@dataclass(frozen=True)
class _Weighted:
    """One scorer in each space, with the weight of the text beside it."""

    text: float
    parts: tuple[tuple[held_out.FeatureSpace, held_out.BaseScorer, float], ...]


@dataclass(frozen=True)
class AutoModel:
    """What `auto` learns from the shots.

    Attributes
    ----------
    present
        `(C,)` bool, which classes have shots.
    scales
        Scale of each dimension, by space.
    weighted
        The base scorers and their weights.
    """

    present: NDArray[np.bool_]
    scales: Mapping[held_out.FeatureSpace, Array]
    weighted: tuple[_Weighted, ...]

    def logits(
        self, evidence: Evidence, shift: Mapping[held_out.FeatureSpace, Array] | None = None
    ) -> Array:
        """Combine text and shots into `(n, C)` logits; `shift` is taken from the scaled images.

        For a class without shots the image is as probable as on average over the others: it can
        win by its text alone.
        """
        shift = shift or {}
        evidence.demand(self.scales, by="auto")
        rows = {
            space: held_out.images_in(space, evidence) / scale - shift.get(space, 0.0)
            for space, scale in self.scales.items()
        }
        z = evidence.logits.astype(np.float64)
        total = np.zeros_like(z)
        for scorer in self.weighted:
            visual = np.zeros_like(z)
            for space, part, weight in scorer.parts:
                visual += weight * part.evidence(rows[space])
            total += scorer.text * z + self._filled(visual)
        return total / len(self.weighted)

    def _filled(self, visual: Array) -> Array:
        if self.present.all():
            return visual
        seen = visual[:, self.present]
        top = seen.max(axis=1, keepdims=True)
        background = top + np.log(np.exp(seen - top).mean(axis=1, keepdims=True))
        return np.where(self.present, visual, background)


def fit_auto(evidence: Evidence) -> AutoModel:
    """Learn base scorers from the shots, and by leave-one-out how far to believe each.

    Raises
    ------
    InputError
        If there are no shots.
    """
    return evidence.once("auto", lambda: _fitted(evidence))


def auto_logits(evidence: Evidence, model: AutoModel) -> Array:
    """Return `model.logits(evidence)`, computed once for all scores that build on it."""
    return evidence.once("logits of auto", lambda: model.logits(evidence), of=model)


def _fitted(evidence: Evidence) -> AutoModel:
    labels = evidence.piece("support_labels")
    if not len(labels):
        raise InputError(NO_SHOTS)
    counts = np.bincount(labels, minlength=evidence.n_classes)
    present = counts > 0
    column = (np.cumsum(present) - 1)[labels]
    z = evidence.piece("support_logits").astype(np.float64)[:, present]
    usable = counts[labels] > 1
    text = held_out.fit_weights(z[None], column, np.array([_TEXT]), np.array([_TEXT_SPREAD]))[0]
    spaces = [space for space in held_out.FEATURE_SPACES if evidence.has(f"support_{space}")]
    scales = {space: held_out.scale_of(held_out.shots_in(space, evidence)) for space in spaces}
    shots = {space: held_out.shots_in(space, evidence) / scales[space] for space in spaces}
    centre = np.array([0.5 * text, *(_VISUAL[space] for space in spaces)])
    spread = np.array([max(text, 0.05), *(_VISUAL_SPREAD for _ in spaces)])
    weighted = []
    for make in held_out.BASE_SCORERS:
        base_scorers = [make(shots[space], labels, evidence.n_classes) for space in spaces]
        left_out = [scorer.held_out[:, present] for scorer in base_scorers]
        units = [held_out.evidence_scale(table, column) for table in left_out]
        tables = np.stack([z, *(t / unit for t, unit in zip(left_out, units, strict=True))])
        weights = held_out.fit_weights(tables[:, usable], column[usable], centre, spread)
        parts = zip(spaces, base_scorers, weights[1:] / np.array(units), strict=True)
        weighted.append(_Weighted(float(weights[0]), tuple((s, e, float(w)) for s, e, w in parts)))
    return AutoModel(present, scales, tuple(weighted))


_register = partial(
    register,
    needs=NEEDS,
    optional=OPTIONAL,
    source="this project; docs/research/auto.md",
    complexity="O(n(m + C)d), fit O(m^3 + m^2 d), m shots",
    log_odds=True,
    fit=fit_auto,
)


@_register("auto", formula=_FORMULA)
def auto(evidence: Evidence, model: AutoModel) -> ScoreResult:
    """Log-odds of the VLM's prediction, given text and shots; no knob to turn. 0 is even odds.

    Each scorer is a log-linear mix of the logits and of its own evidence in the vision encoder's
    space, and in the VLM's own where those vectors are passed. The weights maximise the likelihood
    of the shots, each held out. A class without shots is judged by its text against an average
    image.
    """
    prediction = vlm_prediction(evidence)
    return ScoreResult(prediction, held_out.log_odds(auto_logits(evidence, model), prediction))


@_register("auto_star", formula=_FORMULA.replace("yhat", "the best class"), corrects=True)
def auto_star(evidence: Evidence, model: AutoModel) -> ScoreResult:
    """As `auto`, but the prediction is the class that text and shots together favour."""
    logits = auto_logits(evidence, model)
    prediction = logits.argmax(axis=1)
    return ScoreResult(prediction, held_out.log_odds(logits, prediction))
