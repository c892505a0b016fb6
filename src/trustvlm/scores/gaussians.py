"""Scores that fit Gaussians to the shots of the classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import scipy
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import class_sums, log_odds, pick, softmax
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import (
    NO_SHOTS,
    Evidence,
    FeatureSpace,
    images_in,
    labels_and_probabilities,
    shots_in,
)
from trustvlm.scores.zero_shot import judged_labels

_register = partial(register, needs=("logits", "features", "support_features", "support_labels"))


@dataclass(frozen=True)
class _Classes:
    """Shots and their class means; rows of zeros and present=False for classes without shots."""

    shots: NDArray[np.float64]
    labels: NDArray[np.int64]
    means: NDArray[np.float64]
    present: NDArray[np.bool_]

    @cached_property
    def residuals(self) -> Rows:
        return Rows(self.shots - self.means[self.labels])


def _classes(evidence: Evidence) -> _Classes:
    return evidence.once("classes of shots", lambda: _by_class(evidence, _directions(evidence)))


def _by_class(evidence: Evidence, shots: NDArray[np.float64]) -> _Classes:
    labels = evidence.piece("support_labels")
    counts = np.bincount(labels, minlength=evidence.n_classes)
    sums = class_sums(shots, labels, evidence.n_classes)
    return _Classes(shots, labels, sums / np.maximum(counts, 1)[:, None], counts > 0)


def _directions(evidence: Evidence, space: FeatureSpace = "features") -> NDArray[np.float64]:
    """Return the shots as unit rows; there must be one."""
    shots = shots_in(space, evidence)
    if not len(shots):
        raise InputError(NO_SHOTS)
    return shots


@dataclass(frozen=True)
class _Distances:
    precise_means: NDArray[np.float64]
    means: NDArray[np.float64]
    covariance: RidgedCovariance
    present: NDArray[np.bool_]


def _fit_mahalanobis(evidence: Evidence) -> _Distances:
    classes = _classes(evidence)
    covariance = ledoit_wolf(classes.residuals).invertible()
    means = classes.means[classes.present]
    return _Distances(covariance.solve(means), means, covariance, classes.present)


@_register(
    "mahalanobis",
    formula="-(x - mu_yhat)' S^-1 (x - mu_yhat), S shared and shrunk",
    source="Lee et al. 2018 (arXiv 1807.03888); shrinkage of Ledoit & Wolf 2004",
    complexity="O(nd(C + m)), m shots",
    judges_given=True,
    without_text=True,
    fit=_fit_mahalanobis,
)
def mahalanobis(evidence: Evidence, fitted: _Distances) -> ScoreResult:
    """Negative squared Mahalanobis distance to the predicted class, 0 or less.

    Features are scaled to length one. A class without shots counts as far as the farthest class.
    """
    prediction = judged_labels(evidence)
    x = evidence.directions
    own = (x * fitted.covariance.solve(x)).sum(axis=1)[:, None]
    distances = own - 2.0 * x @ fitted.precise_means.T
    distances += (fitted.means * fitted.precise_means).sum(axis=1)
    table = np.repeat(distances.max(axis=1, keepdims=True), evidence.n_classes, axis=1)
    table[:, fitted.present] = distances
    return ScoreResult(prediction, -np.maximum(pick(table, prediction), 0.0))


@dataclass(frozen=True)
class _Linear:
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    present: NDArray[np.bool_]


def _fit_gda(evidence: Evidence) -> _Linear:
    classes = _classes(evidence)
    m, d = classes.shots.shape
    trace = classes.residuals.total / max(m - 1, 1)  # of the unbiased covariance
    ridged = RidgedCovariance(classes.residuals, 1 / d, trace / d)
    means = classes.means[classes.present]
    weights = ridged.invertible().solve(means)
    return _Linear(weights, -0.5 * (weights * means).sum(axis=1), classes.present)


_GDA = partial(
    _register,
    source="Wang et al. 2024 (arXiv 2402.04087)",
    complexity="O(nCd)",
    corrects=True,
    fit=_fit_gda,
)
_GDA_LOGITS = "z + a (mu_c' P x - mu_c' P mu_c / 2)), P = d ((m-1) S + tr(S) I)^-1"


@_GDA("gda", formula=f"max softmax({_GDA_LOGITS}")
def gda(evidence: Evidence, fitted: _Linear, *, alpha: float = 1.0) -> ScoreResult:
    """Gaussian discriminant analysis added to the logits; confidence is the softmax's maximum.

    The original chooses `alpha` on validation data; here it is 1. Features are those of the
    vision encoder, scaled to length one. A class without shots gets the image's mean visual
    logit, which neither favours nor excludes it. With many shots most softmaxes round to 1, so
    that images tie: `gda_log_odds` tells them apart.
    """
    combined = _with_discriminant(evidence, fitted, alpha)
    return ScoreResult(combined.argmax(axis=1), softmax(combined).max(axis=1))


@_GDA("gda_log_odds", formula=f"log-odds of yhat in softmax({_GDA_LOGITS}")
def gda_log_odds(evidence: Evidence, fitted: _Linear, *, alpha: float = 1.0) -> ScoreResult:
    """Gaussian discriminant analysis by the log-odds of its label, which do not round to ties.

    Labels are those of `gda`. These log-odds are not calibrated: they are several times larger
    than the share of right labels warrants.
    """
    combined = _with_discriminant(evidence, fitted, alpha)
    prediction = combined.argmax(axis=1)
    return ScoreResult(prediction, log_odds(combined, prediction))


def _with_discriminant(evidence: Evidence, fitted: _Linear, alpha: float) -> NDArray[np.float64]:
    visual = evidence.directions @ fitted.weights.T + fitted.offsets
    table = np.repeat(visual.mean(axis=1, keepdims=True), evidence.n_classes, axis=1)
    table[:, fitted.present] = visual
    return np.asarray(evidence.logits.astype(np.float64) + alpha * table)


@dataclass(frozen=True)
class _Density:
    """A Gaussian in the subspace: its mean, and its covariance by few rows and a floor."""

    mean: NDArray[np.float64]
    covariance: RidgedCovariance

    def logarithm(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of the density at rows `(n, k)`, up to a constant that all classes share."""
        away = x - self.mean
        distances = (away * self.covariance.solve(away)).sum(axis=1)
        return np.asarray(-0.5 * (distances + self.covariance.log_determinant))


