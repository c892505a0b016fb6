"""TrustVLM on embeddings as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.scores import Evidence, PrototypeBank, ScoreResult, apply, prepare
from trustvlm.scores.arrays import softmax, zero_shot_logits
from trustvlm.scores.auto import auto_logits
from trustvlm.scores.prototype_scores import prototype_softmax

require("sklearn", extra="sklearn", purpose="trustvlm.adapters.sklearn")

_METHODS = ("auto", "trustvlm")


class TrustClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify embeddings by text and examples, and say how far each label can be trusted.

    Parameters
    ----------
    text_embeddings
        `(C, e)` of the classes, in their sorted order (that of `np.unique(y)`), from the VLM whose
        image embeddings are the first e columns of X. None: there is no text, and prototypes alone
        decide.
    correct
        Whether examples may correct the label of the text (`auto_star`, TrustVLM*), or verify it
        only (`auto`, TrustVLM). Without text it makes no difference.
    method
        `auto` weighs text and examples by what the examples say, each held out; `trustvlm` is the
        paper's. Without text it makes no difference.
    weight, temperature
        r and T of the scores `trustvlm` and `trustvlm_star`; without text, T of the prototypes.
    logit_scale
        s of the zero-shot logits; 100 for CLIP.

    Attributes
    ----------
    classes_
        `(C,)` labels, sorted.
    n_features_in_
        Columns of X.
    bank_
        The `PrototypeBank` of the examples.

    Notes
    -----
    Columns of X beyond the first e, if there are any, are those of a second vision encoder, in
    which images and examples are then compared; otherwise the first e serve both purposes.

    Dong et al. 2025 (arXiv 2505.23745). Prototypes are means of the rows as they are given: a
    `StandardScaler` before this changes what they mean, and text embeddings do not pass through it.

    Examples
    --------
    >>> X, y = [[1.0, 0.1], [0.9, 0.0], [0.1, 1.0]], ["cat", "cat", "dog"]
    >>> model = TrustClassifier().fit(X, y)
    >>> model.predict([[0.8, 0.1]])
    array(['cat'], dtype='<U3')
    >>> model.score_samples([[0.8, 0.1], [0.5, 0.5]]).round(2)
    array([2.  , 1.73])
    """

    def __init__(
        self,
        text_embeddings: ArrayLike | None = None,
        *,
        correct: bool = True,
        method: str = "auto",
        weight: float = 1.0,
        temperature: float = 0.01,
        logit_scale: float = 100.0,
    ) -> None:
        self.text_embeddings = text_embeddings
        self.correct = correct
        self.method = method
        self.weight = weight
        self.temperature = temperature
        self.logit_scale = logit_scale

    def fit(self, X: ArrayLike, y: ArrayLike) -> TrustClassifier:
        """Learn a prototype of each class from `(n, d)` embeddings and `(n,)` labels.

        Raises
        ------
        InputError
            If the text embeddings do not fit the classes or the columns, or the method is another.
        """
        if self.method not in _METHODS:
            raise InputError(
                f"Expected `method` to be {' or '.join(_METHODS)}, but got {self.method!r}: "
                "`correct` says whether labels may be corrected."
            )
        rows, target = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(target)
        self.classes_, indices = np.unique(target, return_inverse=True)
        if self.text_embeddings is not None:
            self._check_text(np.shape(self.text_embeddings))
        rows = _without_zeros(rows)
        features = self._features(rows)
        self.bank_ = PrototypeBank().fit(features, indices, n_classes=len(self.classes_))
        if self._weighs_itself:
            shots = Evidence.of(
                logits=np.empty((0, len(self.classes_))),
                bank=self.bank_,
                support_features=features,
                support_labels=indices,
                support_logits=self._text_logits(rows),
            )
            self._shots = shots
            self._learned = prepare("auto_star" if self.correct else "auto", shots)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the `(n,)` labels."""
        result = self._result(X)
        labels: NDArray[Any] = self.classes_[result.prediction]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return `(n, C)` shares of each class, which sum to 1; the largest is the label.

        They are the posteriors that the score looks at, not calibrated probabilities: wrap this in
        a `CalibratedClassifierCV` for these.
        """
        evidence = self._evidence(X)
        if self.correct and self._weighs_itself:
            return softmax(auto_logits(evidence, self._learned.learned))
        posterior = softmax(np.asarray(evidence.logits, dtype=np.float64))
        if self.correct and self.text_embeddings is not None:
            bank = self.bank_
            similarities = bank.similarities(np.asarray(evidence.features))
            image = prototype_softmax(similarities, bank.present_, self.temperature)
            posterior = posterior + self.weight * image
        shares: NDArray[np.float64] = posterior / posterior.sum(axis=1, keepdims=True)
        return shares

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the `(n,)` trust in each label: higher is more trusted, not a probability."""
        return self._result(X).confidence

    def _result(self, X: ArrayLike) -> ScoreResult:
        evidence = self._evidence(X)
        if self._weighs_itself:
            return self._learned(evidence)
        if self.correct and self.text_embeddings is not None:
            settings = {"weight": self.weight, "temperature": self.temperature}
            return apply("trustvlm_star", evidence, **settings)
        return apply("trustvlm", evidence, weight=self.weight)

    def _evidence(self, X: ArrayLike) -> Evidence:
        check_is_fitted(self)
        rows = _without_zeros(validate_data(self, X, dtype=np.float64, reset=False))
        features = self._features(rows)
        if self.text_embeddings is None:
            logits = self.bank_.similarities(features) / self.temperature
            return Evidence.of(logits=logits, features=features, bank=self.bank_)
        logits = self._text_logits(rows)
        if self._weighs_itself:
            return self._shots.with_images(logits=logits, features=features)
        return Evidence.of(logits=logits, features=features, bank=self.bank_)

    @property
    def _weighs_itself(self) -> bool:
        return self.method == "auto" and self.text_embeddings is not None

    def _text_logits(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        text = np.asarray(self.text_embeddings)
        return zero_shot_logits(rows[:, : text.shape[1]], text, logit_scale=self.logit_scale)

    def _features(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.text_embeddings is None:
            return rows
        width = np.shape(self.text_embeddings)[1]
        return rows[:, width:] if rows.shape[1] > width else rows

    def _check_text(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[0] != len(self.classes_) or shape[1] > self.n_features_in_:
            raise InputError(
                f"Expected `text_embeddings` to be (C, e) with C = {len(self.classes_)} classes "
                f"and e of at most {self.n_features_in_} columns, but got shape {shape}."
            )


def _without_zeros(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give rows of zeros, which point nowhere, the direction that is equally near to all axes."""
    empty = (rows == 0).all(axis=1)
    return np.where(empty[:, None], 1.0, rows) if empty.any() else rows
