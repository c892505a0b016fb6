"""`auto` and `auto_star`: text and shots weighed against each other by what held-out shots say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import log_odds, pick, row_blocks, unit_rows
from trustvlm.scores.base_scorers import (
    DISCRIMINANT_STRENGTHS,
    RIDGE_STRENGTHS,
    LinearScorer,
    discriminant,
    prototypes,
    ridge,
    scale_of,
)
from trustvlm.scores.compute import Packed, ScoreResult, Storage, register
from trustvlm.scores.evidence import (
    FEATURE_SPACES,
    NO_SHOTS,
    Evidence,
    FeatureSpace,
    images_in,
)
from trustvlm.scores.stacking import (
    evidence_scale,
    fit_weights,
    scaled_log_loss,
    stratified_folds,
    text_scale,
)
from trustvlm.scores.zero_shot import judged_labels

Array = NDArray[np.float64]
NEEDS = ("logits", "features", "support_features", "support_labels", "support_logits")
OPTIONAL = ("image_embeddings", "support_image_embeddings")
_FORMULA = (
    "log-odds of yhat in softmax(a z + sum of b E over prototypes, ridge, discriminant in each "
    "image space); a, b by cross-validation on the shots"
)

# Means and spreads of the prior on weights. Text: in units of the factor that makes its softmax fit
# the shots, the less the more shots a class there are. Scorers: in units of their evidence's own
# spread. They matter where there are few shots, and alone decide at one shot a class. Chosen on
# training images, leaving out one set at a time: docs/research/auto.md.
_TEXT, _TEXT_SPREAD, _TEXT_LESS = 0.9, 0.3, 0.08
_VISUAL: Mapping[FeatureSpace, float] = {"features": 0.3, "image_embeddings": 0.09}
# A class with a single shot takes over a label only where its odds against it are at least this.
_LEAST_ODDS = 2.0

_FOLDS = 8
# Weights are fitted on held-out shots whose tables of evidence have at most so many entries.
_TABLE_ENTRIES = 2**21
# Shots of one class whose features have this cosine are one picture, stored twice: no two of 12,000
# different photographs of 12 sets had even 0.999.
_COPY = 1.0 - 1e-4
# Features of one space and embeddings of the other that differ less than this are the same.
_SAME_SPACE = 1e-4


@dataclass(frozen=True)
class SpaceModel:
    """What the shots say in one image space, added up over its scorers, weights included.

    Attributes
    ----------
    centre, scale
        `(d,)` mean of the shots, and the scale of each dimension.
    prototypes
        `(d, C)`, of rows around the centre, so long that to scale they have length one.
    linear, offsets
        `(d, C)` and `(C,)`, of rows around the centre.
    """

    centre: Array
    scale: Array
    prototypes: Array
    linear: Array
    offsets: Array

    def evidence(self, rows: Array, shift: Array | None = None) -> Array:
        """Return `(n, C)` for unit rows `(n, d)`; `shift` is taken from the scaled rows."""
        away = rows - self.centre
        if shift is not None:
            away -= shift * self.scale
        result = away @ self.linear
        result += self.offsets
        lengths = np.linalg.norm(away / self.scale, axis=1, keepdims=True)
        away /= np.where(lengths > 0, lengths, 1.0)
        result += away @ self.prototypes
        return np.asarray(result)


@dataclass(frozen=True)
class AutoModel:
    """What `auto` learns from the shots.

    Attributes
    ----------
    counts
        `(C,)` int64, different shots of each class.
    text
        Weight of the logits.
    spaces
        What the shots say, by space.
    """

    counts: NDArray[np.int64]
    text: float
    spaces: Mapping[FeatureSpace, SpaceModel]

    @property
    def present(self) -> NDArray[np.bool_]:
        """`(C,)`, which classes have shots."""
        return self.counts > 0

    def logits(
        self, evidence: Evidence, shift: Mapping[FeatureSpace, Array] | None = None
    ) -> Array:
        """Combine text and shots into `(n, C)` logits; `shift` is taken from the scaled images.

        For a class without shots the image is as probable as on average over the others: it can
        win by its text alone.
        """
        shift = shift or {}
        evidence.demand(self.spaces, by="auto")
        tables = [
            model.evidence(images_in(space, evidence), shift.get(space))
            for space, model in self.spaces.items()
        ]
        visual = tables[0]
        for table in tables[1:]:
            visual += table
        if not self.present.all():
            seen = visual[:, self.present]
            top = seen.max(axis=1, keepdims=True)
            background = top + np.log(np.exp(seen - top).mean(axis=1, keepdims=True))
            visual = np.where(self.present, visual, background)
        visual += self.text * evidence.logits
        return visual

    def best(self, logits: Array, vlm: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class `(n,)` that the logits favour, if it has the shots to correct a label.

        A single shot shows little of a class: it takes over the VLM's label only where its odds
        against it are at least 2, or corrections would lower the accuracy of good models.

        Parameters
        ----------
        logits
            `(n, C)`, as `logits` returns.
        vlm
            `(n,)` the VLM's predictions.
        """
        top = logits.argmax(axis=1)
        lead = pick(logits, top) - pick(logits, vlm)
        return np.where((self.counts[top] > 1) | (lead >= np.log(_LEAST_ODDS)), top, vlm)


