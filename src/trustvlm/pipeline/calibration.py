"""What labelled images say about a model's verdicts: P(correct), and when to accept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions import Calibrator, Certificate
from trustvlm.decisions.statements import ASSUMPTION
from trustvlm.scores import ScoreResult

__all__ = ["Calibration", "fingerprint_of"]

_ARRAYS = ("confidence", "correct", "prediction", "label")


@dataclass(frozen=True)
class Calibration:
    """A certificate, a calibrator, and the labelled images that both rest on.

    Attributes
    ----------
    certificate
        The threshold and what is guaranteed of it.
    calibrator
        From confidence to P(correct).
    result
        Prediction and confidence of the model's score on the n calibration images.
    labels
        `(n,)` int64, their true classes.
    images
        Path and SHA-256 of each.
    dataset
        What the labelled input was called.
    score, parameters
        The score that was calibrated.
    created_at
        When, in UTC.
    unreadable
        Paths of labelled images that could not be read.
    """

    certificate: Certificate
    calibrator: Calibrator
    result: ScoreResult
    labels: NDArray[np.int64]
    images: tuple[Mapping[str, Any], ...]
    dataset: str
    score: str
    parameters: Mapping[str, Any]
    created_at: str
    unreadable: tuple[str, ...] = ()

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`(n,)` bool: which predictions on the calibration images are right."""
        right: NDArray[np.bool_] = self.result.prediction == self.labels
        return right

    @property
    def rule(self) -> str:
        """How decisions are made, in words."""
        if not self.certificate.certified:
            return f"review everything: {self.certificate.statement()}"
        return f"certified: {self.certificate.statement()}. {ASSUMPTION}"

    def accepts(self, result: ScoreResult) -> NDArray[np.bool_]:
        """`(n,)` bool: which of n new verdicts to accept; none where no threshold is certified."""
        accepted: NDArray[np.bool_] = result.confidence >= self.thresholds(result)
        return accepted

    def thresholds(self, result: ScoreResult) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        return np.full(len(result.confidence), self.certificate.threshold)

    def p_correct(self, result: ScoreResult) -> NDArray[np.float64]:
        """`(n,)` probability that each new verdict is right."""
        return self.calibrator.predict(result.confidence)

    def to_manifest(self, classes: int) -> dict[str, Any]:
        """Return everything but the arrays as plain JSON values."""
        return {
            "created_at": self.created_at,
            "score": {"name": self.score, "parameters": dict(self.parameters)},
            "data": {
                "name": self.dataset,
                "n": len(self.labels),
                "right": int(self.correct.sum()),
                "counts": np.bincount(self.labels, minlength=classes).tolist(),
                "fingerprint": fingerprint_of(self.images, self.labels),
                "images": [dict(image) for image in self.images],
                "unreadable": list(self.unreadable),
            },
            "certificate": self.certificate.to_dict(),
            "statement": self.certificate.statement(),
            "assumption": ASSUMPTION,
            "calibrator": self.calibrator.name,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, under the names that they have in an artefact."""
        own = (self.result.confidence, self.correct, self.result.prediction, self.labels)
        return {
            **{f"calibration_{name}": array for name, array in zip(_ARRAYS, own, strict=True)},
            **{f"calibrator_{key}": array for key, array in self.calibrator.state_.items()},
        }

    @classmethod
    def from_artefact(
        cls, stored: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Calibration:
        """Restore what `to_manifest` and `to_arrays` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or misstated.
        """
        state = {
            name.removeprefix("calibrator_"): array
            for name, array in arrays.items()
            if name.startswith("calibrator_")
        }
        confidence, _, prediction, label = (arrays[f"calibration_{name}"] for name in _ARRAYS)
        return cls(
            certificate=Certificate.from_dict(stored["certificate"]),
            calibrator=Calibrator.from_dict({"name": stored["calibrator"], "state": state}),
            result=ScoreResult(prediction.astype(np.int64), confidence.astype(np.float64)),
            labels=label.astype(np.int64),
            images=tuple(stored["data"]["images"]),
            dataset=stored["data"]["name"],
            score=stored["score"]["name"],
            parameters=stored["score"]["parameters"],
            created_at=stored["created_at"],
            unreadable=tuple(stored["data"]["unreadable"]),
        )


def fingerprint_of(images: Iterable[Mapping[str, Any]], labels: Iterable[int]) -> str:
    """SHA-256 of the images' contents and labels, whatever their order and paths.

    Examples
    --------
    >>> a, b = {"sha256": "aa"}, {"sha256": "bb"}
    >>> fingerprint_of([a, b], [0, 1]) == fingerprint_of([b, a], [1, 0])
    True
    """
    lines = sorted(
        f"{image['sha256']} {int(label)}\n" for image, label in zip(images, labels, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
