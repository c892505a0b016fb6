"""Held-out evidence: what the other shots say about each shot, as if it had not been among them.

Prototypes, neighbours and ridge regression, each of them without the shot itself. Prototypes are
held out in two ways. `compare_held_out` takes a shot from every class, so that cosines can be
compared between classes as those of new images are; what settings, out-of-distribution thresholds
and shot checks are calibrated on. `prototypes` takes the shot from its own class alone, which costs
no loop; weights that are fitted on it make up for what its class lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dgemm, sgemm
from scipy.optimize import minimize

from trustvlm.exceptions import EvidenceMissingError
from trustvlm.scores.arrays import CACHED_ROWS, class_sums, row_blocks, unit_rows
from trustvlm.scores.evidence import Comparison, Evidence, Tabulated
from trustvlm.scores.prototypes import NO_PROTOTYPE

Array = NDArray[np.float64]

# The shots as images that all prototypes were made without.

# Sums of shots shorter than this share of the shots' own lengths are rounding residue.
_NO_DIRECTION = 1e-9


@dataclass(frozen=True)
class HeldOut:
    """The shots as images that the prototypes were made without.

    Attributes
    ----------
    comparison
        Of k of the m shots, in their order.
    labels
        `(k,)` int64, their classes.
    kept
        `(k,)` int64, which of the m shots these are.
    """

    comparison: Comparison
    labels: NDArray[np.int64]
    kept: NDArray[np.int64]


def compare_held_out(evidence: Evidence) -> HeldOut:
    """Compare every shot with prototypes that were made without it.

    The j-th shot of a class is compared with the prototypes of all classes without their j-th
    shots: every prototype lacks one shot, or the true class alone would be at a disadvantage,
    which at two shots per class is grave. A class with fewer shots than j lacks another one of
    its own. A class with a single shot keeps it, and that shot itself is left out of the result:
    without it there is nothing to compare with. The same holds for a shot without which the
    others of its class cancel each other.

    Parameters
    ----------
    evidence
        With `support_features`, `support_labels` and `support_logits`; images and bank are not
        looked at.

    Raises
    ------
    EvidenceMissingError
        If the shots, or their logits, are not there.

    Examples
    --------
    >>> shots = Evidence.of(
    ...     logits=np.empty((0, 2)), support_features=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
    ...     support_labels=[0, 0, 1], support_logits=np.zeros((3, 2)))
    >>> held_out = compare_held_out(shots)
    >>> held_out.kept, held_out.comparison.similarities.round(2)
    (array([0, 1]), array([[0.  , 0.71],
           [0.  , 0.71]]))
    """
    features, labels, logits = (
        evidence.support_features,
        evidence.support_labels,
        evidence.support_logits,
    )
    if features is None or labels is None or logits is None:
        raise EvidenceMissingError(
            "Holding out shots needs `support_features`, `support_labels` and `support_logits`."
        )
    similarities = np.full((len(labels), evidence.n_classes), NO_PROTOTYPE)
    present = np.bincount(labels, minlength=evidence.n_classes) > 0
    kept = np.zeros(len(labels), dtype=bool)
    for rows, table in held_out_similarities(features, labels, evidence.n_classes):
        similarities[rows], kept[rows] = table, True
    chosen = np.flatnonzero(kept)
    comparison = Tabulated(logits[chosen], present, similarities[chosen])
    return HeldOut(comparison, labels[chosen], chosen)


def held_out_similarities(
    features: NDArray[Any], labels: NDArray[np.int64], n_classes: int
) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Compare shots with prototypes made without them, as `compare_held_out`, in bounded memory.

    Yields
    ------
    shots, cosines
        `(k,)` indices of some shots, and their `(k, C)` cosines; -1 for classes without shots. Each
        shot that can be judged is among them once.
    """
    order = np.argsort(labels, kind="stable")
    vectors, classes = features[order].astype(np.float64), labels[order]
    counts = np.bincount(labels, minlength=n_classes)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(order)) - first[classes]  # among the shots of its class
    sums = class_sums(vectors, classes, n_classes)
    norms = np.linalg.norm(vectors, axis=1)
    lengths = np.bincount(classes, weights=norms, minlength=n_classes)
    several = np.flatnonzero(counts > 1)
    absent = counts == 0
    for j in range(int(counts.max(initial=0))):
        rest = sums.copy()
        rest[several] -= vectors[first[several] + j % counts[several]]
        lost = np.linalg.norm(rest, axis=1) <= _NO_DIRECTION * lengths
        rest[lost] = 0.0
        prototypes = unit_rows(rest)
        of_j = np.flatnonzero((rank == j) & (counts[classes] > 1) & ~lost[classes])
        for block in row_blocks(len(of_j), 2 * n_classes):
            rows = of_j[block]
            table = unit_rows(vectors[rows]) @ prototypes.T
            table[:, absent] = NO_PROTOTYPE
            yield order[rows], table


