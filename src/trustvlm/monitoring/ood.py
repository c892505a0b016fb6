"""Out-of-distribution images, which resemble none of the classes: a threshold set on the shots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array
from trustvlm.scores import Evidence
from trustvlm.scores.held_out import held_out_similarities

# A flag that fires on more than this share of ordinary images would be noise.
_AT_MOST = 0.05


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
    features, labels = evidence.piece("support_features"), evidence.piece("support_labels")
    largest = np.full(len(labels), np.nan)
    # Not a table of all shots by all classes, which is large where these are thousands.
    for shots, cosines in held_out_similarities(features, labels, evidence.n_classes):
        largest[shots] = cosines.max(axis=1)
    return np.asarray(largest[~np.isnan(largest)])
