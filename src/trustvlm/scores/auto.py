"""`auto` and `auto_star`: text and shots weighed against each other by what held-out shots say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores import held_out
from trustvlm.scores.compute import Packed, ScoreResult, Storage, register
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


# Up to so many shots, every image is compared with each of them. Beyond, with those of the classes
# only that text, prototypes and ridge leave possible: whose odds against the second best class are
# at least exp(-4). On SUN397 the log-odds change by 0.005 on average, and at most by 0.08.
_ALL_COMPARED = 4096
_MARGIN = 4.0


@dataclass(frozen=True)
class StandIn:
    """What stands for a part where it is not computed: intercept + slope * another part.

    Up to a number for each image, which odds do not depend on.

    Attributes
    ----------
    part
        Which of the parts: one that is linear.
    slope, intercept
        A number, and `(C,)`.
    """

    part: int
    slope: float
    intercept: Array

    @classmethod
    def of(cls, part: int, other: Array, table: Array, labels: NDArray[np.int64]) -> StandIn:
        """Fit a table `(k, C)` by that of another part, by least squares over the wrong classes."""
        others = np.maximum(len(labels) - np.bincount(labels, minlength=table.shape[1]), 1)
        x, y = held_out.around_wrong(other, labels), held_out.around_wrong(table, labels)
        x_means, y_means = x.sum(axis=0) / others, y.sum(axis=0) / others
        square = float(np.vdot(x, x) - others @ x_means**2)
        product = float(np.vdot(x, y) - others @ (x_means * y_means))
        slope = product / square if square > 0 else 0.0
        return cls(part, slope, y_means - slope * x_means)

    def among(self, present: NDArray[np.bool_]) -> StandIn:
        """Return what was fitted on the classes that have shots, about all classes."""
        intercept = np.zeros(len(present))
        intercept[present] = self.intercept
        return replace(self, intercept=intercept)


@dataclass(frozen=True)
class Part:
    """One base scorer in one space, and what stands for it where it is not computed."""

    space: held_out.FeatureSpace
    scorer: held_out.LinearScorer | held_out.NeighbourScorer
    stand_in: StandIn | None = None


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
        # Of the coefficients; images are in that of the shots, or rounded to it.
        precision = np.result_type(*(part.scorer.precision for part in self.parts))
        rows = {
            space: held_out.scaled_images(space, evidence, scale, precision)
            for space, scale in self.scales.items()
        }
        for space, moved in shift.items():
            rows[space] -= moved.astype(precision)
        # Where all classes have shots, nothing is done to a mix that is not linear: they are one.
        mixes = (self._mean(),) if self.present.all() else self.mixes
        inputs = [part.scorer.inputs(rows[part.space]) for part in self.parts]
        # Tables of the parts that others are compared with by their stand-ins.
        tables: dict[int, NDArray[Any]] = {
            part.stand_in.part: np.empty(0) for part in self.parts if part.stand_in is not None
        }
        visual = self._visual(mixes, inputs, tables)
        total = np.multiply(
            evidence.logits, sum(mix.share * mix.text for mix in mixes), dtype=np.float64
        )
        if any(part.stand_in for part in self.parts):
            about = total + sum(mix.share * table for mix, table in zip(mixes, visual, strict=True))
            self._compare(mixes, inputs, visual, tables, *_possible(about, evidence, self.present))
        for mix, table in zip(mixes, visual, strict=True):
            total += mix.share * self._filled(table)
        return total

    def _mean(self) -> Mix:
        return Mix(
            1.0,
            sum(mix.share * mix.text for mix in self.mixes),
            np.sum([mix.share * mix.weights for mix in self.mixes], axis=0),
        )

    def _visual(
        self,
        mixes: Sequence[Mix],
        inputs: Sequence[NDArray[Any]],
        tables: dict[int, NDArray[Any]],
    ) -> list[NDArray[Any]]:
        """Add up the evidence `(n, C)` of each mix, stand-ins in place of their parts.

        That of the parts in `tables` is kept there.
        """
        shape = (len(inputs[0]), len(self.present))
        totals = [np.zeros(shape, np.result_type(*inputs)) for _ in mixes]
        weights = [mix.weights.copy() for mix in mixes]
        for k, part in enumerate(self.parts):
            if (stand_in := part.stand_in) is not None:
                for own, total in zip(weights, totals, strict=True):
                    own[stand_in.part] += own[k] * stand_in.slope
                    total += (own[k] * stand_in.intercept).astype(total.dtype)
        for k, part in enumerate(self.parts):
            scorer = part.scorer
            if isinstance(scorer, held_out.LinearScorer) and k not in tables:
                for own, total in zip(weights, totals, strict=True):
                    if own[k]:
                        scorer.add(inputs[k], float(own[k]), total)
            elif part.stand_in is None:
                answers = scorer.answers(inputs[k])
                if k in tables:
                    tables[k] = answers
                for own, total in zip(weights, totals, strict=True):
                    if own[k]:
                        total += float(own[k]) * answers
        return totals

    def _compare(
        self,
        mixes: Sequence[Mix],
        inputs: Sequence[NDArray[Any]],
        visual: Sequence[NDArray[Any]],
        tables: Mapping[int, NDArray[Any]],
        images: NDArray[np.int64],
        classes: NDArray[np.int64],
    ) -> None:
        """Put what parts say in place of their stand-ins, for some pairs of image and class."""
        n, number = len(inputs[0]), np.bincount(images, minlength=len(inputs[0]))
        for k, part in enumerate(self.parts):
            scorer, stand_in = part.scorer, part.stand_in
            if stand_in is None or not isinstance(scorer, held_out.NeighbourScorer):
                continue
            other = tables[stand_in.part][images, classes]
            wrong = scorer.pairs(inputs[k], images, classes) - (
                stand_in.slope * other + stand_in.intercept[classes]
            )
            # Classes that are not compared keep their place beside those that are.
            common = np.bincount(images, wrong, n) / np.maximum(number, 1)
            wrong -= common[images]
            for mix, table in zip(mixes, visual, strict=True):
                table[images, classes] += mix.weights[k] * wrong

    def _filled(self, visual: NDArray[Any]) -> NDArray[Any]:
        if self.present.all():
            return visual
        seen = visual[:, self.present]
        top = seen.max(axis=1, keepdims=True)
        background = top + np.log(np.exp(seen - top).mean(axis=1, keepdims=True))
        return np.where(self.present, visual, background)


def _possible(
    logits: Array, evidence: Evidence, present: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images and classes that may be told apart, pair by pair, class after class.

    The logits are overwritten.
    """
    each = np.arange(len(logits))
    best = logits.argmax(axis=1)
    logits[each, best] = -np.inf
    possible = logits >= logits.max(axis=1, keepdims=True) - _MARGIN
    possible[each, best] = True
    possible[each, vlm_prediction(evidence)] = True
    possible &= present
    classes, images = np.nonzero(possible.T)
    return images, classes


