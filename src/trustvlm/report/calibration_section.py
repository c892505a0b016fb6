"""The page's section on the calibration: what was promised, and how it fares on these images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm import metrics
from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["CalibrationSection", "calibration_section"]


@dataclass(frozen=True)
class CalibrationSection:
    """Everything the section shows: sentences, and terms with values."""

    promise: tuple[str, ...]
    measured: tuple[tuple[str, str], ...]


def calibration_section(evaluation: EvaluationResult) -> CalibrationSection | None:
    """Gather what the section shows; None if the model is not calibrated or nothing was read."""
    told = evaluation.model.get("calibration")
    if not told or not len(evaluation.labels):
        return None
    p = np.array(evaluation.verdicts.column("p_correct"))
    correct = evaluation.correct()
    return CalibrationSection(
        promise=_promise(told),
        measured=(*_decisions(evaluation), *_qualities(metrics.probability_quality(p, correct))),
    )


def _promise(told: dict[str, Any]) -> tuple[str, ...]:
    data = told["data"]
    if told["certificate"] is None:
        return (f"{_sentence(told['statement'])} {counted(data['n'], 'shot')} were judged.",)
    first = (
        f"Calibrated at {told['created_at']} on {counted(data['n'], 'labelled image')} of "
        f"{data['name']} (fingerprint {data['fingerprint'][:12]}), none of which is evaluated here."
    )
    certified = told["certificate"]["certified"]
    lead = "What was found" if certified else "Nothing is accepted"
    second = f"{lead}: {told['statement']}."
    return (first, second, told["assumption"]) if certified else (first, second)


def _decisions(evaluation: EvaluationResult) -> list[tuple[str, str]]:
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    n, k = len(accepted), int(accepted.sum())
    wrong = int((accepted & ~evaluation.correct()).sum())
    share = f"{percent(wrong / k)} of these ({wrong:,})" if k else "none is accepted"
    return [
        ("Accepted here", f"{percent(k / n)} ({k:,} of {counted(n, 'image')})"),
        ("Wrong among the accepted", share),
    ]


def _qualities(quality: dict[str, float]) -> list[tuple[str, str]]:
    brier, constant = quality["brier"], quality["brier_constant"]
    rms = quality["rms_calibration_error"]
    return [
        (
            "Brier score",
            f"{brier:.3f}, lower is better; the same probability for all costs {constant:.3f}",
        ),
        (
            "Calibration error (ECE)",
            f"{quality['ece']:.3f}, mean distance from the diagonal; biased upwards: perfect "
            f"probabilities would show {quality['ece_if_calibrated']:.3f} on so few images",
        ),
        (
            "Debiased (root mean square)",
            "undefined with so few images" if math.isnan(rms) else f"{rms:.3f}; 0 is perfect",
        ),
    ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
