"""Choose weight and temperature on the shots, each held out, or on other labelled images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.exceptions import FewSamplesWarning, InputError
from trustvlm.scores import Evidence, ScoreResult, get
from trustvlm.scores.evidence import Comparison, compare
from trustvlm.scores.held_out import compare_held_out
from trustvlm.scores.prototype_scores import Setting, sweep_comparison
from trustvlm.serialization import nan_to_null

# Half decades around the untuned values; they hold the released ones, and 0, which is MSP.
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
TEMPERATURES = (0.003, 0.01, 0.03, 0.1, 0.3)
# The scores that have something to select, and as which of them it is selected: what prototypes
# learn from a shot cannot be undone to hold it out, so *(F) takes what suits *.
SELECTABLE = {
    "trustvlm": "trustvlm",
    "trustvlm_star": "trustvlm_star",
    "trustvlm_star_f": "trustvlm_star",
}

# A paired bootstrap says whether a candidate is worse than the best one.
_RESAMPLES, _LEVEL = 500, 0.95
_SELECTED = {"trustvlm": ("weight",), "trustvlm_star": ("weight", "temperature")}


@dataclass(frozen=True)
class Selection:
    """Settings of a score, and how they were chosen.

    Attributes
    ----------
    score
        The score that they suit best, one of the values of `SELECTABLE`.
    by
        `loo`, on the shots, each held out; or `validation`, on other labelled images.
    parameters
        The chosen values of what was selected.
    n
        Images that the choice was made on.
    aurc, untuned_aurc
        AURC on these images, as fractions, with the chosen and with the default values; NaN
        without images. The first is too good to be true: it chose them.
    remark
        What a reader should know besides; "" if nothing.
    """

    score: str
    by: str
    parameters: Mapping[str, float]
    n: int
    aurc: float
    untuned_aurc: float
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; NaN becomes None."""
        return {
            "by": self.by,
            "score": self.score,
            "criterion": "aurc",
            "n": self.n,
            "aurc": nan_to_null(self.aurc),
            "untuned_aurc": nan_to_null(self.untuned_aurc),
            "parameters": dict(self.parameters),
            "remark": self.remark,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Selection:
        """Read what `to_dict` wrote."""
        named: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        for key in ("aurc", "untuned_aurc"):
            named[key] = math.nan if named[key] is None else named[key]
        return cls(**named)

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} {value:g}" for name, value in self.parameters.items())
        where = f"{self.n} shots, each held out" if self.by == "loo" else f"{self.n} other images"
        if not self.n:
            return f"{chosen} as by default: {self.remark}"
        return (
            f"{chosen}, selected on {where}: AURC x1000 {1000 * self.aurc:.1f} there, "
            f"{1000 * self.untuned_aurc:.1f} untuned" + (f" ({self.remark})" if self.remark else "")
        )


def check_selectable(score: str) -> None:
    """Raise `InputError` unless a score has something to select."""
    if score not in SELECTABLE:
        itself = ""
        if score.startswith("auto") and "support_labels" in get(score).needs:
            itself = ": it weighs text and examples by itself, on the examples, each held out"
        raise InputError(
            f"The score `{score}` has no weight and temperature to select{itself}. Leave the "
            f"selection out, or choose one of the scores that do: {', '.join(SELECTABLE)}."
        )


def free_settings(score: str, fixed: Mapping[str, Any]) -> list[str]:
    """Name the settings of a score that can be selected and are not fixed.

    Examples
    --------
    >>> free_settings("trustvlm_star", {"weight": 1.0}), free_settings("msp", {})
    (['temperature'], [])
    """
    names = _SELECTED[SELECTABLE[score]] if score in SELECTABLE else ()
    return [name for name in names if name not in fixed]


def check_link(score: str, fixed: Mapping[str, Any]) -> None:
    """Raise `InputError` if settings would be selected for another link than the softmax.

    Examples
    --------
    >>> check_link("trustvlm", {"link": "sigmoid", "weight": 1.0})
    """
    if fixed.get("link", "softmax") != "softmax" and free_settings(score, fixed):
        raise InputError(
            "Weight and temperature are selected for the link `softmax` alone: give the weight "
            "with the link `sigmoid`."
        )


