"""The evaluation in words: what was found, what the score buys, what to keep in mind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm.report.accepting import Acceptance
from trustvlm.report.columns import by_aurc, number
from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["WorkingPoint", "cautions", "findings", "model_notes", "working_points"]

_FEW = 100
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class WorkingPoint:
    """Share right when the most trusted share of the images is accepted, for each score."""

    coverage: float
    accepted: int
    accuracy: Mapping[str, float]


def working_points(
    acceptances: Mapping[str, Acceptance],
) -> list[WorkingPoint]:
    """Return the share right at a few shares accepted, once per distinct number of images."""
    first = next(iter(acceptances.values()))
    points: dict[int, WorkingPoint] = {}
    for coverage in _COVERAGES:
        k = first.count_at(coverage)
        accuracy = {name: found.accuracy_at(coverage) for name, found in acceptances.items()}
        points.setdefault(k, WorkingPoint(k / first.n, k, accuracy))
    return list(points.values())


def findings(evaluation: EvaluationResult, acceptances: Mapping[str, Acceptance]) -> list[str]:
    """Return the headline as sentences; `acceptances` holds the model's own score and maybe msp."""
    n, score = len(evaluation.labels), evaluation.score
    if n == 0:
        return ["No image could be evaluated, so there are no figures."]
    found = evaluation.metrics[score]
    own = acceptances[score]
    right = round(float(own.n - own.wrong(own.n)))
    sentences = [
        f"{counted(n, 'image')} of {counted(len(evaluation.class_names), 'class', 'classes')}: "
        f"{percent(right / n)} of the predicted labels are right."
    ]
    if right in (0, n):
        every = "right" if right else "wrong"
        sentences.append(
            f"Every label is {every}, so there is nothing that a score could tell apart here."
        )
        return sentences
    if n >= 10:
        sentences.append(_bought(score, acceptances))
    if not math.isnan(found.auroc):
        sentences.append(
            f"Shown a right and a wrong label, the score {score} trusts the right one more in "
            f"{percent(found.auroc)} of cases (AUROC; 50\N{NO-BREAK SPACE}% would be a coin toss)."
        )
    leader = by_aurc(evaluation.metrics)[0]
    leading = evaluation.metrics[leader].aurc
    if len(evaluation.metrics) > 1 and not math.isnan(leading):
        if found.aurc <= leading:
            sentences.append(
                f"Of {counted(len(evaluation.metrics), 'score')} compared, "
                "none has a lower AURC on these images."
            )
        else:
            sentences.append(
                f"On these images the score {leader} has a lower AURC "
                f"({number(1000 * leading, 1)} against {number(1000 * found.aurc, 1)})."
            )
    return sentences


def _bought(score: str, acceptances: Mapping[str, Acceptance]) -> str:
    own = acceptances[score]
    sentence = (
        f"The 80\N{NO-BREAK SPACE}% that the score {score} trusts most are "
        f"{percent(own.accuracy_at(0.8))} right, the 50\N{NO-BREAK SPACE}% it trusts most "
        f"{percent(own.accuracy_at(0.5))}"
    )
    baseline = acceptances.get("msp")
    if baseline is None or score == "msp":
        return f"{sentence}."
    return (
        f"{sentence}; with the text's own probability (MSP) it would be "
        f"{percent(baseline.accuracy_at(0.8))} and {percent(baseline.accuracy_at(0.5))}."
    )


def cautions(evaluation: EvaluationResult) -> list[str]:
    """Return what a reader must know before relying on the figures."""
    notes = model_notes(evaluation.model)
    n = len(evaluation.labels)
    if n:
        notes.append(_decision_note(evaluation))
        notes.append(
            "Confidence is a score, not a probability; the figures hold for images like these "
            "and promise nothing about others."
        )
    if 0 < n < _FEW:
        notes.append(
            f"With {counted(n, 'image')} only, every figure is coarse: one image more or less "
            f"right moves the accuracy by {percent(1 / n)}."
        )
    if evaluation.near_copies.found:
        notes.append(f"{evaluation.near_copies.warning()}.")
    unread = len(evaluation.failures)
    if unread:
        verb = "is" if unread == 1 else "are"
        notes.append(f"{counted(unread, 'image')} could not be read and {verb} in no figure here.")
    return notes


def model_notes(manifest: Mapping[str, Any]) -> list[str]:
    """Return the warnings that the models carry, each once."""
    models = manifest.get("models")
    described = models.values() if isinstance(models, Mapping) else ()
    notes = [str(model.get("note") or "") for model in described if isinstance(model, Mapping)]
    return [note for note in dict.fromkeys(notes) if note]


def _decision_note(evaluation: EvaluationResult) -> str:
    from trustvlm.decisions import UNCALIBRATED_RULE

    correct = evaluation.correct()
    made = np.array(evaluation.verdicts.column("decision"))
    parts = []
    for decision, verb in (("accept", "accepts"), ("review", "sends to review")):
        chosen = correct[made == decision]
        share = f" ({percent(float(chosen.mean()))} right)" if len(chosen) else ""
        parts.append(f"{verb} {counted(len(chosen), 'image')}{share}")
    rule = evaluation.model.get("decision_rule") or UNCALIBRATED_RULE
    return f"Decisions are {str(rule).rstrip('.')}. Here the rule {' and '.join(parts)}."