def fit_auto(evidence: Evidence) -> AutoModel:
    """Learn base scorers from the shots, and by cross-validation how far to believe each.

    Raises
    ------
    InputError
        If there are no shots.
    """
    return evidence.learned(STORAGE.key({}), lambda: _fitted(evidence))


def different_shots(evidence: Evidence) -> NDArray[np.int64]:
    """Return the rows of the shots, of several copies of a picture in one class the first.

    A copy that is held out is judged by the others: it would pass for one that is recognised.
    """
    return evidence.once("different shots", lambda: _different_shots(evidence))


def _different_shots(evidence: Evidence) -> NDArray[np.int64]:
    features, labels = evidence.piece("support_features"), evidence.piece("support_labels")
    by_class = np.argsort(labels, kind="stable")
    different = np.ones(len(labels), dtype=bool)
    for shots in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        rows = unit_rows(features[shots])
        for block in row_blocks(len(shots), len(shots)):
            alike = np.tril(rows[block] @ rows.T >= _COPY, block.start - 1)
            for i in np.flatnonzero(alike.any(axis=1)):
                # Of a chain of pictures, each like the next alone, every second one stays.
                different[shots[block.start + i]] = not different[shots[alike[i]]].any()
    return np.flatnonzero(different)


def auto_logits(evidence: Evidence, model: AutoModel) -> Array:
    """Return `model.logits(evidence)`, computed once for all scores that build on it."""
    return evidence.once("logits of auto", lambda: model.logits(evidence), of=model)


# The base scorers, each with the strengths of its regularisation to choose from.
_Fit = Callable[[Array, NDArray[np.int64], int, Sequence[float]], list[LinearScorer]]
_SCORERS: tuple[tuple[_Fit, Sequence[float]], ...] = (
    (prototypes, (0.0,)),
    (ridge, RIDGE_STRENGTHS),
    (discriminant, DISCRIMINANT_STRENGTHS),
)