# Feature spaces that images are compared in: unit vectors, each dimension to scale.

FeatureSpace = Literal["features", "image_embeddings"]
# The vision encoder's space first; the VLM's own image space where its vectors are at hand.
FEATURE_SPACES: tuple[FeatureSpace, ...] = ("features", "image_embeddings")


def scaled_images(
    space: FeatureSpace, evidence: Evidence, scale: Array, precision: np.dtype[Any]
) -> NDArray[Any]:
    """Return the images of the evidence as unit rows `(n, d)` of a space, divided by a scale."""
    rows = _to_unit(evidence.piece(space).astype(precision))
    rows /= scale.astype(precision)
    return rows


def images_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the images of the evidence as unit rows `(n, d)` of a space."""
    return unit_rows(evidence.piece(space))


def shots_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the shots of the evidence as unit rows `(m, d)` of a space."""
    return unit_rows(evidence.piece(f"support_{space}"))


def scale_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of each dimension, shrunk half-way to all, `(d,)`.

    The variances are averaged with their mean, so that a dimension that hardly varies among a few
    rows is not blown up. Rows without any variation have scale 1.

    Examples
    --------
    >>> scale_of(np.array([[0.0, 1.0], [0.0, 3.0]])) ** 2
    array([0.5, 1.5])
    """
    variance = rows.var(axis=0) if len(rows) else np.zeros(rows.shape[1])
    mean = float(variance.mean()) if variance.size else 0.0
    if not mean > 0:
        return np.ones(rows.shape[1])
    return np.asarray(np.sqrt(variance + mean))


# Base scorers: what the shots say about an image, each with its answers for shots held out.

_SHARPNESS = 10.0
_PENALTIES = np.geomspace(0.3, 30.0, 5)
# Cosines of images with shots that are worked on at once.
_MOST_PAIRS = 2**22


class BaseScorer(Protocol):
    """Class evidence for images, as plain arrays."""

    def inputs(self, rows: Array) -> NDArray[Any]:
        """`(n, d)` rows as the scorer multiplies them."""
        ...

    def answers(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """`(n, C)` evidence for rows as `inputs` returns them."""
        ...

    def evidence(self, rows: Array) -> NDArray[Any]:
        """`(n, C)` for `(n, d)` rows; larger speaks for the class, 0 for classes without shots."""
        ...


@dataclass(frozen=True)
class LinearScorer:
    """Evidence that is linear in the image around a centre.

    Attributes
    ----------
    centre
        `(d,)`, taken from the image.
    coefficients
        `(C, d)`; zeros for classes without shots.
    intercept
        `(C,)`; the same.
    unit
        Whether what remains of the image is scaled to length one.

    Examples
    --------
    >>> scorer = LinearScorer(np.ones(1), np.array([[2.0], [-2.0]]), np.array([0.0, 1.0]), False)
    >>> scorer.evidence(np.array([[3.0]]))
    array([[ 4., -3.]])
    """

    centre: Array
    coefficients: NDArray[Any]
    intercept: NDArray[Any]
    unit: bool

    @property
    def precision(self) -> np.dtype[Any]:
        """Of the coefficients."""
        return self.coefficients.dtype

    def in_precision(self, dtype: np.dtype[Any]) -> LinearScorer:
        """Return the scorer with arrays of another precision."""
        return replace(
            self,
            centre=self.centre.astype(dtype),
            coefficients=self.coefficients.astype(dtype),
            intercept=self.intercept.astype(dtype),
        )

    def inputs(self, rows: Array) -> NDArray[Any]:
        """`(n, d)` rows around the centre."""
        around = rows - self.centre
        around = _to_unit(around) if self.unit else around
        return around.astype(self.coefficients.dtype, copy=False)

    def evidence(self, rows: Array) -> NDArray[Any]:
        """`(n, C)` for `(n, d)` rows."""
        return self.answers(self.inputs(rows))

    def answers(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """`(n, C)` evidence for rows as `inputs` returns them."""
        answers = inputs @ self.coefficients.T
        answers += self.intercept
        return np.asarray(answers)

    def add(self, inputs: NDArray[Any], weight: float, total: NDArray[Any]) -> None:
        """Add the evidence, times the weight, to `(n, C)` of the coefficients' precision."""
        if not total.size:
            return
        # Fortran's order of the transposed arrays: nothing is copied.
        gemm = sgemm if total.dtype == np.float32 else dgemm
        gemm(weight, self.coefficients.T, inputs.T, 1.0, total.T, trans_a=True, overwrite_c=True)
        total += weight * self.intercept