def fit_auto(evidence: Evidence) -> AutoModel:
    """Learn base scorers from the shots, and by leave-one-out how far to believe each.

    Raises
    ------
    InputError
        If there are no shots.
    """
    return evidence.learned(STORAGE.key({}), lambda: _fitted(evidence))


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
    columns = (np.cumsum(present) - 1)[labels]
    spaces = [space for space in held_out.FEATURE_SPACES if evidence.has(f"support_{space}")]
    stored = {space: evidence.piece(f"support_{space}") for space in spaces}
    precision = np.result_type(*stored.values())
    scales: dict[held_out.FeatureSpace, Array] = {}
    parts: list[Part] = []
    tables: list[Array] = []
    for space in spaces:
        shots = held_out.shots_in(space, evidence)
        scales[space] = held_out.scale_of(shots)
        shots /= scales[space]
        for make in held_out.BASE_SCORERS:
            if make is held_out.neighbours:
                # The scorer keeps the shots that are stored, not a copy to scale.
                near, answers = held_out.neighbours(
                    stored[space], labels, len(present), judged, scale=scales[space]
                )
                answers = answers if present.all() else answers[:, present]
                stand_in = None
                if len(labels) > _ALL_COMPARED:
                    stand_in = StandIn.of(len(tables) - 1, tables[-1], answers, columns[judged])
                    stand_in = stand_in.among(present)
                parts.append(Part(space, near, stand_in))
            else:
                scorer, answers = make(shots, labels, len(present), judged)
                answers = answers if present.all() else answers[:, present]
                if isinstance(scorer, held_out.LinearScorer):
                    scorer = scorer.in_precision(precision)
                parts.append(Part(space, scorer))
            tables.append(answers)
    z = evidence.piece("support_logits")[judged].astype(np.float64)[:, present]
    mixes = _fit_mixes(z, tables, spaces, columns, counts[labels], judged)
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


