"""Out-of-distribution images, which resemble none of the classes: thresholds set on the shots.

`OODGate` sends an image to review that resembles its label less than nearly all shots resemble
theirs. `OODThreshold` judges by the most similar prototype alone, as models that an older version
calibrated do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array
from trustvlm.scores import Evidence, zero_shot_logits
from trustvlm.scores.arrays import class_sums, pick, softmax, unit_rows
from trustvlm.scores.auto import different_shots
from trustvlm.scores.held_out import held_out_similarities
from trustvlm.text import counted, short_percent

# A flag that fires on more than this share of ordinary images would be noise.
_AT_MOST = 0.05
FEWEST_SHOTS = math.ceil(1 / _AT_MOST) - 1
"""With fewer no threshold flags so few: one shot alone is a larger share."""


@dataclass(frozen=True)
class OODThreshold:
    """Below which similarity to every class an image counts as out-of-distribution.

    Attributes
    ----------
    below
        Cosine to the most similar prototype below which an image is flagged; -inf, the default,
        flags none.
    false_flags
        Share of images like the shots that is flagged at most, on average over draws of the
        shots; 0 if none is flagged.

    Examples
    --------
    >>> threshold = OODThreshold.of(np.linspace(0.4, 0.8, 200))
    >>> threshold.is_ood([0.3, 0.6]), round(threshold.false_flags, 3)
    (array([ True, False]), 0.01)
    """

    below: float = -math.inf
    false_flags: float = 0.0

    @classmethod
    def of(cls, typicality: ArrayLike, *, false_flags: float = 0.01) -> OODThreshold:
        """Calibrate the flag on the shots.

        With fewer shots than that share needs, it is that of the least typical shot alone,
        1 / (m + 1); beyond 5 % (fewer than 19 shots) nothing is flagged.

        Parameters
        ----------
        typicality
            `(m,)` of the shots, each judged without itself: `held_out_typicality`.
        false_flags
            Wanted share, in (0, 0.05].

        Raises
        ------
        InputError
            For a share out of range, NaN or infinity.

        Notes
        -----
        The conformal p-value of an image is (1 + #{shots at most as typical}) / (m + 1), and it is
        flagged where this is at most the share. Shots are judged against prototypes that lack a
        shot, so they seem a little less typical than new images: the flag errs on the quiet side.
        """
        if not 0 < false_flags <= _AT_MOST:
            raise InputError(
                f"Expected `false_flags` to lie in (0, {_AT_MOST}], but got {false_flags}."
            )
        ascending = np.sort(confidence_array(typicality, "typicality").astype(np.float64))
        share = max(false_flags, 1.0 / (len(ascending) + 1))
        if share > _AT_MOST:
            return cls()
        # An image is flagged if its p-value is at most the share: below the k-th lowest shot.
        k = math.floor(share * (len(ascending) + 1) + 1e-9)
        return cls(float(ascending[k - 1]), k / (len(ascending) + 1))

    @classmethod
    def of_shots(cls, evidence: Evidence, *, false_flags: float = 0.01) -> OODThreshold:
        """Calibrate the flag on the shots, each held out; without any, nothing is flagged.

        Parameters
        ----------
        evidence
            With the shots' features, labels and logits, or without shots.
        false_flags
            As in `of`.

        Examples
        --------
        >>> OODThreshold.of_shots(Evidence.of(logits=[[0.0, 0.0]])).false_flags
        0.0
        """
        if evidence.support_features is None:
            return cls()
        return evidence.once(
            f"out-of-distribution threshold {false_flags}",
            lambda: cls.of(held_out_typicality(evidence), false_flags=false_flags),
        )

    def is_ood(self, typicality: ArrayLike) -> NDArray[np.bool_]:
        """Flag images by their `(n,)` cosine to the most similar prototype.

        NaN, where there is no prototype, is not flagged.
        """
        values = np.asarray(typicality, dtype=np.float64)
        flagged: NDArray[np.bool_] = values < self.below
        return flagged

    flags = is_ood  # its former name


Scope = OODThreshold  # its former name


def held_out_typicality(evidence: Evidence) -> NDArray[np.float64]:
    """Cosine of each shot to the most similar prototype, made without it.

    Parameters
    ----------
    evidence
        With the shots' features and labels; nothing else is looked at.

    Returns
    -------
    ndarray
        `(k,)` float64, of the shots whose class has at least two; the others cannot be judged.

    Raises
    ------
    EvidenceMissingError
        If the shots are not there.

    Examples
    --------
    >>> held_out_typicality(Evidence.of(
    ...     logits=np.empty((0, 1)), support_features=[[1.0, 0.0], [1.0, 1.0]],
    ...     support_labels=[0, 0], support_logits=[[0.0], [0.0]])).round(2)
    array([0.71, 0.71])
    """
    typicality = typicality_of_shots(evidence)
    return np.asarray(typicality[~np.isnan(typicality)])


def typicality_of_shots(evidence: Evidence) -> NDArray[np.float64]:
    """Return what `held_out_typicality` does as `(m,)`, NaN for shots that cannot be judged.

    Examples
    --------
    >>> typicality_of_shots(Evidence.of(
    ...     logits=np.empty((0, 2)), support_features=[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
    ...     support_labels=[0, 0, 1])).round(2)
    array([0.71, 0.71,  nan])
    """
    features, labels = evidence.piece("support_features"), evidence.piece("support_labels")
    largest = np.full(len(labels), np.nan)
    # Not a table of all shots by all classes, which is large where these are thousands.
    for shots, cosines in held_out_similarities(features, labels, evidence.n_classes):
        largest[shots] = cosines.max(axis=1)
    return largest


# The gate: resemblance to a label, by its examples and its text.

GATES = ("label", "nearest", "none")
"""What is asked of an image before its label may be accepted: `OODGate`, the former test of the
most similar prototype (models that an older version calibrated), or nothing."""

_SHARE = _AT_MOST
# Right labels of images like the shots were stopped at up to 6 %, with four shots a class.
_DEAR = 0.15


@dataclass(frozen=True)
class Resemblance:
    """What a gate says about n images and their labels.

    Attributes
    ----------
    of_label
        `(n,)` resemblance to the label; NaN where no example of it, or no gate, is there.
    eligible
        `(n,)` bool, whether the label may be accepted at all.
    is_ood
        `(n,)` bool, whether the image resembles no label enough: it is out-of-distribution.
    other, other_score
        `(n,)` which other class the text prefers to all labels, -1 for none, and its softmax
        probability among all of them.
    """

    of_label: NDArray[np.float64]
    eligible: NDArray[np.bool_]
    is_ood: NDArray[np.bool_]
    other: NDArray[np.int64]
    other_score: NDArray[np.float64]


@dataclass(frozen=True)
class OtherClasses:
    """What images may show that are of none of the classes, as texts: "something else".

    An image whose text likes one of them better than every class bears its name, and is never
    accepted. No score sees them, so no label is corrected to one.

    Attributes
    ----------
    names
        Of k others.
    text_embeddings
        `(k, e)` unit rows.
    logit_scale
        s of the logits.

    Examples
    --------
    >>> others = OtherClasses(("something else",), np.array([[0.0, 1.0]]), 100.0)
    >>> others.prefer(np.array([[0.6, 0.8], [0.8, 0.6]]), np.array([[60.0], [80.0]]))[0]
    array([ 0, -1])
    """

    names: tuple[str, ...]
    text_embeddings: NDArray[np.float32]
    logit_scale: float

    def logits(self, image_embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """Return the `(n, k)` logits of images, from their `(n, e)` vectors."""
        return zero_shot_logits(
            image_embeddings, self.text_embeddings, logit_scale=self.logit_scale
        )

    def prefer(
        self, image_embeddings: NDArray[Any], logits: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Compare with the `(n, C)` logits of the classes.

        Returns
        -------
        others, probabilities
            `(n,)` index of the one that is preferred, -1 if none is, and the softmax probability
            of the best of them among them and the classes.
        """
        own = self.logits(image_embeddings)
        best = own.argmax(axis=1)
        p = pick(softmax(np.hstack([own, logits])), best)
        return np.where(own.max(axis=1) > logits.max(axis=1), best, -1), p


@dataclass(frozen=True)
class OODGate:
    """Which images resemble their label too little for it to be accepted.

    The resemblance of an image to a class is the sum of three similarities, each in standard
    deviations around its mean over the shots: of the image to the examples of the class, to its
    text (the logit), and to the most similar class, whichever that is. Shots are held out. It is
    too little below the 5 % quantile of the shots' resemblance to their own classes.

    Attributes
    ----------
    threshold
        Of resemblance.
    nearest
        Of the cosine to the most similar prototype, instead of it.
    lengths
        `(C,)` expected length of the mean of a class's examples, as unit vectors; it turns the
        cosine with a prototype into the mean cosine with its examples, which does not depend on
        their number.
    centre, spread
        `(3,)` means and standard deviations of the three similarities over the shots.
    others
        What else images may show; None if nothing is named.

    Notes
    -----
    The threshold follows from the shots alone, so a certificate on calibration images that passed
    the gate is one for new images that pass it. One threshold for all classes: with few shots one
    for each sends far more of the right labels to review (`benchmarks/ood_gate.py`).
    """

    threshold: OODThreshold = field(default_factory=OODThreshold)
    nearest: OODThreshold = field(default_factory=OODThreshold)
    lengths: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    spread: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    others: OtherClasses | None = None

    @classmethod
    def of_shots(cls, evidence: Evidence, kind: str = GATES[0]) -> OODGate:
        """Set the gate on the shots, each held out.

        With fewer than 19 shots in classes of two or more, no image is stopped.

        Parameters
        ----------
        evidence
            With the shots' features, labels and logits, or without shots.
        kind
            Of `GATES`.

        Raises
        ------
        InputError
            For another kind.

        Examples
        --------
        >>> OODGate.of_shots(Evidence.of(logits=[[0.0, 0.0]])).active
        False
        """
        if kind not in GATES:
            raise InputError(
                f"Expected the gate to be one of {', '.join(GATES)}, but got {kind!r}."
            )
        if kind == "none" or evidence.support_features is None:
            return cls()
        if kind == "nearest":
            return cls(nearest=OODThreshold.of_shots(evidence))
        return evidence.once("out-of-distribution gate", lambda: cls._fitted(evidence))

    @classmethod
    def _fitted(cls, evidence: Evidence) -> OODGate:
        # A copy resembles the others more than any new image does: the gate would stop these.
        kept = different_shots(evidence)
        features = evidence.piece("support_features")[kept]
        labels, n_classes = evidence.piece("support_labels")[kept], evidence.n_classes
        logits = evidence.piece("support_logits")
        counts = np.bincount(labels, minlength=n_classes)
        alike = _mean_cosine_within(features, labels, n_classes)
        # Each prototype of several shots was made without one.
        lengths = _expected_lengths(np.where(counts > 1, counts - 1, counts), alike)
        terms = np.full((len(labels), 3), np.nan)
        # Not tables of all shots by all classes, which are large where these are thousands.
        for shots, cosines in held_out_similarities(features, labels, n_classes):
            own = (np.arange(len(shots)), labels[shots])
            similarities = np.where(counts > 0, cosines, np.nan) * lengths
            terms[shots, 0] = similarities[own]
            terms[shots, 1] = logits[kept[shots]][own]
            terms[shots, 2] = np.nanmax(similarities, axis=1)
        terms = terms[~np.isnan(terms).any(axis=1)]
        if not len(terms):
            return cls()
        spread = terms.std(axis=0)
        spread[spread == 0] = 1.0
        own = ((terms - terms.mean(axis=0)) / spread).sum(axis=1)
        return cls(
            OODThreshold.of(own, false_flags=_SHARE),
            lengths=_expected_lengths(counts, alike),
            centre=terms.mean(axis=0),
            spread=spread,
        )

    @property
    def active(self) -> bool:
        """Whether any image can be stopped."""
        bounds = max(self.threshold.below, self.nearest.below)
        return bounds > -math.inf or self.others is not None

    def judge(
        self,
        cosines: NDArray[np.float64],
        logits: NDArray[np.float64],
        prediction: NDArray[np.int64],
        image_embeddings: NDArray[Any] | None = None,
    ) -> Resemblance:
        """Say which of n labels may be accepted.

        Parameters
        ----------
        cosines
            `(n, C)` with the prototypes; NaN for classes without any. With such a class as its
            label an image is eligible if it resembles some class enough.
        logits
            `(n, C)` of the text.
        prediction
            `(n,)` class indices of the labels.
        image_embeddings
            `(n, e)` of the VLM, for `others`.
        """
        n = len(prediction)
        of_label, eligible, is_ood = self._resemblance(cosines, logits, prediction)
        other, p = np.full(n, -1), np.full(n, np.nan)
        if self.others is not None and image_embeddings is not None and n:
            other, p = self.others.prefer(image_embeddings, logits)
        return Resemblance(of_label, eligible & (other < 0), is_ood | (other >= 0), other, p)

    def _resemblance(
        self,
        cosines: NDArray[np.float64],
        logits: NDArray[np.float64],
        prediction: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        n = len(prediction)
        top = np.where(np.isnan(cosines), -np.inf, cosines).max(axis=1)
        far = self.nearest.is_ood(np.where(np.isinf(top), np.nan, top))
        if self.threshold.below == -math.inf:
            return np.full(n, np.nan), ~far, far
        similarities = cosines * self.lengths
        most = np.where(np.isnan(similarities), -np.inf, similarities).max(axis=1)
        resemblance = (
            (similarities - self.centre[0]) / self.spread[0]
            + (logits - self.centre[1]) / self.spread[1]
            + ((most - self.centre[2]) / self.spread[2])[:, None]
        )
        of_label = resemblance[np.arange(n), prediction]
        # NaN is below nothing: what is not there stops no image.
        is_ood = ~(resemblance >= self.threshold.below).any(axis=1)
        eligible = np.where(np.isnan(of_label), ~is_ood, ~self.threshold.is_ood(of_label))
        return of_label, eligible, is_ood


def _mean_cosine_within(features: NDArray[Any], labels: NDArray[np.int64], n_classes: int) -> float:
    """Mean cosine of two shots of one class, over all pairs, in [0, 1]; 1 without a pair."""
    counts = np.bincount(labels, minlength=n_classes)
    sums = class_sums(unit_rows(features.astype(np.float64)), labels, n_classes)
    pairs = (counts * (counts - 1)).sum()
    # |sum|^2 holds every ordered pair once, and each vector with itself.
    return float(np.clip(((sums**2).sum() - counts.sum()) / pairs, 0.0, 1.0)) if pairs else 1.0


def _expected_lengths(counts: NDArray[np.int64], alike: float) -> NDArray[np.float64]:
    """Return the expected length of the mean of k unit vectors of mean cosine `alike`."""
    return np.asarray(np.sqrt(alike + (1.0 - alike) / np.maximum(counts, 1)))


def gate_statement(eligible: ArrayLike, correct: ArrayLike) -> str:
    """Say what a gate stops of n labelled images: its price and its use.

    Parameters
    ----------
    eligible, correct
        `(n,)` bool, which images pass the gate, and which labels are right.

    Examples
    --------
    >>> gate_statement([True, False, True], [True, True, False]).partition(":")[0]
    'the out-of-distribution gate sends 1 of 2 right labels (50 %) and 0 of 1 wrong one to review'
    >>> gate_statement([True, False], [True, False])
    'the out-of-distribution gate sends 0 of 1 right label (0 %) and 1 of 1 wrong one to review'
    """
    stopped, right = ~np.asarray(eligible, dtype=bool), np.asarray(correct, dtype=bool)
    of_right, of_wrong = int((stopped & right).sum()), int((stopped & ~right).sum())
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    share = of_right / n_right if n_right else 0.0
    text = (
        f"the out-of-distribution gate sends {of_right} of {counted(n_right, 'right label')} "
        f"({short_percent(share)}) and {of_wrong} of {counted(n_wrong, 'wrong one')} to review"
    )
    if share > _DEAR:
        text += (
            ": these images are less like the examples than those are like each other; take "
            "examples like these, or leave the gate out (calibrate --no-gate)"
        )
    return text


# Without shots: whether a batch looks as if it held images of none of the classes.

# 5 % of clean batches of classes of DTD, SUN397 and Caltech by CLIP ViT-B/32 have more.
_VARIATION = 0.11


def looks_mixed(logits: NDArray[np.float64]) -> bool:
    """Whether images seem to differ in how well any text fits them, as where some fit none.

    Their largest logits then vary much: the standard deviation is over 0.11 of the mean. That
    holds for CLIP, whose logits are cosines times a constant; a score of one batch, not of images.

    Parameters
    ----------
    logits
        `(n, C)` of the text; of fewer than 30 images nothing is said.

    Examples
    --------
    >>> looks_mixed(np.r_[np.full((30, 2), 30.0), np.full((20, 2), 22.0)])
    True
    """
    top = np.asarray(logits, dtype=np.float64).max(axis=1)
    return len(top) >= 30 and bool(top.std() > _VARIATION * top.mean())
