"""Measure scores on the shots alone: each fold of them is judged with prototypes of the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.exceptions import EvidenceMissingError, InputError, UndefinedMetricWarning
from trustvlm.metrics import Evaluation, PairedDifference
from trustvlm.pipeline.select import SELECTABLE
from trustvlm.scores import (
    Evidence,
    PrototypeBank,
    ScoreResult,
    apply,
    check_parameters,
    get,
    names,
)
from trustvlm.serialization import nan_to_null


@dataclass(frozen=True)
class CrossValidation:
    """What the shots say about scores.

    Attributes
    ----------
    folds
        How many folds were asked for.
    labels
        `(k,)` int64, classes of the shots that were judged.
    left_out
        Shots that were not judged, because their class has no other one.
    results
        Prediction and confidence of every score on these, `(k,)` each.
    metrics
        Metrics of every score on these.
    """

    folds: int
    labels: NDArray[np.int64]
    left_out: int
    results: Mapping[str, ScoreResult]
    metrics: Mapping[str, Evaluation]

    def difference(self, score: str, other: str, metric: str = "accuracy") -> PairedDifference:
        """Compare two scores on the same shots by a paired bootstrap, `score` minus `other`."""
        a, b = self.results[score], self.results[other]
        return metrics.paired_bootstrap(
            a.confidence,
            b.confidence,
            a.prediction == self.labels,
            b.prediction == self.labels,
            metric,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return rows and settings as plain JSON values; NaN becomes None."""
        rows = [
            {
                "score": name,
                **{key: nan_to_null(float(getattr(evaluation, key))) for key in metrics.names()},
                "n": evaluation.n,
            }
            for name, evaluation in self.metrics.items()
        ]
        return {"rows": rows, "folds": self.folds, "left_out": self.left_out}


def cross_validate(
    shots: Evidence,
    scores: Sequence[str] | None = None,
    *,
    folds: int = 4,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    convention: str = "exact",
) -> CrossValidation:
    """Judge every shot with what the shots of the other folds say, before any test image is seen.

    The shots of each class are dealt to the folds in turn, so prototypes have fewer shots than
    those that will be used: the true figures are somewhat better. A shot whose class has no other
    one always helps the others and is not judged itself. The choice among scores that these
    figures suggest is made on them: they are then no longer an estimate of what it is worth.

    Parameters
    ----------
    shots
        With `support_features`, `support_labels` and `support_logits`; a bank and images are not
        looked at.
    scores
        Names; None takes every score that the shots have the evidence for.
    folds
        At least 2. A class with fewer shots is left one out at a time.
    parameters
        A score's own parameters by its name; defaults otherwise.
    convention
        Of the metrics: `exact` or `trustvlm`.

    Raises
    ------
    EvidenceMissingError
        If the shots are not there, or lack what a score needs.
    InputError
        If `folds` is out of range, a score or parameter does not exist, or no class has two shots.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 8)
    >>> shots = Evidence.of(
    ...     logits=np.empty((0, 2)), support_labels=labels, support_logits=np.zeros((16, 2)),
    ...     support_features=3 * np.eye(2)[labels] + rng.normal(size=(16, 2)))
    >>> measured = cross_validate(shots, ["msp", "trustvlm_star"]).metrics
    >>> measured["msp"].accuracy, measured["trustvlm_star"].accuracy
    (0.5, 1.0)
    """
    check_folds(folds)
    labels = shots.support_labels
    if labels is None or shots.support_features is None or shots.support_logits is None:
        raise EvidenceMissingError(
            "Cross-validation needs `support_features`, `support_labels` and `support_logits`."
        )
    fold = deal_folds(labels, folds)
    judged = np.flatnonzero(fold >= 0)
    if not len(judged):
        raise InputError("Expected some class to have two shots, but none has.")
    for name, given in (parameters or {}).items():
        check_parameters(name, given)
    parts = {f: split_fold(shots, fold, f) for f in np.unique(fold[judged]).tolist()}
    first = next(iter(parts.values()))
    if scores is None:
        scores = [n for n, needs in names().items() if all(map(first.has, needs))]
    results = {}
    for name in dict.fromkeys(scores):
        first.demand(get(name).needs, by=name)
        prediction = np.empty(len(labels), dtype=np.int64)
        confidence = np.empty(len(labels))
        for f, evidence in parts.items():
            result = apply(name, evidence, **(parameters or {}).get(name, {}))
            prediction[fold == f], confidence[fold == f] = result.prediction, result.confidence
        results[name] = ScoreResult(prediction[judged], confidence[judged])
    truth = labels[judged]
    return CrossValidation(
        folds=folds,
        labels=truth,
        left_out=len(labels) - len(judged),
        results=results,
        metrics={name: measure(result, truth, convention) for name, result in results.items()},
    )