# What is learned, as arrays; the neighbours' shots are the evidence's own.


def _pack(model: AutoModel) -> Packed:
    arrays: dict[str, NDArray[Any]] = {
        "present": model.present,
        "weights": np.stack([mix.weights for mix in model.mixes]),
        "text": np.array([mix.text for mix in model.mixes]),
        "share": np.array([mix.share for mix in model.mixes]),
        **{f"scale_{space}": scale for space, scale in model.scales.items()},
    }
    parts: list[dict[str, Any]] = []
    for k, part in enumerate(model.parts):
        scorer, stand_in = part.scorer, part.stand_in
        entry: dict[str, Any] = {"space": part.space}
        if isinstance(scorer, held_out.LinearScorer):
            entry |= {"kind": "linear", "unit": scorer.unit}
            arrays |= {
                f"centre_{k}": scorer.centre,
                f"coefficients_{k}": scorer.coefficients,
                f"intercept_{k}": scorer.intercept,
            }
        else:
            entry |= {"kind": "neighbours"}
            arrays[f"lengths_{k}"] = scorer.lengths
        if stand_in is not None:
            entry |= {"stand_in": stand_in.part, "slope": stand_in.slope}
            arrays[f"stand_in_{k}"] = stand_in.intercept
        parts.append(entry)
    return Packed(arrays, {"parts": parts})


def _unpack(evidence: Evidence, packed: Packed) -> AutoModel:
    labels, n_classes = evidence.piece("support_labels"), evidence.n_classes

    def array(name: str, *shape: int, kind: str = "f") -> NDArray[Any]:
        stored = packed.arrays[name]
        if stored.shape != shape or stored.dtype.kind != kind or not np.isfinite(stored).all():
            raise InputError(
                f"Expected `{name}` to be finite, of kind {kind!r} and shape {shape}, but got "
                f"{stored.dtype} of shape {stored.shape}."
            )
        return stored

    entries = packed.values["parts"]
    parts: list[Part] = []
    scales: dict[held_out.FeatureSpace, Array] = {}
    for k, entry in enumerate(entries):
        if entry["space"] not in held_out.FEATURE_SPACES:
            raise InputError(f"Expected the space of a part, but got {entry['space']!r}.")
        space: held_out.FeatureSpace = entry["space"]
        shots = evidence.piece(f"support_{space}")
        d = shots.shape[1]
        scales[space] = array(f"scale_{space}", d)
        scorer: held_out.LinearScorer | held_out.NeighbourScorer
        if entry["kind"] == "linear":
            coefficients = array(f"coefficients_{k}", n_classes, d)
            intercept = array(f"intercept_{k}", n_classes)
            scorer = held_out.LinearScorer(
                array(f"centre_{k}", d), coefficients, intercept, bool(entry["unit"])
            )
        else:
            lengths = array(f"lengths_{k}", len(labels))
            scorer = held_out.NeighbourScorer.of(shots, labels, n_classes, scales[space], lengths)
        stand_in = None
        if "stand_in" in entry:
            if not 0 <= entry["stand_in"] < k:
                raise InputError(f"Expected a part before {k}, but got {entry['stand_in']}.")
            intercept = array(f"stand_in_{k}", n_classes)
            stand_in = StandIn(entry["stand_in"], float(entry["slope"]), intercept)
        parts.append(Part(space, scorer, stand_in))
    n_mixes = len(packed.arrays["share"])
    numbers = [array(name, n_mixes) for name in ("share", "text")]
    weights = array("weights", n_mixes, len(parts))
    mixes = tuple(Mix(float(s), float(t), w) for s, t, w in zip(*numbers, weights, strict=True))
    present = array("present", n_classes, kind="b")
    if not (present == (np.bincount(labels, minlength=n_classes) > 0)).all():
        raise InputError("Expected `present` to be the classes that have shots.")
    return AutoModel(present, scales, tuple(parts), mixes)


STORAGE = Storage("auto", 1, _pack, _unpack)

_register = partial(
    register,
    needs=NEEDS,
    source="this project; docs/research/auto.md",
    complexity="O(nCd) and O(nmd) up to 4096 shots m, fit O(md min(m, d) + kmd), k held out",
    log_odds=True,
    by_shot=False,
    storage=STORAGE,
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
