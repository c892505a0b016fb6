"""All figures of an evaluation, inline in its page and as files of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trustvlm import metrics
from trustvlm.files import write_text
from trustvlm.report.accepting import Acceptance, perfect_curve
from trustvlm.report.columns import by_aurc
from trustvlm.report.figures import confidence_histogram_svg, risk_coverage_svg
from trustvlm.report.reliability_figure import reliability_svg

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["acceptances", "drawings", "write_figures"]

_MAX_CURVES = 6
# Many enough for steady ends of a 95 % interval, few enough for a hundred thousand images.
_RESAMPLES = 500


def write_figures(evaluation: EvaluationResult, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the figures of the report as SVG files, and return these.

    They are `risk-coverage.svg`, `confidence-histogram.svg` and, for a calibrated model,
    `reliability.svg`; none for fewer than two images. Each stands alone, black on whatever lies
    behind it; within a page it takes the page's colours.

    Parameters
    ----------
    evaluation
        What `trustvlm evaluate` found.
    folder
        Where to write; missing folders are made, files of the same names replaced.
    """
    written = []
    for name, drawing in drawings(evaluation).items():
        target = Path(folder) / f"{name}.svg"
        write_text(target, drawing + "\n")
        written.append(target)
    return written


def acceptances(evaluation: EvaluationResult) -> dict[str, Acceptance]:
    """Return what is drawn: the model's own score, msp, and the best others by AURC."""
    if not len(evaluation.labels):
        return {}
    ranked = by_aurc(evaluation.metrics)
    wanted = [name for name in (evaluation.score, "msp") if name in evaluation.results]
    names = list(dict.fromkeys(wanted + ranked))[:_MAX_CURVES]
    return {
        name: Acceptance.of(evaluation.results[name].confidence, evaluation.correct(name))
        for name in names
    }


def drawings(evaluation: EvaluationResult) -> dict[str, str]:
    """Return the figures by name as SVG; those that there is too little data for are left out."""
    n, correct = len(evaluation.labels), evaluation.correct()
    found = {}
    if n >= 2:
        found["risk-coverage"] = _risk_coverage(evaluation)
        found["confidence-histogram"] = confidence_histogram_svg(
            evaluation.results[evaluation.score].confidence, correct, score=evaluation.score
        )
    if n and evaluation.model.get("calibration"):
        p = np.array(evaluation.verdicts.column("p_correct"))
        found["reliability"] = reliability_svg(p, correct)
    return found


def _risk_coverage(evaluation: EvaluationResult) -> str:
    curves = {name: found.curve() for name, found in acceptances(evaluation).items()}
    coverage = curves[evaluation.score][0]
    bands = {}
    for name in {evaluation.score, "msp"} & curves.keys():
        confidence = evaluation.results[name].confidence
        correct = evaluation.correct(name)
        band = metrics.risk_band(confidence, correct, coverage, n_resamples=_RESAMPLES)
        bands[name] = (band.low, band.high)
    return risk_coverage_svg(
        curves,
        highlight=evaluation.score,
        bands=bands,
        ideal=perfect_curve(float(evaluation.correct().mean()), coverage),
        decided=_decided(evaluation),
    )


def _decided(evaluation: EvaluationResult) -> tuple[float, float] | None:
    """Share accepted by the model's decisions and share wrong among these; None for none."""
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    if not accepted.any():
        return None
    return float(accepted.mean()), float(1 - evaluation.correct()[accepted].mean())