@dataclass(frozen=True)
class NeighbourScorer:
    """Soft maximum of the cosines with each class's shots: 1 + (1/b) log mean exp(b (cos - 1)).

    Attributes
    ----------
    shots
        `(m, d)` rows of the shots, class after class, not to scale.
    scale
        `(d,)` of the dimensions, by which rows to judge were divided.
    lengths
        `(m,)` Euclidean lengths of the shots to scale.
    counts
        `(C,)` int64, shots of each class.
    """

    shots: NDArray[Any]
    scale: Array
    lengths: NDArray[Any]
    counts: NDArray[np.int64]

    @property
    def precision(self) -> np.dtype[Any]:
        """Of the shots."""
        return self.shots.dtype

    @classmethod
    def of(
        cls,
        shots: NDArray[Any],
        labels: NDArray[np.int64],
        n_classes: int,
        scale: Array,
        lengths: NDArray[Any] | None = None,
    ) -> NeighbourScorer:
        """Keep `(m, d)` shots, which are copied only where their classes are mixed.

        `lengths` are the attribute, where they are at hand.
        """
        if (np.diff(labels) < 0).any():
            shots = shots[np.argsort(labels, kind="stable")]
        if lengths is None:
            lengths = np.empty(len(shots), dtype=shots.dtype)
            for rows in row_blocks(len(shots), 4 * shots.shape[1]):
                lengths[rows] = np.linalg.norm(shots[rows] / scale, axis=1)
        return cls(shots, scale, lengths, np.bincount(labels, minlength=n_classes))

    def evidence(self, rows: Array) -> NDArray[Any]:
        """`(n, C)` for `(n, d)` rows."""
        return self.answers(self.inputs(rows))

    def answers(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """`(n, C)` evidence for rows as `inputs` returns them."""
        result = np.zeros((len(inputs), len(self.counts)), dtype=self.shots.dtype)
        for block in row_blocks(len(inputs), 2 * len(self.shots)):
            self._pool(self._nearness(inputs[block]), result[block])
        return result

    def pairs(
        self, inputs: NDArray[Any], images: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> NDArray[Any]:
        """`(p,)` evidence of one image for one class with shots each; `classes` ascend."""
        sizes, first = self.counts[classes], np.cumsum(self.counts) - self.counts
        ends = np.cumsum(sizes)
        if not len(images):
            return np.empty(0, dtype=self.shots.dtype)
        if ends[-1] > _MOST_PAIRS and len(images) > 1:
            half = len(images) // 2
            halves = (slice(0, half), slice(half, None))
            return np.concatenate([self.pairs(inputs, images[h], classes[h]) for h in halves])
        nearness = np.empty(ends[-1], dtype=self.shots.dtype)
        for c, part in _runs(classes):
            of_class = slice(first[c], first[c] + self.counts[c])
            run = nearness[ends[part.start] - self.counts[c] : ends[part.stop - 1]]
            table = run.reshape(-1, self.counts[c])
            np.dot(inputs[images[part]], self.shots[of_class].T, out=table)
            table /= self.lengths[of_class]
        self._to_nearness(nearness)
        means = np.add.reduceat(nearness, ends - sizes) / sizes
        return np.asarray(1.0 + np.log(means) / _SHARPNESS, dtype=self.shots.dtype)

    def held_out(self, judged: NDArray[np.int64]) -> NDArray[Any]:
        """`(k, C)` evidence for some of the shots, by their place here, each without itself."""
        own = np.repeat(np.arange(len(self.counts)), self.counts)[judged]
        others = self.counts[own] - 1
        result = np.zeros((len(judged), len(self.counts)), dtype=self.shots.dtype)
        for block in row_blocks(len(judged), 2 * len(self.shots)):
            shots = judged[block]
            nearness = self._nearness(self.inputs(self.shots[shots] / self.scale))
            nearness[np.arange(len(shots)), shots] = others[block] == 0
            self._pool(nearness, result[block])
        # The mean is that of one shot less.
        result[np.arange(len(own)), own] -= np.log(others.clip(1) / (others + 1)) / _SHARPNESS
        return result

    def inputs(self, rows: Array) -> NDArray[Any]:
        """Divide `(n, d)` unit rows by the scale once more, so that the shots need not be."""
        queries = _to_unit(rows.copy())
        queries /= self.scale.astype(rows.dtype)
        return queries.astype(self.shots.dtype, copy=False)

    def _nearness(self, queries: NDArray[Any]) -> NDArray[Any]:
        """`(n, m)` exp(b (cos - 1))."""
        nearness = queries @ self.shots.T
        nearness /= self.lengths
        return self._to_nearness(nearness)

    def _to_nearness(self, cosines: NDArray[Any]) -> NDArray[Any]:
        cosines -= 1.0
        cosines *= _SHARPNESS
        return np.asarray(np.exp(cosines, out=cosines))

    def _pool(self, nearness: NDArray[Any], result: NDArray[Any]) -> None:
        """Put the evidence into `(n, C)` zeros."""
        present = self.counts > 0
        counts = self.counts[present]
        means = np.add.reduceat(nearness, np.cumsum(counts) - counts, axis=1)
        means /= counts
        np.log(means, out=means)
        means /= _SHARPNESS
        means += 1.0
        result[:, present] = means


def _to_unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Scale each row to length one, in place and in its precision; rows of zeros stay zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    lengths[lengths == 0] = 1.0
    rows /= lengths
    return rows


def _runs(classes: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Each of the ascending classes, and where it stands."""
    present, starts = np.unique(classes, return_index=True)
    ends = np.append(starts[1:], len(classes))
    for c, start, end in zip(present.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield c, slice(start, end)


def balanced_subset(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose at most so many shots, as many of each class as of the others; ascending indices.

    The first shots of every class, then the second ones and so on; of the last round, every k-th
    class. Weights of a few scorers need no more, however many the shots are.

    Examples
    --------
    >>> balanced_subset(np.array([0, 0, 0, 1, 1, 1]), 4)
    array([0, 1, 3, 4])
    """
    m = len(labels)
    if m <= most:
        return np.arange(m)
    order = np.argsort(labels, kind="stable")
    classes = labels[order]
    first = np.searchsorted(classes, classes)
    rank = np.arange(m) - first
    whole = int(np.flatnonzero(np.cumsum(np.bincount(rank)) > most)[0])
    chosen, last = order[rank < whole], order[rank == whole]
    rest = most - len(chosen)
    return np.sort(np.concatenate([chosen, last[np.arange(rest) * len(last) // max(rest, 1)]]))


def prototypes(
    shots: Array, labels: NDArray[np.int64], n_classes: int, judged: NDArray[np.int64] | None = None
) -> tuple[LinearScorer, Array]:
    """Cosine with the mean of each class, around the mean of all shots.

    The own class of a shot is compared by the mean of its other shots, which needs no loop:
    the sum of the class less the shot.

    Parameters
    ----------
    shots, labels
        `(m, d)` and `(m,)` class indices.
    n_classes
        C; classes without shots have evidence 0.
    judged
        `(k,)` which shots to hold out, each in turn; all by default.

    Returns
    -------
    scorer, held_out
        The scorer, and its `(k, C)` evidence for each of these shots; the column of the shot's own
        class is computed without that shot. A row whose class has no other shot is not to be used.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> prototypes(shots, np.array([0, 0, 1, 1]), 2)[1][0].round(2)
    array([ 0.98, -1.  ])
    """
    judged = _all_by_default(judged, labels)
    centre = shots.mean(axis=0)
    directions = unit_rows(shots - centre)
    sums = class_sums(directions, labels, n_classes)
    means = unit_rows(sums)
    directions, own = directions[judged], labels[judged]
    held_out = directions @ means.T
    others = unit_rows(sums[own] - directions)
    held_out[np.arange(len(own)), own] = (directions * others).sum(axis=1)
    return LinearScorer(centre, means, np.zeros(n_classes), unit=True), held_out


def neighbours(
    shots: NDArray[Any],
    labels: NDArray[np.int64],
    n_classes: int,
    judged: NDArray[np.int64] | None = None,
    *,
    scale: Array | None = None,
) -> tuple[NeighbourScorer, NDArray[Any]]:
    """Soft maximum over each class's shots of the cosine: (1/b) log mean exp(b cos), b = 10.

    Between the nearest shot (b large) and the mean over all (b small), so that a class may have
    several looks.

    Parameters
    ----------
    shots, labels, n_classes, judged
        As of `prototypes`.
    scale
        `(d,)` by which the shots are still to be divided; the scorer then keeps them as they are.

    Returns
    -------
    scorer, held_out
        As of `prototypes`.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> neighbours(shots, np.array([0, 0, 1, 1]), 2)[1][0]
    array([1., 0.])
    """
    judged = _all_by_default(judged, labels)
    scale = np.ones(shots.shape[1]) if scale is None else scale
    scorer = NeighbourScorer.of(shots, labels, n_classes, scale)
    place = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    return scorer, scorer.held_out(place[judged])


def ridge(
    shots: Array, labels: NDArray[np.int64], n_classes: int, judged: NDArray[np.int64] | None = None
) -> tuple[LinearScorer, Array]:
    """Ridge regression of the class indicators, its penalty chosen by its held-out errors.

    The held-out answer of shot i is (f_i - h_ii y_i) / (1 - h_ii), h the hat matrix, so that
    leaving out every shot costs one decomposition (Allen 1974, PRESS).

    Parameters
    ----------
    shots, labels, n_classes, judged
        As of `prototypes`.

    Returns
    -------
    scorer, held_out
        As of `prototypes`.

    Examples
    --------
    >>> shots = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> bool(ridge(shots, np.array([0, 0, 1, 1]), 2)[1][0].argmax() == 0)
    True
    """
    judged = _all_by_default(judged, labels)
    centre = shots.mean(axis=0)
    rows = shots - centre
    size = float(np.sqrt((rows**2).sum(axis=1).mean())) or 1.0
    rows /= size
    counts = np.bincount(labels, minlength=n_classes)
    principal = _Principal.of(rows, labels, n_classes)
    # With one shot a class a held-out shot has no class left: the penalty stays in the middle.
    penalties = [1.0] if counts.max(initial=0) < 2 else _PENALTIES
    held_out, penalty = principal.leave_one_out(rows, labels, judged, penalties)
    held_out *= counts > 0
    coefficients = principal.coefficients(rows, penalty)
    coefficients /= size
    coefficients[counts == 0] = 0.0
    return LinearScorer(centre, coefficients, np.zeros(n_classes), unit=False), held_out


def held_out_indicators(shots: Array, labels: NDArray[np.int64], n_classes: int) -> Array:
    """Predict the class indicators of every shot by ridge regression on all other shots.

    As `ridge`, but of rows scaled to length one, and the mean of the indicators is held out too:
    near 1 for the class that the other shots speak for, near 0 for the rest. The penalty is one of
    nine around the mean eigenvalue of the Gram matrix.

    Parameters
    ----------
    shots, labels, n_classes
        As of `prototypes`; no row of zeros.

    Returns
    -------
    ndarray
        `(m, C)`; zeros for fewer than three shots, or where all are alike.

    Notes
    -----
    For classification: Rifkin & Lippert 2007, "Notes on regularized least squares".

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> held_out_indicators(x, np.array([0, 0, 1, 1]), 2).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    m = len(labels)
    if m < 3:
        return np.zeros((m, n_classes))
    rows = unit_rows(shots)
    rows -= rows.mean(axis=0)
    principal = _Principal.of(rows, labels, n_classes, least=1e-10)
    if not len(principal.values):
        return np.zeros((m, n_classes))
    penalties = np.logspace(-2, 2, 9) * principal.values.sum() / m
    held_out, _ = principal.leave_one_out(rows, labels, np.arange(m), penalties, mean_too=True)
    held_out += principal.shares
    return held_out


@dataclass(frozen=True)
class _Principal:
    """Centred rows and class indicators along the principal axes, for ridge regression.

    Attributes
    ----------
    values
        `(r,)` eigenvalues of the rows' Gram matrix.
    axes
        Eigenvectors `(d, r)` of the rows' dimensions, or `(m, r)` of the rows where these are few.
    along
        `(r, C)` centred indicators along the eigenvectors of the rows, each of length one.
    shares
        `(C,)` mean of the indicators.
    """

    values: Array
    axes: Array
    along: Array
    shares: Array
    of_rows: bool

    @classmethod
    def of(
        cls, rows: Array, labels: NDArray[np.int64], n_classes: int, least: float | None = None
    ) -> _Principal:
        """Decompose `(m, d)` rows.

        Axes are left out whose eigenvalue is below a share of the largest: `least`, or, if there
        are more rows than dimensions, what rounding alone makes of the null space.
        """
        m, d = rows.shape
        of_rows = m <= d
        values, axes = np.linalg.eigh(rows @ rows.T if of_rows else rows.T @ rows)
        if least is not None or not of_rows:
            share = m * np.finfo(np.float64).eps if least is None else least
            kept = values > share * max(values[-1], 1e-12)
            values, axes = values[kept], axes[:, kept]
        values = np.maximum(values, 0.0)
        shares = np.bincount(labels, minlength=n_classes) / m
        # Sums over the rows of a class, so that the (m, C) indicators need not be there.
        if of_rows:
            along = class_sums(axes, labels, n_classes).T - np.outer(axes.sum(axis=0), shares)
        else:
            sums = class_sums(rows, labels, n_classes) - np.outer(shares, rows.sum(axis=0))
            along = (sums @ axes).T / np.sqrt(values)[:, None]
        return cls(values, axes, along, shares, of_rows)

    def coefficients(self, rows: Array, penalty: float) -> Array:
        """`(C, d)` of the regression on all rows."""
        damped = self.along / (self.values + penalty)[:, None]
        if self.of_rows:
            return np.asarray((self.axes @ damped).T @ rows)
        return np.asarray((np.sqrt(self.values)[:, None] * damped).T @ self.axes.T)

    def leave_one_out(
        self,
        rows: Array,
        labels: NDArray[np.int64],
        judged: NDArray[np.int64],
        penalties: Sequence[float] | Array,
        *,
        mean_too: bool = False,
    ) -> tuple[Array, float]:
        """Centred indicators `(k, C)` of some rows, each predicted without its own row.

        With the penalty, also returned, of the smallest squared error on these rows. The mean,
        which is not penalised, adds 1/m to every leverage where it is held out too.
        """
        if self.of_rows:
            vectors = self.axes[judged]
        else:
            vectors = (rows[judged] @ self.axes) / np.sqrt(self.values)
        squares, own = vectors**2, (np.arange(len(judged)), labels[judged])
        best, chosen, smallest = np.zeros((len(judged), len(self.shares))), 0.0, np.inf
        for penalty in penalties:
            damping = self.values / (self.values + penalty)
            answers = vectors @ (damping[:, None] * self.along)
            leverage = squares @ damping
            left = np.maximum(1.0 - leverage, 1e-12)
            if mean_too:
                leverage = np.minimum(leverage + 1.0 / len(rows), 1.0 - 1e-9)
                left = 1.0 - leverage
            # (f - h y) / (1 - h), the indicators y being 1 - share or -share.
            answers += np.outer(leverage, self.shares)
            answers[own] -= leverage
            answers /= left[:, None]
            # |answers - y|^2, with |answers + share|^2 and the own entries apart.
            errors = answers + self.shares
            errors[own] -= 1.0
            error = float(np.vdot(errors, errors))
            if error < smallest:
                best, chosen, smallest = answers, float(penalty), error
        return best, chosen


def _all_by_default(
    judged: NDArray[np.int64] | None, labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    return np.arange(len(labels)) if judged is None else judged


# `neighbours` comes after `prototypes`, which can stand for it.
BASE_SCORERS = (prototypes, neighbours, ridge)


# Weights of several kinds of class evidence, fitted by the likelihood of held-out shots.


def fit_weights(
    tables: Sequence[Array] | Array,
    labels: NDArray[np.int64],
    centre: Array,
    spread: Array,
    *,
    each: float = 1.0,
) -> NDArray[np.float64]:
    """Fit softmax(sum_k w_k tables_k) to labels, w >= 0, with a normal prior on w.

    A conditional logit: convex, K numbers however many classes there are.

    Parameters
    ----------
    tables
        K of them `(m, C)`: evidence for m shots, each held out.
    labels
        `(m,)` columns of the true classes.
    centre, spread
        `(K,)` mean and standard deviation of the prior. Without shots the weights are `centre`.
    each
        How many shots each of the m stands for, where they were chosen from more.

    Returns
    -------
    ndarray
        `(K,)` weights, 0 or greater.

    Notes
    -----
    Stacking: Wolpert 1992, "Stacked generalization"; McFadden 1974 for the model.

    Examples
    --------
    >>> tables = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    >>> fit_weights(tables, np.array([0, 1, 1]), np.array([1.0]), np.array([100.0])).round(2)
    array([0.69])
    """
    m = len(labels)
    if not m:
        return centre.copy()
    own = np.array([table[np.arange(m), labels].sum() for table in tables])

    def loss(weights: Array) -> tuple[float, Array]:
        normaliser, expected = 0.0, np.zeros(len(weights))
        # A few rows at a time, whose tables stay in the processor's cache.
        for start in range(0, m, CACHED_ROWS):
            parts = [table[start : start + CACHED_ROWS] for table in tables]
            p = weights[0] * parts[0]
            for weight, part in zip(weights[1:], parts[1:], strict=True):
                p += weight * part
            top = p.max(axis=1, keepdims=True)
            p -= top
            np.exp(p, out=p)
            sums = p.sum(axis=1, keepdims=True)
            p /= sums
            normaliser += float((top + np.log(sums)).sum())
            expected += [np.vdot(p, part) for part in parts]
        away = (weights - centre) / spread
        value = each * (normaliser - float(weights @ own)) + 0.5 * float((away**2).sum())
        slope = each * (expected - own) + away / spread
        return value / (each * m), slope / (each * m)

    bounds = [(0.0, None)] * len(tables)
    fit = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(fit.x, dtype=np.float64)


def evidence_scale(table: Array, labels: NDArray[np.int64]) -> float:
    """Return the spread within rows of the wrong classes' entries; 1 if there is none.

    Examples
    --------
    >>> evidence_scale(np.array([[9.0, 1.0, 3.0]]), np.array([0]))
    1.0
    """
    m, n_classes = table.shape
    if n_classes < 3:
        spread = float(table.std()) if table.size else 0.0
        return spread if spread > 0 else 1.0
    if not m:
        return 1.0
    apart = around_wrong(table, labels)
    spread = float(np.sqrt(np.vdot(apart, apart) / (m * (n_classes - 1))))
    return spread if spread > 0 else 1.0


def around_wrong(table: NDArray[Any], labels: NDArray[np.int64]) -> Array:
    """Entries `(m, C)` around the mean of their row's wrong classes; the true classes get 0.

    Examples
    --------
    >>> around_wrong(np.array([[9.0, 1.0, 3.0]]), np.array([0]))
    array([[ 0., -1.,  1.]])
    """
    own = (np.arange(len(table)), labels)
    means = (table.sum(axis=1, dtype=np.float64) - table[own]) / max(table.shape[1] - 1, 1)
    apart = table - means[:, None]
    apart[own] = 0.0
    return np.asarray(apart)


def log_odds(logits: Array, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
    """Natural logarithm of the odds of the prediction under softmax(logits), `(n,)`.

    0 is even odds. Exact near certainty, where a probability would round to 1. With a single
    class nothing speaks against it: the largest finite log-odds, about 744.

    Examples
    --------
    >>> log_odds(np.array([[2.0, 0.0], [1000.0, 0.0]]), np.array([0, 0]))
    array([   2., 1000.])
    """
    n, n_classes = logits.shape
    if n_classes == 1:
        return np.full(n, -np.log(5e-324))
    own = np.take_along_axis(logits, prediction[:, None], axis=1)
    others = np.array(logits)
    np.put_along_axis(others, prediction[:, None], -np.inf, axis=1)
    top = others.max(axis=1, keepdims=True)
    rest = top + np.log(np.exp(others - top).sum(axis=1, keepdims=True))
    return np.asarray((own - rest)[:, 0])
