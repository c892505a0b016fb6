"""P(correct): from a score to the probability that the label is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array, correctness_array
from trustvlm.text import did_you_mean

# Isotonic regression: the best non-decreasing function of the confidence.

State = dict[str, NDArray[np.float64]]


def grouped(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct confidences `(m,)`, ascending, with how many images and how many right ones.

    Examples
    --------
    >>> grouped(np.array([0.5, 0.1, 0.5]), np.array([True, False, False]))
    (array([0.1, 0.5]), array([1., 2.]), array([0., 1.]))
    """
    values, where = np.unique(confidence, return_inverse=True)
    images = np.bincount(where, minlength=len(values)).astype(np.float64)
    right = np.bincount(where, weights=correct, minlength=len(values)).astype(np.float64)
    return values, images, right


def fit_isotonic(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit by pooling adjacent violators (Zadrozny & Elkan 2002)."""
    values, images, right = grouped(confidence, correct)
    return _thinned(values, scipy.optimize.isotonic_regression(right / images, weights=images).x)


def fit_smoothed(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit by pooling adjacent violators, each pool's share right drawn in from 0 and 1.

    A pool with k of n right gets (k + 1/2) / (n + 1), the mean after Jeffreys' prior: a few images
    that are all right do not prove that such images always are. Pools that then violate the order
    are pooled again.
    """
    values, images, right = grouped(confidence, correct)
    blocks = scipy.optimize.isotonic_regression(right / images, weights=images).blocks
    n, k = np.add.reduceat(images, blocks[:-1]), np.add.reduceat(right, blocks[:-1])
    smoothed = scipy.optimize.isotonic_regression((k + 0.5) / (n + 1), weights=n).x
    return _thinned(values, np.repeat(smoothed, np.diff(blocks)))


def predict_isotonic(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate between the fitted confidences; beyond them the outermost value holds."""
    return np.interp(confidence, state["confidence"], state["probability"])


def _thinned(values: NDArray[np.float64], fitted: NDArray[np.float64]) -> State:
    # Inside a run of equal values nothing is lost without its middle.
    kept = np.ones(len(values), dtype=bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return {"confidence": values[kept], "probability": np.clip(fitted[kept], 0.0, 1.0)}


# The default: Bayesian logistic regression, so that a few images only move what is known
# without them, and isotonic regression beside it, which many images can afford.


@dataclass(frozen=True)
class LogisticPrior:
    """What is known of P(correct) before the images: sigmoid(a x + b), x the score's log-odds.

    Without arguments it is the prior of a score that estimates the log-odds itself, as `auto` does.

    Attributes
    ----------
    slope, slope_sd
        Mean and standard deviation of the Gaussian prior of a.
    intercept, intercept_sd
        Those of b, in log-odds.
    shift_share, shift_slope_sd, shift_intercept_sd
        Prior probability that the images differ from what is known, and the standard deviations
        of a and b then.
    location, scale
        x = (confidence - location) / scale, where there is no `shots`.
    shots
        What held-out shots say: x is the log-odds of its P(correct).
    shape_images
        With so many images, isotonic regression on them counts as much as the logistic curve.

    Notes
    -----
    A mixture of two Gaussians: few images that look as expected leave the curve nearly as it is,
    and images that contradict it move it. The defaults were compared with others by the log loss
    with 20 and 50 images; benchmarks/few_labels.py.
    """

    slope: float = 1.0
    slope_sd: float = 0.1
    intercept: float = 0.0
    intercept_sd: float = 0.1
    shift_share: float = 0.2
    shift_slope_sd: float = 0.4
    shift_intercept_sd: float = 0.9
    location: float = 0.0
    scale: float = 1.0
    shape_images: float = 1000.0
    shots: Calibrator | None = None

    def __post_init__(self) -> None:
        numbers = self.numbers()
        spreads = (*(sd for _, sds in self.components() for sd in sds), self.scale)
        if not (
            np.isfinite(numbers).all()
            and min(*spreads, self.shape_images) > 0
            and self.slope >= 0
            and 0 <= self.shift_share < 1
        ):
            raise InputError(
                "Expected a prior of finite numbers, `slope` at least 0, `shift_share` in [0, 1), "
                f"`scale`, `shape_images` and standard deviations above 0, but got {self}."
            )

    @classmethod
    def of_images(cls, confidence: NDArray[np.float64]) -> LogisticPrior:
        """Return the weak prior for a score of which nothing else is known, from n confidences.

        x is the confidence in standard deviations of these images from their mean. One of them is
        expected to change the odds by a factor of e, three images in four to be right, and both may
        be far off. Where all confidences are alike nothing is known of a slope: it is 0.
        """
        location, scale = float(confidence.mean()), float(confidence.std())
        alike = confidence.min() == confidence.max() or not scale > 0
        return cls(
            slope=0.0 if alike else 1.0,
            slope_sd=_ALIKE if alike else 1.0,
            intercept=1.0,
            intercept_sd=1.5,
            shift_share=0.0,
            location=location,
            scale=1.0 if alike else scale,
            shape_images=100.0,
        )

    @classmethod
    def of_held_out(cls, confidence: ArrayLike, correct: ArrayLike) -> LogisticPrior:
        """Return the prior that n >= 1 shots give, each judged without itself.

        Parameters
        ----------
        confidence, correct
            `(n,)`, as for `Calibrator.fit`.

        Examples
        --------
        >>> prior = LogisticPrior.of_held_out([1.0, 2.0, 3.0, 4.0], [False, True, False, True])
        >>> prior.log_odds(np.array([1.0, 4.0])).round(1)
        array([-1. ,  1.7])
        """
        return cls(shots=Calibrator("logistic").fit(confidence, correct))

    def log_odds(self, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x, `(n,)`, which never falls as the confidence rises."""
        if self.shots is not None:
            p = self.shots.predict(confidence)
            return np.asarray(np.log(p) - np.log1p(-p))
        return (confidence - self.location) / self.scale

    def components(self) -> tuple[tuple[float, tuple[float, float]], ...]:
        """Return the Gaussians of the mixture: prior probability, and deviations of a and b."""
        as_known = (1 - self.shift_share, (self.slope_sd, self.intercept_sd))
        shifted = (self.shift_share, (self.shift_slope_sd, self.shift_intercept_sd))
        return (as_known, shifted) if self.shift_share else (as_known,)

    def numbers(self) -> NDArray[np.float64]:
        """Return all fields but `shots`, in their order."""
        return np.array([getattr(self, field.name) for field in fields(self)[:-1]])


# As good as 0 for a standard deviation, and its inverse square still harmless.
_ALIKE = 1e-6
_OF_SHOTS = "shots_"


def fit_logistic(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    prior: LogisticPrior | None = None,
) -> State:
    """Fit sigmoid(a x + b), a >= 0, at the largest posterior density (MAP) of each Gaussian.

    The curves of the mixture are averaged by their posterior probabilities. P(correct) with n
    images is m / (n + m) of that and n / (n + m) of smoothed isotonic regression, m the prior's
    `shape_images`: few images cannot show the shape of a curve, many can.

    Parameters
    ----------
    confidence, correct
        `(n,)`; n = 0 leaves the prior as it is.
    prior
        None takes `LogisticPrior.of_images`, for which n must be at least 1.

    Notes
    -----
    Bayesian logistic regression with Laplace's approximation of the evidence: MacKay 1992, "The
    evidence framework applied to classification networks". Without prior it would be Platt 1999. A
    slope below 0 is taken as 0: no score is trusted the less the higher it is.
    """
    used = LogisticPrior.of_images(confidence) if prior is None else prior
    x = used.log_odds(confidence)
    columns = np.stack([x, np.ones_like(x)], axis=1)
    labels, mean = correct.astype(np.float64), np.array([used.slope, used.intercept])
    weights, evidence = [], []
    for share, deviations in used.components():
        sd = np.array(deviations)
        mode = _logistic(columns, labels, increasing=1, mean=mean, sd=sd)
        z, off = columns @ mode, (mode - mean) / sd
        p = scipy.special.expit(z)
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns + np.diag(sd**-2.0)
        log_posterior = (labels * z - np.logaddexp(0.0, z)).sum() - off @ off / 2
        # ln of the prior's density and of the volume of the posterior, without the 2 pi of both.
        volume = -np.log(sd).sum() - np.linalg.slogdet(curvature)[1] / 2
        weights.append(mode)
        evidence.append(np.log(share) + log_posterior + volume)
    no_images = {"confidence": np.empty(0), "probability": np.empty(0)}
    of_shots = {} if used.shots is None else used.shots.state_
    return {
        "weights": np.array(weights),
        "shares": scipy.special.softmax(evidence),
        "prior": used.numbers(),
        "images": np.array([float(len(x))]),
        # Whether another fit would begin with this prior, or with one of its own images.
        "own_prior": np.array([float(prior is None)]),
        **(fit_smoothed(confidence, correct) if len(x) else no_images),
        **{_OF_SHOTS + name: array for name, array in of_shots.items()},
    }


def predict_logistic(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` probabilities, none of them 0 or 1."""
    prior = _prior_of(state)
    x = prior.log_odds(confidence)
    curves = [_probability(slope * x + intercept) for slope, intercept in state["weights"]]
    curve = np.asarray(state["shares"] @ np.array(curves))
    n = float(state["images"][0])
    if not n:
        return curve
    share = n / (n + prior.shape_images)
    return (1 - share) * curve + share * predict_isotonic(state, confidence)


def _prior_of(state: State) -> LogisticPrior:
    shots = {
        name.removeprefix(_OF_SHOTS): array
        for name, array in state.items()
        if name.startswith(_OF_SHOTS)
    }
    names = (field.name for field in fields(LogisticPrior))
    return LogisticPrior(
        **dict(zip(names, state["prior"].tolist(), strict=False)),
        shots=Calibrator.from_dict({"name": "logistic", "state": shots}) if shots else None,
    )


# Platt scaling and beta calibration: logistic curves without a prior.

_SMALLEST = 1e-12


def fit_platt(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit sigmoid(a s + b), a >= 0, to targets drawn in from 0 and 1 (Platt 1999).

    The confidence s is standardised first, which changes nothing but the rounding.
    """
    location, scale = float(confidence.mean()), float(confidence.std())
    if confidence.min() == confidence.max() or scale == 0:
        # A single confidence tells nothing of a slope.
        ones = np.ones((len(correct), 1))
        weights = np.append(0.0, _logistic(ones, _platt_targets(correct), increasing=0))
        scale = 1.0
    else:
        standard = (confidence - location) / scale
        columns = np.stack([standard, np.ones_like(standard)], axis=1)
        weights = _logistic(columns, _platt_targets(correct), increasing=1)
    return {
        "weights": weights,
        "location": np.array([location]),
        "scale": np.array([scale]),
    }


def predict_platt(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` probabilities."""
    slope, intercept = state["weights"]
    standard = (confidence - state["location"][0]) / state["scale"][0]
    return _probability(slope * standard + intercept)


def fit_beta(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Fit sigmoid(a ln p - b ln(1 - p) + c), a, b >= 0, on Platt's probability p.

    Notes
    -----
    Kull, Silva Filho & Flach 2017, "Beta calibration", for probabilities; a score that is none
    becomes one by Platt scaling first, of which this is then the refinement: a = b = 1, c = 0
    gives Platt's back.
    """
    platt = fit_platt(confidence, correct)
    columns = _beta_columns(predict_platt(platt, confidence))
    return {**platt, "beta": _logistic(columns, _platt_targets(correct), increasing=2)}


def predict_beta(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` probabilities."""
    columns = _beta_columns(predict_platt(state, confidence))
    return _probability(columns @ state["beta"])


_FEW = 256


def _probability(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sigmoid(z) within (0, 1): nothing is ever certain, not even by rounding."""
    if z.size <= _FEW:
        # The same numbers, to the bit, as SciPy's, which takes a fifth of a second to load.
        values = [1 / (1 + math.exp(min(-value, 709.0))) for value in z.ravel().tolist()]
        sigmoid = np.array(values, dtype=np.float64).reshape(z.shape)
    else:
        sigmoid = scipy.special.expit(z)
    probability: NDArray[np.float64] = np.clip(
        sigmoid, np.finfo(np.float64).tiny, np.nextafter(1.0, 0.0)
    )
    return probability


def _beta_columns(p: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    return np.stack([np.log(inside), -np.log1p(-inside), np.ones_like(inside)], axis=1)


def _platt_targets(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Draw the outcomes in from 0 and 1, as if one more image each had been right and wrong."""
    right = int(correct.sum())
    wrong = len(correct) - right
    return np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))


def _logistic(
    columns: NDArray[np.float64],
    targets: NDArray[np.float64],
    increasing: int,
    *,
    mean: NDArray[np.float64] | None = None,
    sd: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Logistic regression, the first `increasing` weights not below 0.

    At the largest likelihood; with `mean` and `sd`, those of a Gaussian prior of each weight, at
    the largest posterior density.
    """
    n, k = max(1, len(columns)), columns.shape[1]
    start = np.zeros(k)
    start[:increasing] = 1.0
    centre = start if mean is None else mean
    penalty = np.zeros(k) if sd is None else sd**-2.0

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z, off = columns @ weights, weights - centre
        value = (np.logaddexp(0.0, z) - targets * z).sum() + penalty @ off**2 / 2
        gradient = columns.T @ (scipy.special.expit(z) - targets) + penalty * off
        return float(value) / n, gradient / n

    bounds = [(0.0, None)] * increasing + [(None, None)] * (k - increasing)
    fit = scipy.optimize.minimize(
        loss,
        centre,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    return np.asarray(fit.x, dtype=np.float64)


# Venn-Abers prediction: isotonic regression with the new image as if right, and as if wrong.


def fit_venn_abers(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> State:
    """Compute the pair of probabilities (p0, p1) at every distinct confidence and between them.

    p1 is the isotonic fit at the new image, added to the calibration set as right, p0 as wrong.
    One of the two is calibrated whatever the distribution; the single probability made of them,
    p1 / (1 - p0 + p1), is the one of least regret in log loss, and is never 0 or 1.

    Notes
    -----
    Vovk & Petej 2014, "Venn-Abers predictors"; Vovk, Petej & Fedorova 2015 (arXiv 1511.00213).
    A pool of the isotonic fit that the new image does not fall into stays whole, so each of the
    2 m + 1 fits runs over pools and the members of one pool only.
    """
    values, images, right = grouped(confidence, correct)
    fit = scipy.optimize.isotonic_regression(right / images, weights=images)
    starts = fit.blocks[:-1]
    pool_images, pool_right = np.add.reduceat(images, starts), np.add.reduceat(right, starts)
    m = len(values)
    low, high = np.empty(2 * m + 1), np.empty(2 * m + 1)
    # Position 2 i is the gap before value i, position 2 i + 1 the value itself.
    for position in range(2 * m + 1):
        i, at_value = divmod(position, 2)
        pool = int(np.searchsorted(starts, min(i, m - 1), side="right")) - 1
        first = starts[pool]
        last = starts[pool + 1] if pool + 1 < len(starts) else m
        n = np.concatenate([pool_images[:pool], images[first:last], pool_images[pool + 1 :]])
        k = np.concatenate([pool_right[:pool], right[first:last], pool_right[pool + 1 :]])
        at = pool + i - first
        if at_value:
            n[at] += 1
        else:
            n, k = np.insert(n, at, 1.0), np.insert(k, at, 0.0)
        low[position] = scipy.optimize.isotonic_regression(k / n, weights=n).x[at]
        k[at] += 1
        high[position] = scipy.optimize.isotonic_regression(k / n, weights=n).x[at]
    return {"confidence": values, "low": low, "high": high}


def predict_venn_abers(state: State, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(n,)` single probabilities p1 / (1 - p0 + p1)."""
    values = state["confidence"]
    at = np.searchsorted(values, confidence, side="left")
    at_value = values[np.minimum(at, len(values) - 1)] == confidence
    position = 2 * at + np.where((at < len(values)) & at_value, 1, 0)
    low, high = state["low"][position], state["high"][position]
    merged: NDArray[np.float64] = high / (1 - low + high)
    return merged


# What a stored calibrator may hold.


def _misstated(name: str, state: State) -> str | None:
    """Return the first array that no calibrator of this name can have learned; None if all fit."""
    m = state["confidence"].size if "confidence" in state else 0
    empty = name == "logistic" and state["images"].size == 1 and state["images"][0] == 0
    curves = len(state["weights"]) if name == "logistic" and state["weights"].ndim == 2 else 1
    shapes = {
        "weights": (curves, 2) if name == "logistic" else (2,),
        "shares": (curves,),
        "prior": (len(fields(LogisticPrior)) - 1,),
        "beta": (3,),
        "confidence": (m,),
        "probability": (m,),
        "low": (2 * m + 1,),
        "high": (2 * m + 1,),
    }

    def fits(key: str, array: NDArray[np.float64]) -> bool:
        if array.shape != shapes.get(key, (1,)) or not np.isfinite(array).all():
            return False
        if key == "confidence":
            return bool((m > 0 or empty) and (np.diff(array) > 0).all())
        if key in ("probability", "low", "high", "shares"):
            inside = ((array >= 0) & (array <= 1)).all()
            summed = np.isclose(array.sum(), 1) if key == "shares" else (np.diff(array) >= 0).all()
            return bool(inside and (summed or not array.size))
        if key in ("weights", "beta"):
            # A slope below 0 would trust the less the higher the confidence.
            return bool((array.T[: 2 if key == "beta" else 1] >= 0).all())
        return bool(key != "scale" or array[0] > 0) and bool(key != "images" or array[0] >= 0)

    wrong = [key for key in _KINDS[name].keys if not fits(key, state[key])]
    if not wrong and "low" in state and (state["low"] > state["high"]).any():
        wrong = ["low"]
    deep = [key for key in state if key.startswith(2 * _OF_SHOTS)]
    return next(iter(wrong + deep), None)


# P(correct): from a score to the probability that the label is right.

DEFAULT_CALIBRATOR = "logistic"
"""The one that begins with what is known without labels."""


@dataclass(frozen=True)
class _Kind:
    fit: Callable[..., State]
    predict: Callable[[State, NDArray[np.float64]], NDArray[np.float64]]
    keys: tuple[str, ...]
    takes_prior: bool = False


_KINDS = {
    "logistic": _Kind(
        fit_logistic,
        predict_logistic,
        ("weights", "shares", "prior", "images", "own_prior", "confidence", "probability"),
        takes_prior=True,
    ),
    "platt": _Kind(fit_platt, predict_platt, ("weights", "location", "scale")),
    "isotonic": _Kind(fit_isotonic, predict_isotonic, ("confidence", "probability")),
    "smoothed_isotonic": _Kind(fit_smoothed, predict_isotonic, ("confidence", "probability")),
    "beta": _Kind(fit_beta, predict_beta, ("weights", "location", "scale", "beta")),
    "venn_abers": _Kind(fit_venn_abers, predict_venn_abers, ("confidence", "low", "high")),
}
CALIBRATORS = tuple(_KINDS)
"""The curves from a score to P(correct), by name."""


class Calibrator:
    """A non-decreasing map from confidence to the probability of being correct.

    Parameters
    ----------
    name
        `logistic`, the default: Bayesian logistic regression (MAP), which isotonic regression joins
        as the images grow many. `smoothed_isotonic`: isotonic regression whose
        ends are drawn in from 0 and 1.
        `isotonic`: the best non-decreasing step function, linear in between. `platt`: a logistic
        curve, for few images. `beta`: Platt's curve with a shape of its own at either end.
        `venn_abers`: isotonic regression that allows for its own uncertainty.
    prior
        Of `logistic`, what is known without the images to fit: `LogisticPrior()` for a score that
        estimates log-odds, `LogisticPrior.of_held_out` for others. None takes a weak prior that
        serves every score, from the confidences of the images.

    Attributes
    ----------
    state_ : dict of ndarray
        What `fit` learned; float64.

    Examples
    --------
    >>> confidence, correct = [0.1, 0.2, 0.3, 0.4], [False, True, False, True]
    >>> Calibrator("isotonic").fit(confidence, correct).predict([0.0, 0.25, 0.5])
    array([0. , 0.5, 1. ])
    >>> Calibrator("venn_abers").fit(confidence, correct).predict([0.0, 0.25, 0.5]).round(2)
    array([0.33, 0.5 , 0.67])
    >>> Calibrator(prior=LogisticPrior()).fit([], []).predict([-1.0, 0.0, 1.0]).round(2)
    array([0.27, 0.5 , 0.73])
    """

    state_: State

    def __init__(self, name: str = DEFAULT_CALIBRATOR, prior: LogisticPrior | None = None) -> None:
        self.name, self.prior = name, prior

    def check(self) -> Calibrator:
        """Raise `InputError` unless there is a calibrator of this name, which takes the prior.

        Examples
        --------
        >>> Calibrator("plat").check()
        Traceback (most recent call last):
        trustvlm.exceptions.InputError: Expected a calibrator of logistic, platt, \
isotonic, smoothed_isotonic, beta, venn_abers, but got 'plat': did you mean platt?
        """
        if self.prior is not None and not self._kind().takes_prior:
            raise InputError(
                f"Expected no `prior` with the calibrator {self.name}, but got one: it is for "
                f"{DEFAULT_CALIBRATOR}."
            )
        self._kind()
        return self

    def fit(self, confidence: ArrayLike, correct: ArrayLike) -> Calibrator:
        """Learn from n labelled images that neither shots nor score have seen.

        n must be at least 1, but with a `prior`, which decides alone where there are none.

        Parameters
        ----------
        confidence
            `(n,)` finite real numbers, higher is more trusted.
        correct
            `(n,)` booleans, or zeros and ones; they may be all alike.

        Raises
        ------
        InputError
            For an unknown name, no images, or arrays that do not fit.
        """
        kind = self.check()._kind()
        score = confidence_array(confidence)
        right = correctness_array(correct, len(score))
        if not len(score) and self.prior is None:
            raise InputError("Expected at least one labelled image to calibrate on, but got none.")
        given = (self.prior,) if kind.takes_prior else ()
        self.state_ = kind.fit(score.astype(np.float64), right, *given)
        return self

    def predict(self, confidence: ArrayLike) -> NDArray[np.float64]:
        """Return `(n,)` float64 probabilities in [0, 1]; NaN where the confidence is NaN.

        Raises
        ------
        InputError
            If `fit` has not been called, or the confidence is not `(n,)` real numbers.
        """
        if not hasattr(self, "state_"):
            raise InputError("This Calibrator has learned nothing yet: call fit first.")
        score = np.asarray(confidence, dtype=np.float64)
        defined = ~np.isnan(score)
        probability = np.full(score.shape, np.nan)
        probability[defined] = self._kind().predict(
            self.state_, confidence_array(score[defined]).astype(np.float64)
        )
        return probability

    def to_dict(self) -> dict[str, Any]:
        """Return name and state as plain JSON values."""
        return {"name": self.name, "state": {k: v.tolist() for k, v in self.state_.items()}}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibrator:
        """Restore what `to_dict` gave, or the same with arrays.

        Raises
        ------
        InputError
            If the name is unknown, or the state is not complete or none that `fit` could give.

        Examples
        --------
        >>> learned = Calibrator("platt").fit([0.1, 0.9], [False, True])
        >>> again = Calibrator.from_dict(learned.to_dict())
        >>> bool((again.predict([0.3]) == learned.predict([0.3])).all())
        True
        """
        calibrator = cls(str(stored["name"]))
        state = {k: np.asarray(v, dtype=np.float64) for k, v in stored["state"].items()}
        missing = [key for key in calibrator._kind().keys if key not in state]
        if missing:
            raise InputError(
                f"The stored calibrator `{calibrator.name}` lacks {', '.join(missing)}."
            )
        if (wrong := _misstated(calibrator.name, state)) is not None:
            raise InputError(
                f"The array `{wrong}` of the stored calibrator `{calibrator.name}` is none that "
                "fitting gives."
            )
        if calibrator._kind().takes_prior and not state["own_prior"][0]:
            calibrator.prior = _prior_of(state)
        calibrator.state_ = state
        return calibrator

    def _kind(self) -> _Kind:
        if self.name not in _KINDS:
            hint = did_you_mean(str(self.name), _KINDS, 1)
            raise InputError(
                f"Expected a calibrator of {', '.join(_KINDS)}, but got {self.name!r}"
                + (f": {hint}" if hint else ".")
            )
        return _KINDS[self.name]


# P(correct) of the calibration images themselves, each from the others.


def cross_fitted(
    confidence: ArrayLike,
    correct: ArrayLike,
    calibrator: str | Calibrator = DEFAULT_CALIBRATOR,
    *,
    folds: int = 10,
) -> NDArray[np.float64]:
    """Return P(correct) of every calibration image from a calibrator that has not seen it.

    These are fair to measure the calibrator with (`metrics.brier`, `metrics.ece`); what it says of
    the images that it was fitted on is not.

    Parameters
    ----------
    confidence, correct
        `(n,)`, as for `Calibrator.fit`.
    calibrator
        Of `CALIBRATORS`; or one with a prior, which every fold begins with.
    folds
        At least 2. The images are dealt to them in the order of their confidence, so that every
        fold covers all confidences, and the order of the images does not matter.

    Returns
    -------
    ndarray
        `(n,)` float64; NaN with a single image, which has no others.

    Examples
    --------
    >>> cross_fitted([0.1, 0.2, 0.2, 0.3], [False, False, True, True], "isotonic", folds=4)
    array([0.5, 1. , 0. , 0.5])
    """
    score = confidence_array(confidence).astype(np.float64)
    right = correctness_array(correct, len(score))
    if folds < 2:
        raise InputError(f"Expected `folds` to be at least 2, but got {folds}.")
    kind = Calibrator(calibrator) if isinstance(calibrator, str) else calibrator
    fold = np.empty(len(score), dtype=np.int64)
    fold[np.lexsort((right, score))] = np.arange(len(score)) % folds
    probability = np.full(len(score), np.nan)
    for held_out in range(min(folds, len(score)) if len(score) > 1 else 0):
        seen = fold != held_out
        learned = Calibrator(kind.name, kind.prior).fit(score[seen], right[seen])
        probability[~seen] = learned.predict(score[~seen])
    return probability


# How true the probabilities are, in words.


def calibrator_statement(quality: Mapping[str, float | None]) -> str:
    """Say how true the probabilities are, from `Calibration.quality`.

    Examples
    --------
    >>> calibrator_statement({"brier": 0.08, "brier_constant": 0.2, "ece": 0.04,
    ...                       "ece_if_calibrated": 0.03, "rms_calibration_error": 0.02})
    'P(correct): Brier score 0.080 (a constant: 0.200), calibration error 0.040 (perfect \
probabilities would show 0.030)'
    """
    brier, constant = quality["brier"], quality["brier_constant"]
    ece, unavoidable = quality["ece"], quality["ece_if_calibrated"]
    if brier is None or constant is None or ece is None or unavoidable is None:
        return "P(correct): too few images to measure it"
    return (
        f"P(correct): Brier score {brier:.3f} (a constant: {constant:.3f}), calibration error "
        f"{ece:.3f} (perfect probabilities would show {unavoidable:.3f})"
    )