@dataclass(frozen=True)
class _Subspace:
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    densities: tuple[_Density, ...]
    present: NDArray[np.bool_]


def _fit_icpe(evidence: Evidence, *, components: int = 128, ridge: float = 1e-4) -> _Subspace:
    return _densities_in("image_embeddings", evidence, components, ridge)


def _fit_icpe_vision(
    evidence: Evidence, *, components: int = 128, ridge: float = 1e-4
) -> _Subspace:
    return _densities_in("features", evidence, components, ridge)


def _densities_in(
    space: FeatureSpace, evidence: Evidence, components: int, ridge: float
) -> _Subspace:
    if not (components >= 1 and ridge > 0):
        raise InputError(
            "Expected `components` of at least 1 and `ridge` above 0, "
            f"but got {components} and {ridge}."
        )
    shots = _directions(evidence, space)
    centre = shots.mean(axis=0)
    axes = leading_axes(Rows(shots - centre), components)
    if not len(axes):  # all shots are the same: any direction will do
        axes = np.eye(1, shots.shape[1])
    classes = _by_class(evidence, (shots - centre) @ axes.T)
    counts = np.bincount(classes.labels, minlength=evidence.n_classes)
    order = np.argsort(classes.labels, kind="stable")
    rows = np.split(classes.residuals.values[order], np.cumsum(counts)[:-1])
    with_density = counts > 1
    densities = tuple(
        _Density(classes.means[c], RidgedCovariance(Rows(rows[c]), 1.0 / (counts[c] - 1), ridge))
        for c in np.flatnonzero(with_density)
    )
    return _Subspace(centre, axes, densities, with_density)


_register_icpe = partial(
    register,
    formula="(max_c p_c + softmax_c(log N(x; mu_c, S_c + r I))_yhat) / 2, in the shots' PCA "
    "subspace",
    source="Lin et al. 2025 (arXiv 2511.22019)",
    judges_given=True,
    complexity="O(ndk + nmk), m shots, k components",
)


@_register_icpe(
    "icpe",
    needs=("logits", "image_embeddings", "support_image_embeddings", "support_labels"),
    revision=2,
    fit=_fit_icpe,
)
def icpe(evidence: Evidence, fitted: _Subspace) -> ScoreResult:
    """ICPE: mean of MSP and of the density's softmax at the predicted class, in (0, 1].

    Densities are Gaussians in up to `components` principal components of the shots, in the VLM's
    own image space, scaled to length one; each class has its own covariance, with `ridge` added
    to the diagonal. The authors' notebook has hundreds of images a class, adds 1e-8 and does not
    scale; scale and 1e-4 are those of the comparison with few shots in TRINE's repository.
    A class with less than two shots has density 0: with one shot a class the order is MSP's.
    """
    return _with_density(evidence, fitted, "image_embeddings")


@_register_icpe(
    "icpe_vision",
    needs=("logits", "features", "support_features", "support_labels"),
    fit=_fit_icpe_vision,
)
def icpe_vision(evidence: Evidence, fitted: _Subspace) -> ScoreResult:
    """As `icpe`, with densities in the vision encoder's space, as other scores here have them.

    The original has no second encoder; where the vision encoder is the VLM's own, both agree.
    """
    return _with_density(evidence, fitted, "features")


