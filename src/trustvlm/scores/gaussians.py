"""Scores that fit Gaussians to the shots of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from trustvlm.exceptions import InputError
from trustvlm.scores.covariance import Spectrum, invertible, ledoit_wolf, sample_spectrum
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.registry import ScoreResult, register
from trustvlm.scores.text import vlm_prediction
from trustvlm.scores.zero_shot import pick, softmax, unit_rows

__all__ = ["gda", "icpe", "mahalanobis"]

_NEEDS = ("logits", "features", "support_features", "support_labels")


@dataclass(frozen=True)
class _Classes:
    """Shots and their class means; rows of zeros and present=False for classes without shots."""

    shots: NDArray[np.float64]
    labels: NDArray[np.int64]
    means: NDArray[np.float64]
    present: NDArray[np.bool_]

    @property
    def residuals(self) -> NDArray[np.float64]:
        return self.shots - self.means[self.labels]


def _by_class(evidence: Evidence, shots: NDArray[np.float64]) -> _Classes:
    labels = evidence.support_labels
    assert labels is not None  # noqa: S101 -- the registry demanded it
    counts = np.bincount(labels, minlength=evidence.n_classes)
    sums = np.zeros((evidence.n_classes, shots.shape[1]))
    np.add.at(sums, labels, shots)
    return _Classes(shots, labels, sums / np.maximum(counts, 1)[:, None], counts > 0)


def _directions(evidence: Evidence) -> NDArray[np.float64]:
    """Return the shots as unit rows; there must be one."""
    assert evidence.support_features is not None  # noqa: S101 -- the registry demanded it
    if not len(evidence.support_features):
        raise InputError("Expected at least one shot, but `support_features` has no rows.")
    return unit_rows(evidence.support_features)


def _features(evidence: Evidence) -> NDArray[np.float64]:
    assert evidence.features is not None  # noqa: S101 -- the registry demanded it
    return unit_rows(evidence.features)


@dataclass(frozen=True)
class _Distances:
    precise_means: NDArray[np.float64]
    means: NDArray[np.float64]
    covariance: Spectrum
    present: NDArray[np.bool_]


def _fit_mahalanobis(evidence: Evidence) -> _Distances:
    classes = _by_class(evidence, _directions(evidence))
    covariance = invertible(ledoit_wolf(classes.residuals))
    means = classes.means[classes.present]
    return _Distances(covariance.solve(means), means, covariance, classes.present)


@register(
    "mahalanobis",
    needs=_NEEDS,
    formula="-(x - mu_yhat)' S^-1 (x - mu_yhat), S shared and shrunk",
    source="Lee et al. 2018 (arXiv 1807.03888); shrinkage of Ledoit & Wolf 2004",
    complexity="O(nd(C + m)), m shots",
    fit=_fit_mahalanobis,
)
def mahalanobis(evidence: Evidence, fitted: _Distances) -> ScoreResult:
    """Negative squared Mahalanobis distance to the predicted class, 0 or less.

    Features are scaled to length one. A class without shots counts as far as the farthest class.
    """
    prediction = vlm_prediction(evidence)
    x = _features(evidence)
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
    classes = _by_class(evidence, _directions(evidence))
    m, d = classes.shots.shape
    sample = sample_spectrum(classes.residuals)
    trace = sample.variances.sum() * m / max(m - 1, 1)  # of the unbiased covariance
    ridged = Spectrum(sample.axes, (m * sample.variances + trace) / d, float(trace / d))
    means = classes.means[classes.present]
    weights = invertible(ridged).solve(means)
    return _Linear(weights, -0.5 * (weights * means).sum(axis=1), classes.present)


@register(
    "gda",
    needs=_NEEDS,
    formula="max softmax(z + a (mu_c' P x - mu_c' P mu_c / 2)), P = d ((m-1) S + tr(S) I)^-1",
    source="Wang et al. 2024 (arXiv 2402.04087)",
    complexity="O(nCd)",
    corrects=True,
    fit=_fit_gda,
)
def gda(evidence: Evidence, fitted: _Linear, *, alpha: float = 1.0) -> ScoreResult:
    """Gaussian discriminant analysis added to the logits; confidence is the softmax's maximum.

    The original chooses `alpha` on validation data; here it is 1. Features are those of the
    vision encoder, scaled to length one. A class without shots gets the image's mean visual
    logit, which neither favours nor excludes it.
    """
    visual = _features(evidence) @ fitted.weights.T + fitted.offsets
    table = np.repeat(visual.mean(axis=1, keepdims=True), evidence.n_classes, axis=1)
    table[:, fitted.present] = visual
    combined = evidence.logits.astype(np.float64) + alpha * table
    return ScoreResult(combined.argmax(axis=1), softmax(combined).max(axis=1))


@dataclass(frozen=True)
class _Subspace:
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    means: NDArray[np.float64]
    lowers: NDArray[np.float64]
    present: NDArray[np.bool_]


def _fit_icpe(evidence: Evidence, *, components: int = 128, shrinkage: float = 0.1) -> _Subspace:
    if not (components >= 1 and 0 < shrinkage <= 1):
        raise InputError(
            "Expected `components` of at least 1 and `shrinkage` in (0, 1], "
            f"but got {components} and {shrinkage}."
        )
    shots = _directions(evidence)
    centre = shots.mean(axis=0)
    axes = sample_spectrum(shots - centre).axes[::-1][:components]
    if not len(axes):  # all shots are the same: any direction will do
        axes = np.eye(1, shots.shape[1])
    classes = _by_class(evidence, (shots - centre) @ axes.T)
    size = len(axes)
    pooled = (classes.residuals**2).sum() / max(len(shots), 1) / size
    lowers = []
    for c in np.flatnonzero(classes.present):
        own = classes.residuals[classes.labels == c]
        covariance = (1.0 - shrinkage) * own.T @ own / max(len(own) - 1, 1)
        lowers.append(np.linalg.cholesky(covariance + (shrinkage * pooled or 1.0) * np.eye(size)))
    return _Subspace(
        centre, axes, classes.means[classes.present], np.stack(lowers), classes.present
    )


@register(
    "icpe",
    needs=_NEEDS,
    formula="(max_c p_c + softmax_c(log N(x; mu_c, S_c))_yhat) / 2, in the shots' PCA subspace",
    source="Lin et al. 2025 (arXiv 2511.22019)",
    complexity="O(n(dk + Ck^2) + Ck^3), k components",
    fit=_fit_icpe,
)
def icpe(evidence: Evidence, fitted: _Subspace) -> ScoreResult:
    """Mean of MSP and of the density's softmax at the predicted class, in (0, 1].

    With few shots a class's covariance is singular; it is shrunk towards the pooled variance by
    `shrinkage`, which is our choice (the original adds 1e-8 to the diagonal and wants ten shots or
    more). Features are scaled to length one. A class without shots has density 0.
    """
    prediction = vlm_prediction(evidence)
    x = (_features(evidence) - fitted.centre) @ fitted.axes.T
    densities = np.empty((len(x), len(fitted.means)))
    for c, (mean, lower) in enumerate(zip(fitted.means, fitted.lowers, strict=True)):
        white = solve_triangular(lower, (x - mean).T, lower=True)
        densities[:, c] = -0.5 * (white**2).sum(axis=0) - np.log(np.diag(lower)).sum()
    table = np.zeros((len(x), evidence.n_classes))
    table[:, fitted.present] = softmax(densities)
    confidence = (softmax(evidence.logits).max(axis=1) + pick(table, prediction)) / 2.0
    return ScoreResult(prediction, confidence)
