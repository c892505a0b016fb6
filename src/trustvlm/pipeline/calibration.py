"""What labelled images say about a model's verdicts: P(correct), and when to accept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.calibration.calibrators import Calibrator, cross_fitted
from trustvlm.risk_control.goals import ASSUMPTION, UNCALIBRATED_RULE, Rule, rule_from_dict
from trustvlm.scores import ScoreResult

FROM_SHOTS = (
    "P(correct) is from the shots alone, each judged without itself: optimistic where new images "
    "differ from the shots; no error rate is promised"
)
_ARRAYS = ("confidence", "correct", "prediction", "label")


@dataclass(frozen=True)
class Calibration:
    """A rule for accepting, a calibrator, and the labelled images that both rest on.

    Attributes
    ----------
    certificate
        When to accept, and what is guaranteed of it; None if only the shots were there, with which
        nothing can be promised.
    calibrator
        From confidence to P(correct).
    result
        Prediction and confidence of the model's score on the n calibration images.
    labels
        `(n,)` int64, their true classes.
    images
        Path and SHA-256 of each; none for the shots, which the model has anyway.
    dataset
        What the labelled input was called.
    score, parameters
        The score that was calibrated.
    created_at
        When, in UTC.
    unreadable
        Paths of labelled images that could not be read.
    """

    certificate: Rule | None
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
    def statement(self) -> str:
        """What was found, in words."""
        return FROM_SHOTS if self.certificate is None else self.certificate.statement()

    @property
    def rule(self) -> str:
        """How decisions are made, in words."""
        if self.certificate is None:
            return UNCALIBRATED_RULE
        if not self.certificate.certified:
            return f"calibrated: review everything; {self.statement}"
        return f"calibrated: {self.statement}. {ASSUMPTION}"

    def thresholds(self, result: ScoreResult) -> NDArray[np.float64] | None:
        """`(n,)` what each new verdict has to reach, NaN where none is accepted; None: no rule."""
        return None if self.certificate is None else self.certificate.thresholds(result.prediction)

    def p_correct(self, result: ScoreResult) -> NDArray[np.float64]:
        """`(n,)` probability that each new verdict is right."""
        return self.calibrator.predict(result.confidence)

    def quality(self) -> dict[str, float | None]:
        """Measure P(correct) on the calibration images, each judged by a calibrator without it.

        By name as `metrics.probability_quality`; None where undefined.
        """
        p = cross_fitted(self.result.confidence, self.correct, self.calibrator.name)
        known = ~np.isnan(p)
        found = metrics.probability_quality(p[known], self.correct[known])
        return {name: None if np.isnan(value) else value for name, value in found.items()}

    def to_manifest(self, classes: int) -> dict[str, Any]:
        """Return everything but the arrays as plain JSON values."""
        return {
            "created_at": self.created_at,
            "score": {"name": self.score, "parameters": dict(self.parameters)},
            "data": {
                "name": self.dataset,
                "source": "shots" if self.certificate is None else "images",
                "n": len(self.labels),
                "right": int(self.correct.sum()),
                "counts": np.bincount(self.labels, minlength=classes).tolist(),
                "fingerprint": fingerprint_of(self.images, self.labels) if self.images else None,
                "images": [dict(image) for image in self.images],
                "unreadable": list(self.unreadable),
            },
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "statement": self.statement,
            "assumption": None if self.certificate is None else ASSUMPTION,
            "calibrator": {"name": self.calibrator.name, **self.quality()},
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
        certificate = stored["certificate"]
        return cls(
            certificate=None if certificate is None else rule_from_dict(certificate),
            calibrator=Calibrator.from_dict({"name": stored["calibrator"]["name"], "state": state}),
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