def with_same_settings(score: str, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the parameters of a score to those that are compared with it fairly at the same ones.

    Examples
    --------
    >>> with_same_settings("trustvlm_star", {"temperature": 0.1})["trustvlm_star_f"]
    {'temperature': 0.1}
    """
    settings = {score: dict(parameters)}
    for other, rule in SELECTABLE.items():
        if other != score and rule == SELECTABLE.get(score):
            own = get(other).parameters
            settings[other] = {name: value for name, value in parameters.items() if name in own}
    return settings


def check_folds(folds: int) -> None:
    """Raise `InputError` unless it is a number of folds."""
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise InputError(f"Expected `folds` to be a whole number of at least 2, but got {folds!r}.")


def deal_folds(labels: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Deal shots to folds, class by class and in turn; -1 for the only shot of its class.

    Each class begins with another fold, so that the folds are of like size.

    Examples
    --------
    >>> deal_folds(np.array([0, 0, 0, 1, 1, 2]), 2)
    array([ 0,  1,  0,  1,  0, -1])
    """
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    turn = np.empty(len(labels), dtype=np.int64)
    turn[order] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return np.where(counts[labels] > 1, (turn + labels) % folds, -1)


def split_fold(
    shots: Evidence,
    fold: NDArray[np.int64],
    held_out: int,
    given: Mapping[str, NDArray[Any] | None] | None = None,
) -> Evidence:
    """Return the shots of one fold as images, with those of the others as shots.

    Parameters
    ----------
    shots
        With `support_features` and `support_labels`.
    fold
        `(m,)` of each.
    held_out
        The fold that is judged.
    given
        `given_labels` and `label_confidence` of all shots, `(m,)` each, if these are judged.
    """
    seen, kept = fold == held_out, fold != held_out
    features, labels = shots.piece("support_features"), shots.piece("support_labels")
    text: dict[str, Any] = {}
    if shots.has_text:
        logits = shots.piece("support_logits")
        text = {"logits": logits[seen], "support_logits": logits[kept]}
        text |= {"text_embeddings": shots.text_embeddings, "logit_bias": shots.logit_bias}
        if (embeddings := shots.support_image_embeddings) is not None:
            text["image_embeddings"] = embeddings[seen]
            text["support_image_embeddings"] = embeddings[kept]
    judged = {name: array[seen] for name, array in (given or {}).items() if array is not None}
    return Evidence.of(
        features=features[seen],
        # Classes without shots in the other folds are still classes.
        bank=PrototypeBank().fit(features[kept], labels[kept], n_classes=shots.n_classes),
        support_features=features[kept],
        support_labels=labels[kept],
        **text,
        **shots.target_arrays,
        **judged,
    )


def measure(result: ScoreResult, truth: NDArray[np.int64], convention: str) -> Evaluation:
    """Measure a score's result on labelled images; what is undefined is NaN, unsaid."""
    with warnings.catch_warnings():
        # The tables say for each score what is undefined; one warning per score would not help.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metrics.evaluate(
            result.confidence, result.prediction == truth, convention=convention
        )
