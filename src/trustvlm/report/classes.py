"""The evaluation class by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm import metrics

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["ClassRow", "class_rows", "shots_by_class"]


@dataclass(frozen=True)
class ClassRow:
    """One class of the evaluation.

    Attributes
    ----------
    name
        The class.
    images, right, wrong
        Evaluated images whose true class it is, by whether the predicted label is right.
    shots
        Example images that the model was fitted with; None if the artefact does not say.
    accuracy, confidence
        Share right and mean confidence; NaN without images.
    confusion, confused
        The wrong label most often given instead and how often; "" and 0 if there is none.
    auroc
        Of right against wrong images of this class; NaN unless it has both.
    """

    name: str
    images: int
    shots: int | None
    right: int
    wrong: int
    accuracy: float
    confidence: float
    confusion: str
    confused: int
    auroc: float


def class_rows(evaluation: EvaluationResult) -> list[ClassRow]:
    """Return one row per class, in the order of the class names, for the model's own score."""
    names = evaluation.class_names
    result = evaluation.results[evaluation.score]
    correct = evaluation.correct()
    shots = shots_by_class(evaluation.model, len(names))
    order = np.argsort(evaluation.labels, kind="stable")
    bounds = np.searchsorted(evaluation.labels[order], np.arange(len(names) + 1))
    rows = []
    for label, name in enumerate(names):
        members = order[bounds[label] : bounds[label + 1]]
        right, confidence = correct[members], result.confidence[members]
        wrong = Counter(result.prediction[members[~right]].tolist())
        # The most frequent one; of equally frequent ones the first class.
        confusion = min(wrong, key=lambda c: (-wrong[c], c), default=None)
        both = bool(right.any() and not right.all())
        rows.append(
            ClassRow(
                name=name,
                images=len(members),
                shots=None if shots is None else shots[label],
                right=int(right.sum()),
                wrong=int((~right).sum()),
                accuracy=float(right.mean()) if len(members) else math.nan,
                confidence=float(confidence.mean()) if len(members) else math.nan,
                confusion="" if confusion is None else names[confusion],
                confused=0 if confusion is None else wrong[confusion],
                auroc=float(metrics.auroc(confidence, right)) if both else math.nan,
            )
        )
    return rows


def shots_by_class(manifest: Mapping[str, Any], n_classes: int) -> Sequence[int] | None:
    """Return the shots of each of the C classes; None if the manifest does not tell.

    Examples
    --------
    >>> shots_by_class({"shots": {"counts": [0, 16]}}, 2)
    [0, 16]
    >>> shots_by_class({}, 2) is None
    True
    """
    shots = manifest.get("shots")
    counts = shots.get("counts") if isinstance(shots, Mapping) else None
    if not isinstance(counts, list) or len(counts) != n_classes:
        return None
    return counts