def _fitted(evidence: Evidence) -> AutoModel:
    labels = evidence.piece("support_labels")
    if not len(labels):
        raise InputError(NO_SHOTS)
    kept = different_shots(evidence)
    labels = labels[kept]
    counts = np.bincount(labels, minlength=evidence.n_classes)
    present = counts > 0
    n_present = int(present.sum())
    shots = {
        space: unit_rows(evidence.piece(f"support_{space}")[kept])
        for space in FEATURE_SPACES
        if evidence.has(f"support_{space}")
    }
    if len(shots) == 2 and _same(*shots.values()):
        del shots["image_embeddings"]
    # By class, and within one by content, so that folds do not depend on the order of the shots.
    order = np.lexsort((*shots["features"].T[3::-1], labels))
    columns = (np.cumsum(present) - 1)[labels[order]]

    def text_logits(rows: NDArray[np.int64]) -> Array:
        # Of some shots only: with thousands of classes the table of all is the largest there is.
        return evidence.piece("support_logits")[kept[order[rows]]][:, present].astype(np.float64)

    most = max(1, _TABLE_ENTRIES // n_present)
    folds = stratified_folds(columns, _FOLDS, most)
    judged = np.concatenate([np.empty(0, dtype=np.int64), *(judged for _, judged in folds)])
    # The text has not seen the shots: single ones speak for its scale too.
    shown = np.union1d(judged, np.flatnonzero(counts[labels[order]] == 1))
    shown = shown[np.arange(n := min(len(shown), most)) * len(shown) // max(n, 1)]
    scale = text_scale(text_logits(shown), columns[shown])
    text = _TEXT * scale / (1.0 + _TEXT_LESS * (len(labels) / n_present - 1.0))
    tables, centre, spread = [text_logits(judged)], [text], [_TEXT_SPREAD * scale]
    scorers: dict[FeatureSpace, list[LinearScorer]] = {}
    units: list[float] = []
    scales = {space: scale_of(rows) for space, rows in shots.items()}
    for space, rows in shots.items():
        rows, scorers[space] = rows[order], []
        for fit, strengths in _SCORERS:
            used = rows if fit is discriminant else rows / scales[space]
            scorer, table, unit = _cross_fitted(fit, strengths, used, columns, folds, shown)
            scorers[space].append(scorer)
            units.append(unit)
            tables.append(table / unit)
            centre.append(_VISUAL[space])
            spread.append(_VISUAL[space])
    weights = fit_weights(tables, columns[judged], np.array(centre), np.array(spread))
    by_space = (weights[1:] / units).reshape(len(shots), len(_SCORERS))
    spaces = {
        space: _space_model(shots[space].mean(axis=0), scales[space], of_space, own, present)
        for (space, of_space), own in zip(scorers.items(), by_space, strict=True)
    }
    return AutoModel(counts, float(weights[0]), spaces)


def _space_model(
    centre: Array,
    scale: Array,
    scorers: Sequence[LinearScorer],
    weights: Array,
    present: NDArray[np.bool_],
) -> SpaceModel:
    """Add up the scorers of one space, `_SCORERS` in their order, each times its weight."""
    (by_prototype, by_ridge, by_density), (a, b, c) = scorers, weights
    shape = (len(centre), len(present))
    cosines, linear, offsets = np.zeros(shape), np.zeros(shape), np.zeros(len(present))
    # The discriminant is of rows as they are, the others of rows to scale; all are around the mean.
    cosines[:, present] = a * by_prototype.coefficients / scale[:, None]
    linear[:, present] = b * by_ridge.coefficients / scale[:, None] + c * by_density.coefficients
    offsets[present] = b * by_ridge.offsets + c * by_density.offsets
    return SpaceModel(centre, scale, cosines, linear, offsets)


def _cross_fitted(
    fit: _Fit,
    strengths: Sequence[float],
    rows: Array,
    labels: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    shown: NDArray[np.int64],
) -> tuple[LinearScorer, Array, float]:
    """Fit a scorer to all shots, with the strength that is best on held-out ones.

    Returns
    -------
    scorer, table, unit
        The scorer; its evidence `(k, C)` for the shots of all folds, each held out; and the spread
        of that evidence among wrong classes. Where no shot can be held out, the strength is the
        middle one, and the spread is that of the shots themselves, `shown` of them.
    """
    n_classes = int(labels.max()) + 1
    judged = np.concatenate([np.empty(0, dtype=np.int64), *(judged for _, judged in folds)])
    tables = np.empty((len(strengths), len(judged), n_classes))
    done = 0
    for fitted, held_out in folds:
        scorers = fit(rows[fitted], labels[fitted], n_classes, strengths)
        for table, scorer in zip(tables, scorers, strict=True):
            table[done : done + len(held_out)] = scorer.evidence(rows[held_out])
        done += len(held_out)
    best = len(strengths) // 2
    if len(judged) and len(strengths) > 1:
        best = int(np.argmin([scaled_log_loss(table, labels[judged]) for table in tables]))
    [scorer] = fit(rows, labels, n_classes, strengths[best : best + 1])
    if len(judged):
        return scorer, tables[best], evidence_scale(tables[best], labels[judged])
    return scorer, tables[best], evidence_scale(scorer.evidence(rows[shown]), labels[shown])


def _same(features: Array, embeddings: Array) -> bool:
    """Whether the vision encoder is the VLM's own: then its space counts once."""
    return features.shape == embeddings.shape and bool(
        np.abs(features - embeddings).max() < _SAME_SPACE
    )


# What is learned, as arrays.


def pack(model: AutoModel) -> Packed:
    """Reduce a model to arrays and values."""
    arrays = {
        f"{space}_{name}": getattr(part, name)
        for space, part in model.spaces.items()
        for name in _ARRAYS
    }
    values = {"text": model.text, "spaces": list(model.spaces)}
    return Packed({"counts": model.counts, **arrays}, values)


def unpack(evidence: Evidence, packed: Packed) -> AutoModel:
    """Return the model of `pack`, checked against the shots that it was learned from.

    Raises
    ------
    InputError, KeyError
        If an array is missing, is not finite, or does not fit the shots.
    """
    n_classes = evidence.n_classes
    most = np.bincount(evidence.piece("support_labels"), minlength=n_classes)
    counts = packed.arrays["counts"]
    # Fewer where some are copies.
    if counts.shape != most.shape or (counts > most).any() or ((counts > 0) != (most > 0)).any():
        raise InputError("Expected `counts` to be those of the shots.")
    spaces: dict[FeatureSpace, SpaceModel] = {}
    for space in FEATURE_SPACES:
        if space not in packed.values["spaces"]:
            continue
        d = evidence.piece(f"support_{space}").shape[1]
        shapes = ((d,), (d,), (d, n_classes), (d, n_classes), (n_classes,))
        arrays = [packed.arrays[f"{space}_{name}"] for name in _ARRAYS]
        for name, array, shape in zip(_ARRAYS, arrays, shapes, strict=True):
            if array.dtype != np.float64 or array.shape != shape or not np.isfinite(array).all():
                raise InputError(
                    f"Expected `{space}_{name}` to be finite float64 of shape {shape}, but got "
                    f"{array.dtype} of shape {array.shape}."
                )
        spaces[space] = SpaceModel(*arrays)
        if not (spaces[space].scale > 0).all():
            raise InputError(f"Expected `{space}_scale` to be above 0.")
    text = float(packed.values["text"])
    if not 0 <= text < np.inf:
        raise InputError(
            f"Expected the weight `text` to be finite and not below 0, but got {text}."
        )
    if "features" not in spaces:
        raise InputError("Expected what was learned in the space of `features`.")
    return AutoModel(counts, text, spaces)


_ARRAYS = tuple(field.name for field in fields(SpaceModel))
STORAGE = Storage("auto", 1, pack, unpack)

_register = partial(
    register,
    needs=NEEDS,
    optional=OPTIONAL,
    source="this project; docs/research/auto.md",
    complexity="O(nCd), fit O(md^2 + mCd), m shots",
    log_odds=True,
    revision=2,
    by_shot=False,
    storage=STORAGE,
    fit=fit_auto,
)


# What a labeller's own log-odds weigh beside those of text and shots: more with a single shot.
_GIVEN_CONFIDENCE, _GIVEN_CONFIDENCE_OF_ONE_SHOT = 0.5, 1.0
# Probabilities that labellers give are read as no nearer to 0 and 1 than this: many say 1.
_SUREST = 1e-3


def labeller_log_odds(confidence: Array, shots: int) -> Array:
    """Weigh the probabilities `(n,)` that came with the labels as log-odds; NaN counts as 1/2.

    Parameters
    ----------
    confidence
        From 0 to 1, or NaN. Those nearer to 0 or 1 than 0.001 count as that far.
    shots
        The median number of a class.

    Examples
    --------
    >>> labeller_log_odds(np.array([0.5, np.nan, 0.9]), shots=1).round(3)
    array([0.   , 0.   , 2.197])
    """
    p = np.clip(np.where(np.isnan(confidence), 0.5, confidence), _SUREST, 1.0 - _SUREST)
    weight = _GIVEN_CONFIDENCE if shots > 1 else _GIVEN_CONFIDENCE_OF_ONE_SHOT
    return np.asarray(weight * np.log(p / (1.0 - p)))


@_register(
    "auto",
    formula=_FORMULA,
    optional=(*OPTIONAL, "label_confidence"),
    judges_given=True,
    without_text=True,
)
def auto(evidence: Evidence, model: AutoModel) -> ScoreResult:
    """Log-odds of the VLM's prediction, given text and shots; no knob to turn. 0 is even odds.

    A log-linear mix of the logits and of what prototypes, ridge regression and a linear
    discriminant say in the vision encoder's space, and in the VLM's own where those vectors are
    passed. The weights maximise the likelihood of the shots, each held out in cross-validation. A
    class without shots is judged by its text against an average image. To the log-odds of a given
    label those of the probability that came with it are added, at half their weight.
    """
    prediction = judged_labels(evidence)
    confidence = log_odds(auto_logits(evidence, model), prediction)
    if evidence.label_confidence is not None:
        shots = int(np.median(model.counts[model.present]))
        confidence = confidence + labeller_log_odds(evidence.label_confidence, shots)
    return ScoreResult(prediction, confidence)


@_register("auto_star", formula=_FORMULA.replace("yhat", "the best class"), corrects=True)
def auto_star(evidence: Evidence, model: AutoModel) -> ScoreResult:
    """As `auto`, but the prediction is the class that text and shots together favour.

    A class with a single shot takes over the VLM's label only at odds of at least 2 against it.
    """
    logits = auto_logits(evidence, model)
    prediction = model.best(logits, judged_labels(evidence))
    return ScoreResult(prediction, log_odds(logits, prediction))