def _with_density(evidence: Evidence, fitted: _Subspace, space: FeatureSpace) -> ScoreResult:
    prediction, probability = labels_and_probabilities(evidence.logits, evidence.given_labels)
    table = np.zeros((evidence.n, evidence.n_classes))
    if fitted.densities:
        x = (images_in(space, evidence) - fitted.centre) @ fitted.axes.T
        densities = np.stack([density.logarithm(x) for density in fitted.densities], axis=1)
        table[:, fitted.present] = softmax(densities)
    return ScoreResult(prediction, (probability + pick(table, prediction)) / 2.0)


# Covariances of few rows in many dimensions, never written out as a matrix.


@dataclass(frozen=True)
class Rows:
    """Centred rows `(m, d)`, and what covariances need of them, computed once."""

    values: NDArray[np.float64]

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """R R' or R'R, whichever is smaller."""
        m, d = self.values.shape
        gram: NDArray[np.float64] = (
            self.values @ self.values.T if m < d else self.values.T @ self.values
        )
        return gram

    @cached_property
    def total(self) -> float:
        """Sum of all squares."""
        return float((self.values**2).sum())


@dataclass(frozen=True)
class RidgedCovariance:
    """The matrix s R'R + f I of centred rows R, a scale s >= 0 and a floor f."""

    rows: Rows
    scale: float
    floor: float

    def dense(self) -> NDArray[np.float64]:
        """Return it as a `(d, d)` matrix."""
        values = self.rows.values
        return np.asarray(self.scale * values.T @ values + self.floor * np.eye(values.shape[1]))

    def invertible(self) -> RidgedCovariance:
        """Make it invertible: one of nothing (a shot a class) becomes the identity."""
        d = self.rows.values.shape[1]
        total = self.scale * self.rows.total + self.floor * d
        if total <= 0:
            return RidgedCovariance(self.rows, 0.0, 1.0)
        # One part in 10^9 of the mean variance keeps exact duplicates from making it singular.
        return RidgedCovariance(self.rows, self.scale, max(self.floor, 1e-9 * total / d))

    def solve(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply vectors `(n, d)` by the inverse; the floor must be above 0."""
        values, (m, d) = self.rows.values, self.rows.values.shape
        if not self.scale:
            return np.asarray(vectors / self.floor)
        if m >= d:
            return np.asarray(scipy.linalg.cho_solve(self._factor, vectors.T).T)
        # Woodbury: only as many directions as there are rows differ from the floor.
        along = scipy.linalg.cho_solve(self._factor, (vectors @ values.T).T).T
        return np.asarray((vectors - self.scale * along @ values) / self.floor)

    @cached_property
    def log_determinant(self) -> float:
        """Logarithm of the determinant; the floor must be above 0."""
        m, d = self.rows.values.shape
        floor = math.log(self.floor)
        if not self.scale:
            return float(d * floor)
        # R R' and R'R share what is not 0 of their spectra: the rest of it is the floor.
        return float(2 * np.log(np.diag(self._factor[0])).sum() + max(d - m, 0) * floor)

    @cached_property
    def _factor(self) -> tuple[NDArray[np.float64], bool]:
        matrix = self.scale * self.rows.gram
        matrix[np.diag_indices_from(matrix)] += self.floor
        factor: tuple[NDArray[np.float64], bool] = scipy.linalg.cho_factor(matrix)
        return factor


def ledoit_wolf(rows: Rows) -> RidgedCovariance:
    """Covariance of centred rows, shrunk towards a multiple of the identity.

    Notes
    -----
    Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".

    Examples
    --------
    >>> ledoit_wolf(Rows(np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]]))).dense().round(3)
    array([[1.208, 0.   ],
           [0.   , 1.292]])
    """
    m, d = rows.values.shape
    # Sums of the variances along all principal axes, and of their squares.
    total, squares = rows.total / m, float((rows.gram**2).sum()) / m**2
    mean_variance = total / d
    spread = squares - d * mean_variance**2
    noise = (((rows.values**2).sum(axis=1) ** 2).sum() / m - squares) / m
    shrinkage = min(max(noise, 0.0) / spread, 1.0) if spread > 0 else 1.0
    return RidgedCovariance(rows, (1.0 - shrinkage) / m, shrinkage * mean_variance)


def leading_axes(rows: Rows, count: int) -> NDArray[np.float64]:
    """Return up to `count` principal axes `(k, d)` of centred rows, largest variance first.

    Axes along which nothing varies are left out.
    """
    m, d = rows.values.shape
    size = len(rows.gram)
    # A few of many axes are computed faster by themselves.
    wanted = [size - count, size - 1] if size > 4 * count else None
    values, vectors = scipy.linalg.eigh(rows.gram, subset_by_index=wanted)
    keep = values > 1e-12 * max(values[-1], 1e-300)
    values, vectors = values[keep][::-1][:count], vectors[:, keep][:, ::-1][:, :count]
    axes = (vectors.T @ rows.values) / np.sqrt(values)[:, None] if m < d else vectors.T
    return np.ascontiguousarray(axes)
