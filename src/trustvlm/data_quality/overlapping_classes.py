"""Overlapping classes: pairs that their shots can hardly tell apart, or two names for one thing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.data_quality.label_errors import ShotPosterior
from trustvlm.scores.arrays import as_labels, as_matrix, class_sums, unit_rows
from trustvlm.scores.gaussians import RidgedCovariance, Rows

_LEVEL = 0.05
_CANDIDATES = 5
_PERMUTATIONS = 199


@dataclass(frozen=True)
class OverlappingClasses:
    """Two classes that are hard to tell apart.

    Attributes
    ----------
    one, other
        Their indices, the smaller one first.
    separability
        How often a shot of the first seems to be more like the first than a shot of the second
        is, judged without them (an AUC): 1 is perfect, 0.5 a coin toss, and less counts as that.
    p_value
        Of the hypothesis that the shots of both are drawn from one class.
    duplicate
        True where that hypothesis stands at 5 %: nothing shows that these are two classes.
    """

    one: int
    other: int
    separability: float
    p_value: float
    duplicate: bool


def overlapping_classes(
    features: ArrayLike,
    labels: ArrayLike,
    posterior: ShotPosterior,
    *,
    n_classes: int,
    below: float = 0.9,
    seed: int = 0,
) -> list[OverlappingClasses]:
    """List pairs of classes that are hard to tell apart, duplicates first, then by separability.

    Each class is compared with the five of the most similar prototypes. Whether the shots of two
    are drawn from one class is a permutation test on the distance of their means, in units of the
    spread within the other classes: of true duplicates it misses one in twenty, whatever the
    features. Pairs of fewer than about six shots each, which it could hardly tell apart, are left
    out.

    Parameters
    ----------
    features
        `(m, d)` features of the shots.
    labels
        `(m,)` class indices.
    posterior
        Of the same shots, from `shot_posterior`.
    n_classes
        C.
    below
        Separability below which a pair is listed.
    seed
        Of the permutations.

    Raises
    ------
    InputError
        For arrays that do not fit together.

    Examples
    --------
    >>> from trustvlm.data_quality.label_errors import shot_posterior
    >>> rng = np.random.default_rng(1)
    >>> x = np.repeat(np.eye(3)[[0, 1, 1]], 8, axis=0) + 0.2 * rng.normal(size=(24, 3))
    >>> y = np.repeat([0, 1, 2], 8)  # 1 and 2 are one class under two names
    >>> pairs = overlapping_classes(x, y, shot_posterior(x, y, n_classes=3), n_classes=3)
    >>> [(pair.one, pair.other, pair.duplicate) for pair in pairs]
    [(1, 2, True)]
    """
    rows = unit_rows(as_matrix(features, "features", nonzero=True))
    label = as_labels(labels, "labels", n_classes=n_classes, n=len(rows))
    pairs = _candidates(rows, label, n_classes)
    if not pairs:
        return []
    gram = WithinClassGram(rows, label, n_classes)
    rng = np.random.default_rng(seed)
    overlapping = []
    for one, other in pairs:
        p_value = same_class_p_value(*gram.of_pair(one, other), rng)
        separability = _separability(posterior, one, other)
        if separability < below:
            overlapping.append(
                OverlappingClasses(one, other, separability, p_value, p_value > _LEVEL)
            )
    return sorted(overlapping, key=lambda pair: (not pair.duplicate, pair.separability, pair.one))


def _candidates(
    rows: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
) -> list[tuple[int, int]]:
    """Pairs of similar classes with shots enough to tell them apart."""
    counts = np.bincount(labels, minlength=n_classes)
    prototypes = unit_rows(class_sums(rows, labels, n_classes))
    cosines = prototypes @ prototypes.T
    cosines[:, counts == 0] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :_CANDIDATES]
    pairs = {
        (min(c, int(other)), max(c, int(other)))
        for c in np.flatnonzero(counts).tolist()
        for other in nearest[c]
        if np.isfinite(cosines[c, other])
    }
    return sorted(pair for pair in pairs if _enough(*counts[list(pair)].tolist()))


def _enough(n: int, m: int) -> bool:
    """Tell whether there are more splits of n + m shots than permutations are drawn."""
    return math.comb(n + m, n) // (2 if n == m else 1) > _PERMUTATIONS


class WithinClassGram:
    """Inner products of the shots of two classes, where the spread within other classes is one.

    The two classes have no part in that spread, so that it does not know which shot is whose: the
    permutation test stays exact.
    """

    def __init__(
        self, rows: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
    ) -> None:
        counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
        means = class_sums(rows, labels, n_classes) / counts[:, None]
        residuals = rows - means[labels]
        self._members = [np.flatnonzero(labels == c) for c in range(n_classes)]
        self._rows = rows
        self._residuals = residuals / math.sqrt(len(rows))
        ridge = max(float(rows.var(axis=0).mean()), 1e-12)
        whitening = RidgedCovariance(Rows(residuals), 1.0 / len(rows), ridge)
        self._solved_rows = whitening.solve(rows)
        self._solved_residuals = whitening.solve(self._residuals)

    def of_pair(self, one: int, other: int) -> tuple[NDArray[np.float64], int]:
        """Return the `(n, n)` products and how many of the n rows are of the first class."""
        both = np.concatenate([self._members[one], self._members[other]])
        plain = self._rows[both] @ self._solved_rows[both].T
        mixed = self._rows[both] @ self._solved_residuals[both].T
        own = self._residuals[both] @ self._solved_residuals[both].T
        # Takes the pair's own residuals out of the covariance again (Woodbury).
        correction = mixed @ np.linalg.solve(np.eye(len(both)) - own, mixed.T)
        return plain + correction, len(self._members[one])


def same_class_p_value(gram: NDArray[np.float64], n_first: int, rng: np.random.Generator) -> float:
    """P-value of the permutation test on the squared distance of the two means."""
    n_second = len(gram) - n_first
    signs = np.concatenate([np.full(n_first, 1 / n_first), np.full(n_second, -1 / n_second)])
    drawn = rng.permuted(np.tile(signs, (_PERMUTATIONS, 1)), axis=1)
    contrasts = np.concatenate([signs[None], drawn])
    distances = ((contrasts @ gram) * contrasts).sum(axis=1)
    # Splits that are the same up to rounding count as equal.
    return float((distances >= distances[0] * (1 - 1e-9)).mean())


def _separability(posterior: ShotPosterior, one: int, other: int) -> float:
    of_both = np.isin(posterior.labels, (one, other))
    odds = posterior.log_probability[of_both, one] - posterior.log_probability[of_both, other]
    first = posterior.labels[of_both] == one
    if first.all() or not first.any():
        return 0.5
    return max(0.5, metrics.auroc(odds, first))