def select_by_holding_out(
    score: str, shots: Evidence, *, fixed: Mapping[str, Any] | None = None
) -> Selection:
    """Choose a score's weight and temperature on the shots alone, each of them held out.

    Every shot is scored with prototypes made without it (`compare_held_out`), which have one shot
    fewer than those that will be used. Shots of a class that has no other one say nothing; if
    there are only such, the default stays.

    Parameters
    ----------
    score
        One of the keys of `SELECTABLE`.
    shots
        With `support_features`, `support_labels` and `support_logits`.
    fixed
        Values that are not to be selected.

    Raises
    ------
    InputError
        If the score has nothing to select.
    EvidenceMissingError
        If the shots, or their logits, are not there.
    """
    held_out = compare_held_out(shots)
    selection = _select(score, "loo", held_out.comparison, held_out.labels, fixed or {})
    left = len(shots.support_labels if shots.support_labels is not None else ()) - selection.n
    if not selection.n:
        return replace(selection, remark="no class has a second shot to be compared with")
    if left:
        return replace(selection, remark=f"{left} shots of classes without another one say nothing")
    return selection


def select_on(
    score: str,
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    fixed: Mapping[str, Any] | None = None,
) -> Selection:
    """Choose a score's weight and temperature on labelled images that are neither shots nor tests.

    Parameters
    ----------
    score
        One of the keys of `SELECTABLE`.
    evidence
        With `features` and `bank`, of n images.
    labels
        `(n,)` their classes.
    fixed
        Values that are not to be selected.

    Raises
    ------
    InputError
        If the score has nothing to select, or the numbers of images and labels differ.
    EvidenceMissingError
        If features or prototypes are not there.
    """
    evidence.demand(("features", "bank"), by=score)
    if len(labels) != evidence.n:
        raise InputError(f"Expected {evidence.n} `labels`, one an image, but got {len(labels)}.")
    selection = _select(score, "validation", compare(evidence), labels, fixed or {})
    return selection if selection.n else replace(selection, remark="there is no image to select on")


def _select(
    score: str,
    by: str,
    comparison: Comparison,
    labels: NDArray[np.int64],
    fixed: Mapping[str, Any],
) -> Selection:
    """Take the candidate nearest to the default that is not worse than the best beyond chance.

    With few images the best of many candidates is mostly luck. This is the rule of one standard
    error (Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3), with the
    95 % interval of the paired difference instead of one standard error.
    """
    check_selectable(score)
    rule, free = SELECTABLE[score], free_settings(score, fixed)
    default = {name: fixed.get(name, get(rule).parameters[name]) for name in _SELECTED[rule]}
    untuned: Setting = (default["weight"], default.get("temperature"))
    results = dict(
        sweep_comparison(
            rule,
            comparison,
            {*WEIGHTS, untuned[0]} if "weight" in free else untuned[:1],
            {*TEMPERATURES, default["temperature"]}
            if "temperature" in free
            else (default.get("temperature", math.nan),),
        )
    )
    chosen, value, at_default = untuned, math.nan, math.nan
    if len(labels):
        values = {c: metrics.aurc(r.confidence, r.prediction == labels) for c, r in results.items()}
        nearest_first = sorted(values, key=lambda candidate: _distance(candidate, untuned))
        best = min(nearest_first, key=values.__getitem__)
        chosen = next(c for c in nearest_first if _no_worse(results[c], results[best], labels))
        value, at_default = values[chosen], values[untuned]
    named = zip(("weight", "temperature"), chosen, strict=True)
    return Selection(
        score=rule,
        by=by,
        parameters={
            name: float(value) for name, value in named if name in free and value is not None
        },
        n=len(labels),
        aurc=value,
        untuned_aurc=at_default,
    )


def _distance(candidate: Setting, default: Setting) -> tuple[float, Setting]:
    """Say how many factors of e away a candidate is; a weight of 0 counts as 0.001."""
    steps = (
        abs(math.log(max(value, 1e-3) / max(start, 1e-3)))
        for value, start in zip(candidate, default, strict=True)
        if value is not None and start is not None
    )
    return sum(steps), candidate


def _no_worse(candidate: ScoreResult, best: ScoreResult, labels: NDArray[np.int64]) -> bool:
    with warnings.catch_warnings():
        # Few errors make the interval wide, and the setting stay nearer to the default.
        warnings.simplefilter("ignore", FewSamplesWarning)
        paired = metrics.paired_bootstrap(
            candidate.confidence,
            best.confidence,
            candidate.prediction == labels,
            best.prediction == labels,
            "aurc",
            n_resamples=_RESAMPLES,
            level=_LEVEL,
        )
    return paired.difference <= 0 or paired.low <= 0
