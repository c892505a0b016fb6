"""Conformal selection: the expected share of wrong labels among those accepted in a batch.

This is a weaker guarantee than that of a certificate, and needs far fewer labelled images. It is
about the average over calibration sets and batches; of a single batch, more may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.metrics.inputs import confidence_array
from trustvlm.risk_control.certify import among
from trustvlm.risk_control.sequences import Accepting
from trustvlm.risk_control.tests import check_fraction
from trustvlm.serialization import nan_to_null
from trustvlm.text import exact_number, short_percent


@dataclass(frozen=True)
class ConformalSelection:
    """What a calibration set says of batches, and of single images where that is proved.

    Attributes
    ----------
    risk
        The expected share of wrong labels among those accepted is at most this.
    n
        Images of the calibration set.
    wrong
        Confidences of its wrong ones that might be accepted, descending.
    threshold
        For images that come one by one, without a batch: accept where confidence >= threshold;
        NaN where no threshold is proved.
    accepted, errors
        How many images of the calibration set this threshold accepts, how many of those are wrong.

    Examples
    --------
    >>> rule = select_conformal([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 1, 1, 0, 0], risk=0.3)
    >>> rule.accept([0.95, 0.65, 0.55, 0.45, 0.3])
    array([ True,  True,  True, False, False])
    """

    risk: float
    n: int
    wrong: tuple[float, ...]
    threshold: float
    accepted: int
    errors: int

    def counts(self, confidence: ArrayLike, eligible: ArrayLike | None = None) -> NDArray[np.int64]:
        """Count the images of a batch by how many wrong calibration images are trusted as much.

        All that `batch_threshold` needs; the counts of the parts of a batch add up.

        Parameters
        ----------
        confidence
            `(m,)` of the batch.
        eligible
            `(m,)` booleans, which of them may be accepted at all; None for all.

        Returns
        -------
        ndarray
            `(w + 2,)` int64: images with 0, 1, ... w of the w wrong calibration images at least
            as trusted as they, and those that may not be accepted.
        """
        score = confidence_array(confidence).astype(np.float64)
        ascending = np.array(self.wrong, dtype=np.float64)[::-1]
        above = len(ascending) - np.searchsorted(ascending, score, side="left")
        if eligible is not None:
            above = np.where(np.asarray(eligible, dtype=bool), above, len(ascending) + 1)
        return np.bincount(above, minlength=len(ascending) + 2)

    def batch_threshold(self, counts: NDArray[np.int64]) -> float:
        """Return above which confidence the labels of a batch are accepted.

        Parameters
        ----------
        counts
            Of `counts`, over the whole batch.

        Returns
        -------
        float
            Accept where confidence > threshold: -inf for all, inf for none.

        Notes
        -----
        The p-value of an image with k wrong calibration images at least as trusted is
        (1 + k) / (n + 1), and Benjamini & Hochberg's procedure at the level `risk` decides which
        are small enough: the largest k with (1 + k) / (n + 1) <= risk * R_k / m, where R_k of the m
        images have at most k. Jin & Candes 2023, "Selection by prediction with conformal p-values"
        (arXiv 2210.01408), theorem 6, with the score of a wrong label clipped.
        """
        m = int(counts.sum())
        k = np.arange(len(self.wrong) + 1)
        passed = np.flatnonzero((1 + k) * m <= self._level * np.cumsum(counts[:-1]))
        if not passed.size:
            return math.inf
        last = int(passed[-1])
        return self.wrong[last] if last < len(self.wrong) else -math.inf

    def accept(self, confidence: ArrayLike, eligible: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Decide on a whole batch: `(m,)` booleans, which labels to accept."""
        score = confidence_array(confidence)
        threshold = self.batch_threshold(self.counts(score, eligible))
        chosen = score.astype(np.float64) > threshold
        return chosen if eligible is None else chosen & np.asarray(eligible, dtype=bool)

    @property
    def certified(self) -> bool:
        """Whether a batch could be accepted: all of it if trusted more than any wrong image."""
        return self._level >= 1

    @property
    def _level(self) -> float:
        # 49 / 49 rounds to less than 1.
        return self.risk * (self.n + 1) * (1 + 1e-12)

    @property
    def coverage(self) -> float:
        """Share of the calibration set that the threshold for single images accepts."""
        return self.accepted / self.n if self.n else 0.0

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(m,)` the threshold for images that come one by one; NaN where there is none."""
        return np.full(len(prediction), self.threshold)

    def statement(self) -> str:
        """Say it in words."""
        if not self.certified:
            more = math.ceil(1 / self.risk - 1e-9) - 1 - self.n
            return (
                f"none: for an expected share of at most {short_percent(self.risk)} wrong you "
                f"would need at least {more} more labelled images than the {self.n} there are"
            )
        single = (
            f"for single images, accept at confidence >= {exact_number(self.threshold)}"
            if not math.isnan(self.threshold)
            else f"for single images, outside a batch, {self.n} labelled images prove no threshold"
        )
        return (
            f"on average, at most {short_percent(self.risk)} of the labels accepted in a batch are "
            "wrong (the mean over many calibration sets and batches; any one batch may hold more); "
            f"the threshold follows from the batch; {single}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; None for NaN."""
        return {"kind": "expectation", "certified": self.certified, **nan_to_null(asdict(self))}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ConformalSelection:
        """Restore what `to_dict` gave."""
        values: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        values["wrong"] = tuple(map(float, values["wrong"]))
        if list(values["wrong"]) != sorted(values["wrong"], reverse=True):
            raise ValueError("`wrong`, which is not in descending order")
        values["threshold"] = math.nan if values["threshold"] is None else values["threshold"]
        return cls(**values)


def select_conformal(
    confidence: ArrayLike,
    correct: ArrayLike,
    risk: float = 0.05,
    *,
    eligible: ArrayLike | None = None,
) -> ConformalSelection:
    """Learn from a calibration set which labels of new batches to accept.

    Over the draw of the calibration set and the batch, the expected share of wrong labels among
    the accepted ones is at most `risk`; a batch of which nothing is accepted counts as 0. This
    assumes that the images of both are exchangeable, and that neither shots nor score were chosen
    with the calibration set; nothing is assumed about the confidence.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted.
    correct
        `(n,)` booleans, or zeros and ones.
    risk
        In (0, 1).
    eligible
        `(n,)` booleans: which images may be accepted at all, by a rule that is applied to new
        images too; None for all.

    Raises
    ------
    InputError
        For arrays that do not fit, NaN, or a risk out of range.

    Notes
    -----
    For images that come one by one there is no batch to compare with, and a threshold has to be
    fixed. Going from the most lenient threshold to the strictest, with u(t) the chance that a new
    image is trusted more than t and wrong, W(t) and R(t) the numbers of calibration images trusted
    more than t that are wrong, and all of them: given what is seen at a threshold, W at a stricter
    one is binomial, so u / (1 + W) is a supermartingale, of mean at most 1 / (n + 1) at the start.
    Stop at the first t with

        1 + W(t) <= q (n + 1) (R(t) / n - e),  q = risk - d,  e = sqrt(ln(1 / d) / 2 n).

    With probability 1 - d, R / n - e is at most the share a(t) of new images that are trusted
    more, at all thresholds at once (Dvoretzky, Kiefer & Wolfowitz; Massart 1990). Then the risk
    u / a at the stop is at most q (n + 1) u / (1 + W), whose mean is at most q; otherwise it is at
    most 1. So the expected risk is at most q + d = `risk`. Here d is a fifth of the risk.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 400)
    >>> rule = select_conformal(confidence, confidence > 0.3, risk=0.1)
    >>> round(rule.threshold, 2), round(rule.coverage, 2)
    (0.25, 0.75)
    """
    check_fraction(risk, "risk")
    n, accepting = among(confidence, correct, eligible)
    wrong = accepting.confidence[np.flatnonzero(np.diff(accepting.errors))] if n else np.empty(0)
    accepted = _fixed(accepting, n, risk)
    return ConformalSelection(
        risk=risk,
        n=n,
        wrong=tuple(wrong.tolist()),
        threshold=float(accepting.thresholds(accepted)) if accepted else math.nan,
        accepted=accepted,
        errors=int(accepting.errors[accepted]),
    )


def _fixed(accepting: Accepting, n: int, risk: float) -> int:
    """How many calibration images the threshold for single images accepts; 0 if there is none."""
    if not n:
        return 0
    chance = risk / 5
    # Massart's bound is proved for chances of at most a half.
    margin = math.sqrt(-math.log(chance) / (2 * n))
    # Not rank n: its threshold, the lowest confidence, is not above a next image.
    ranks = np.flatnonzero(accepting.reachable[:-1])
    enough = 1 + accepting.errors[ranks] <= (risk - chance) * (n + 1) * (ranks / n - margin)
    return int(ranks[enough].max(initial=0))
