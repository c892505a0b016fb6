"""`auto` and `auto_star`: text and shots weighed against each other by what held-out shots say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_FORMULA = (
    "log-odds of yhat in softmax(mean over base scorers of a z + b E + b' E'), "
    "E prototypes, neighbours, ridge; a, b, b' by leave-one-out on the shots"
)

# Means and spreads of the prior on weights, in units of the evidence's own scale. They matter
# where there are few shots, and alone decide at one shot a class.
_TEXT, _TEXT_SPREAD = 0.3, 0.5
_VISUAL: Mapping[held_out.FeatureSpace, float] = {"features": 1.0, "image_embeddings": 0.3}
_VISUAL_SPREAD = 0.5


# Weights are fitted on held-out shots whose tables of evidence have at most so many entries.
_TABLE_ENTRIES = 2**22


@dataclass(frozen=True)
class Part:
    """One base scorer in one space."""

    space: held_out.FeatureSpace
    scorer: held_out.BaseScorer


@dataclass(frozen=True)
class Mix:
    """A weighted sum of the logits and of the parts' evidence.

    Attributes
    ----------
    share
        Of this mix in the model; shares sum to 1.
    text
        Weight of the logits.
    weights
        `(K,)` of the parts, 0 for those that take no part in it.
    """

    share: float
    text: float
    weights: Array


@dataclass(frozen=True)
class AutoModel:
    """What `auto` learns from the shots.

    Attributes
    ----------
    present
        `(C,)` bool, which classes have shots.
    scales
        Scale of each dimension, by space.
    parts
        The base scorers.
    mixes
        Which are averaged.
    """

    present: NDArray[np.bool_]
    scales: Mapping[held_out.FeatureSpace, Array]
    parts: tuple[Part, ...]
    mixes: tuple[Mix, ...]

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
        # Where all classes have shots, nothing is done to a mix that is not linear: they are one.
        mixes = (self._mean(),) if self.present.all() else self.mixes
        z = evidence.logits.astype(np.float64)
        visual = [np.zeros_like(z) for _ in mixes]
        for k, part in enumerate(self.parts):
            answers = part.scorer.evidence(rows[part.space])
            for mix, table in zip(mixes, visual, strict=True):
                if mix.weights[k]:
                    table += mix.weights[k] * answers
        total = sum(mix.share * mix.text for mix in mixes) * z
        for mix, table in zip(mixes, visual, strict=True):
            total += mix.share * self._filled(table)
        return np.asarray(total)

    def _mean(self) -> Mix:
        return Mix(
            1.0,
            sum(mix.share * mix.text for mix in self.mixes),
            np.sum([mix.share * mix.weights for mix in self.mixes], axis=0),
        )

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
    judged = held_out.balanced_subset(labels, max(1, _TABLE_ENTRIES // int(present.sum())))
    spaces = [space for space in held_out.FEATURE_SPACES if evidence.has(f"support_{space}")]
    scales, parts, tables = {}, [], []
    for space in spaces:
        shots = held_out.shots_in(space, evidence)
        scales[space] = held_out.scale_of(shots)
        shots /= scales[space]
        for make in held_out.BASE_SCORERS:
            scorer, answers = make(shots, labels, evidence.n_classes, judged)
            parts.append(Part(space, scorer))
            tables.append(answers if present.all() else answers[:, present])
    z = evidence.piece("support_logits")[judged].astype(np.float64)[:, present]
    mixes = _fit_mixes(z, tables, spaces, (np.cumsum(present) - 1)[labels], counts[labels], judged)
    return AutoModel(present, scales, tuple(parts), mixes)


def _fit_mixes(
    z: Array,
    tables: Sequence[Array],
    spaces: Sequence[held_out.FeatureSpace],
    columns: NDArray[np.int64],
    class_sizes: NDArray[np.int64],
    judged: NDArray[np.int64],
) -> tuple[Mix, ...]:
    """Fit the weights of each base scorer's mix by the likelihood of the held-out shots.

    Parameters
    ----------
    z, tables
        `(k, P)` logits of the k shots that were held out, and the evidence of each part for them;
        the parts of the first space come first.
    spaces
        Of the parts.
    columns, class_sizes
        `(m,)` column of each shot's class, and how many shots that class has.
    judged
        `(k,)` which of the m shots were held out.
    """
    m, column = len(columns), columns[judged]
    usable = class_sizes[judged] > 1
    text = held_out.fit_weights(
        [z], column, np.array([_TEXT]), np.array([_TEXT_SPREAD]), each=m / len(judged)
    )[0]
    units = np.array([held_out.evidence_scale(table, column) for table in tables])
    centre = np.array([0.5 * text, *(_VISUAL[space] for space in spaces)])
    spread = np.array([max(text, 0.05), *(_VISUAL_SPREAD for _ in spaces)])
    each = (class_sizes > 1).sum() / max(usable.sum(), 1)
    mixes = []
    for first in range(len(held_out.BASE_SCORERS)):
        chosen = [first + i * len(held_out.BASE_SCORERS) for i in range(len(spaces))]
        of_mix = [z[usable], *(tables[k][usable] / units[k] for k in chosen)]
        fitted = held_out.fit_weights(of_mix, column[usable], centre, spread, each=each)
        weights = np.zeros(len(tables))
        weights[chosen] = fitted[1:] / units[chosen]
        mixes.append(Mix(1.0 / len(held_out.BASE_SCORERS), float(fitted[0]), weights))
    return tuple(mixes)


_register = partial(
    register,
    needs=NEEDS,
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
