"""From evidence to verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trustvlm.decisions import accept_on_agreement
from trustvlm.decisions.scope import EVERYTHING, Scope
from trustvlm.pipeline.calibration import Calibration
from trustvlm.pipeline.gathering import Gathered, S
from trustvlm.pipeline.reasons import reasons, with_threshold
from trustvlm.pipeline.verdicts import Verdict
from trustvlm.pipeline.views import Views, look
from trustvlm.scores import Evidence, PreparedScore, ScoreResult

__all__ = ["judge", "verdict_rows"]


def judge(
    evidence: Evidence,
    score: PreparedScore,
    found: Gathered[S],
    class_names: Sequence[str],
    scope: Scope = EVERYTHING,
    calibration: Calibration | None = None,
) -> list[Verdict]:
    """Return one verdict per image, in input order, failures included."""
    result = score(evidence)
    views = look(evidence, result.prediction, scope)
    paths = [ref.path for ref in found.refs]
    return found.in_order(verdict_rows(result, views, paths, class_names, calibration))


def verdict_rows(
    result: ScoreResult,
    views: Views,
    paths: Sequence[str],
    class_names: Sequence[str],
    calibration: Calibration | None = None,
) -> list[Verdict]:
    """Combine a score's result with the two views of it into n verdicts.

    Decisions and P(correct) are those of the calibration; see `decisions.uncalibrated` without one.
    """
    whys = reasons(result.prediction, views, class_names)
    thresholds = None if calibration is None else calibration.thresholds(result)
    if thresholds is None:
        accepted = accept_on_agreement(result.prediction, views.nearest, views.unlike)
    else:
        accepted = (result.confidence >= thresholds) & ~views.unlike
        whys = with_threshold(whys, result.confidence, thresholds, outside=views.unlike)
    p_correct = np.full(len(paths), math.nan)
    if calibration is not None:
        p_correct = calibration.p_correct(result)
    return [
        Verdict(
            path=path,
            label=class_names[result.prediction[i]],
            confidence=float(result.confidence[i]),
            p_correct=float(p_correct[i]),
            decision="accept" if accepted[i] else "review",
            text_score=float(views.text_score[i]),
            image_score=float(views.image_score[i]),
            runner_up=class_names[views.runner_up[i]] if views.runner_up[i] >= 0 else "",
            reason=whys[i],
            error="",
        )
        for i, path in enumerate(paths)
    ]
