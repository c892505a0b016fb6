"""Which images a reader should see: the telling errors and the telling successes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trustvlm.report.accepting import trusted_less
from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["Case", "Group", "galleries"]


@dataclass(frozen=True)
class Case:
    """One image to show.

    Attributes
    ----------
    file, path
        Where its pixels are, and its name as the user knows it.
    truth, label, confidence, reason
        True class, predicted class, and the verdict's confidence and reason.
    right
        Whether the predicted label is right.
    standing
        How its trust compares with that of the other images, in words.
    """

    file: Path
    path: str
    truth: str
    label: str
    confidence: float
    reason: str
    right: bool
    standing: str


@dataclass(frozen=True)
class Group:
    """Images that show one thing: a title, what it means, and a few cases."""

    title: str
    meaning: str
    cases: tuple[Case, ...]


def galleries(evaluation: EvaluationResult, limit: int = 9) -> list[Group]:
    """Choose the images to show, at most `limit` in a group; ties keep the input order.

    Most confident errors, least trusted correct ones and, if there is a baseline to compare with,
    rescued errors: labels that the text alone gets wrong and yet trusts (its MSP is in the upper
    half), and that the model's own score corrects or moves to the lower half.
    """
    confidence = evaluation.results[evaluation.score].confidence
    correct = evaluation.correct()
    errors = _first(np.flatnonzero(~correct), -confidence, limit)
    doubted = _first(np.flatnonzero(correct), confidence, limit)
    own = trusted_less(confidence)
    groups = [
        Group(
            "Most confident errors",
            "Wrong labels with the highest trust: what would slip through first."
            if len(errors)
            else "Every predicted label is right: there is no error to show.",
            tuple(_case(evaluation, i, _standing(own[i])) for i in errors),
        ),
        Group(
            "Least trusted correct ones",
            "Right labels with the lowest trust: what a threshold would send to review in vain."
            if len(doubted)
            else "No predicted label is right: there is none to show.",
            tuple(_case(evaluation, i, _standing(own[i])) for i in doubted),
        ),
    ]
    if "msp" in evaluation.results and evaluation.score != "msp":
        groups.append(_rescued(evaluation, own, limit))
    return groups


def _rescued(evaluation: EvaluationResult, own: NDArray[np.float64], limit: int) -> Group:
    baseline = evaluation.results["msp"]
    text = trusted_less(baseline.confidence)
    text_right = baseline.prediction == evaluation.labels
    right = evaluation.correct()
    trusted = text >= 0.5
    caught = trusted & ~text_right & (right | (own < 0.5))
    spoilt = trusted & text_right & (~right | (own < 0.5))
    # Corrected labels first, then those that lose most trust.
    chosen = _first(np.flatnonzero(caught), np.where(right, -1.0, own - text), limit)
    cases = []
    for i in chosen:
        if right[i]:
            before = evaluation.class_names[baseline.prediction[i]]
            standing = f"corrected: by text alone the label is {before}"
        else:
            standing = (
                f"by text alone trusted more than {percent(text[i], 0)} of the images, "
                f"here more than {percent(own[i], 0)}"
            )
        cases.append(_case(evaluation, i, standing))
    meaning = (
        "Wrong labels that the text alone (MSP) trusts, being in the upper half of its order, and "
        "that this score corrects or moves to the lower half. "
        f"It does so for {counted(int(caught.sum()), 'wrong label')}; "
        f"{counted(int(spoilt.sum()), 'right label')} fared just as badly."
    )
    return Group("Rescued errors", meaning, tuple(cases))


def _first(candidates: NDArray[np.intp], keys: NDArray[np.float64], limit: int) -> NDArray[np.intp]:
    """Return the candidates with the smallest keys."""
    chosen: NDArray[np.intp] = candidates[np.argsort(keys[candidates], kind="stable")[:limit]]
    return chosen


def _standing(share: float) -> str:
    if share == 0:
        return "no image is trusted less"
    return f"trusted more than {percent(share, 0)} of the images"


def _case(evaluation: EvaluationResult, index: int, standing: str) -> Case:
    verdict = evaluation.verdicts[int(index)]
    truth = int(evaluation.labels[index])
    result = evaluation.results[evaluation.score]
    label = int(result.prediction[index])
    return Case(
        file=Path(evaluation.files[int(index)]),
        path=verdict.path,
        truth=evaluation.class_names[truth],
        label=evaluation.class_names[label],
        confidence=float(result.confidence[index]),
        reason=verdict.reason,
        right=label == truth,
        standing=standing,
    )
