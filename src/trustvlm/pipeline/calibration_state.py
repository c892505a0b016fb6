"""What labelled images say about a model's verdicts: P(correct), and when to accept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.calibration.calibrators import Calibrator, cross_fitted
from trustvlm.exceptions import InputError
from trustvlm.monitoring.ood import GATES, gate_statement
from trustvlm.risk_control.certify import Certificate
from trustvlm.risk_control.goals import (
    UNCALIBRATED_RULE,
    Rule,
    assumption_of,
    looks_statement,
    rule_from_dict,
)
from trustvlm.risk_control.groups import groups_statement
from trustvlm.risk_control.tests import check_fraction
from trustvlm.scores import ScoreResult, get
from trustvlm.text import short_percent

if TYPE_CHECKING:
    from trustvlm.pipeline.artefact import CalibrationEntry

FROM_SHOTS = (
    "P(correct) is from the shots alone, each judged without itself: optimistic where new images "
    "differ from the shots; no error rate is guaranteed"
)
_ARRAYS = ("confidence", "correct", "prediction", "label")
_TYPICALITY, _ELIGIBLE = "calibration_typicality", "calibration_eligible"
_VECTORS = ("calibration_features", "calibration_image_embeddings")
_SET_SCORES = "calibration_set_"


@dataclass(frozen=True)
class Calibration:
    """A rule for accepting, a calibrator, and the labelled images that both rest on.

    Attributes
    ----------
    certificate
        When to accept, and what is guaranteed of it; None if only the shots were there, with which
        nothing can be guaranteed.
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
    typicality
        `(n,)` cosine of each to the most similar prototype; None if it is not on record.
    gate
        Of `monitoring.ood.GATES`, which images may be accepted at all: what the certificate holds
        for.
    eligible
        `(n,)` bool, which calibration images it passes; None if it is not on record.
    other_rules
        For other risks, which hold at once with `certificate`; `at_risk` lets one of them decide.
    set_scores
        By method of prediction sets, `(n,)` nonconformity of the true label of each image; empty
        if it is not on record.
    looks
        How many calibrations have looked at labels of these images, of that which was looked at
        most: 1 for a guarantee in full.
    revision
        Of the score, as in the file that it was read from; None if it was calibrated just now.
    given
        Whether labels from elsewhere were judged, not the model's own.
    groups
        What groups images of which one each was drawn, such as the name of a column; "" if every
        image counts.
    vectors
        `(n, d)` features and `(n, e)` image embeddings of the calibration images, float32, by which
        a model with more shots is calibrated again on the same images; None if not on record.
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
    typicality: NDArray[np.float64] | None = None
    gate: str = GATES[0]
    eligible: NDArray[np.bool_] | None = None
    other_rules: tuple[Rule, ...] = ()
    set_scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    looks: int = 1
    revision: int | None = None
    given: bool = False
    groups: str = ""
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rule that decides, and those for other risks; none from the shots alone."""
        return () if self.certificate is None else (self.certificate, *self.other_rules)

    @property
    def certified(self) -> bool:
        """Whether anything is ever accepted by a certified rule."""
        return self.certificate is not None and self.certificate.certified

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`(n,)` bool: which predictions on the calibration images are right."""
        right: NDArray[np.bool_] = self.result.prediction == self.labels
        return right

    @property
    def statement(self) -> str:
        """What the calibration says, in words."""
        if self.certificate is None:
            return FROM_SHOTS
        others = [f"for the other risk, {rule.statement()}" for rule in self.other_rules]
        together, rules = "", (self.certificate, *self.other_rules)
        certified = any(rule.certified for rule in rules)
        if isinstance(self.certificate, Certificate) and others and certified:
            # Each is certified at the level that all of them together leave it (Bonferroni).
            level = 1 - len(rules) * (1 - self.certificate.confidence_level)
            together = f"all {len(rules)} hold at once with {short_percent(level)} confidence"
        counted = groups_statement(self.groups) if self.groups and certified else ""
        return ". ".join(filter(None, (self.certificate.statement(), *others, together, counted)))

    def at_risk(self, risk: float) -> Calibration:
        """Return the calibration with the rule for one of its risks deciding.

        Raises
        ------
        InputError
            If it has none for this risk.
        """
        wanted = check_fraction(risk, "risk")
        rules = self.rules
        by_risk = {getattr(rule, "risk", math.nan): rule for rule in rules}
        stored = [r for r in by_risk if not math.isnan(r)]
        # Numbers that were computed, or are in single precision, differ in their last digits.
        same = [r for r in stored if math.isclose(r, wanted, rel_tol=1e-6)]
        if not same:
            # Only certificates for all labels together may be several.
            one = not stored or not isinstance(self.certificate, Certificate)
            remedy = ",".join(f"{r:g}" for r in ([] if one else stored) + [wanted])
            raise InputError(
                "Expected a risk that the model was calibrated for "
                f"({', '.join(f'{r:g}' for r in stored) or 'none'}), but got {wanted:g}: calibrate "
                f"with --risk {remedy}."
            )
        chosen = by_risk[same[0]]
        others = tuple(rule for rule in rules if rule is not chosen)
        return replace(self, certificate=chosen, other_rules=others)

    @property
    def gate_statement(self) -> str:
        """What the gate costs on the calibration images, in words; "" without one."""
        if self.eligible is None or self.gate == "none":
            return ""
        return gate_statement(self.eligible, self.correct)

    @property
    def rule(self) -> str:
        """How decisions are made, in words."""
        if self.certificate is None:
            return UNCALIBRATED_RULE
        if not self.certificate.certified:
            return f"not calibrated: review everything; {self.statement}"
        again = f" {looks_statement(self.looks)}" if self.looks > 1 else ""
        return f"calibrated: {self.statement}. {assumption_of(self.certificate)}{again}"

    def thresholds(self, result: ScoreResult) -> NDArray[np.float64] | None:
        """`(n,)` what each new verdict has to reach, NaN where none is accepted; None: no rule."""
        return None if self.certificate is None else self.certificate.thresholds(result.prediction)

    def p_correct(self, result: ScoreResult) -> NDArray[np.float64]:
        """`(n,)` probability that each new verdict is right."""
        return self.calibrator.predict(result.confidence)

    def quality(self) -> dict[str, float | None]:
        """Measure P(correct) on the calibration images, each judged by a calibrator without it.

        From the shots alone it is measured on them, each judged by the others.

        By name as `metrics.probability_quality`; None where undefined.
        """
        prior = self.calibrator.prior
        if self.certificate is not None:
            p = cross_fitted(self.result.confidence, self.correct, self.calibrator)
        elif prior is None or prior.shots is not None:
            # A prior that is from these shots must not judge them.
            p = cross_fitted(self.result.confidence, self.correct, self.calibrator.name)
        else:
            p = self.p_correct(self.result)
        judged = ~np.isnan(p)
        quality = metrics.probability_quality(p[judged], self.correct[judged])
        return {name: None if np.isnan(value) else value for name, value in quality.items()}

    def to_manifest(self, classes: int) -> dict[str, Any]:
        """Return everything but the arrays as plain JSON values."""
        return {
            "created_at": self.created_at,
            "score": {
                "name": self.score,
                "parameters": dict(self.parameters),
                "revision": self.revision or get(self.score).revision,
            },
            "data": {
                "name": self.dataset,
                "source": "shots" if self.certificate is None else "images",
                "n": len(self.labels),
                "right": int(self.correct.sum()),
                "counts": np.bincount(self.labels, minlength=classes).tolist(),
                "fingerprint": fingerprint_of(self.images, self.labels) if self.images else None,
                "images": [dict(image) for image in self.images],
                "unreadable": list(self.unreadable),
                "looks": self.looks,
                "given_labels": self.given,
                "groups": self.groups,
            },
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "other_rules": [rule.to_dict() for rule in self.other_rules],
            "gate": self.gate,
            "statement": self.statement,
            "assumption": None if self.certificate is None else assumption_of(self.certificate),
            "calibrator": {"name": self.calibrator.name, **self.quality()},
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, under the names that they have in an artefact."""
        own = (self.result.confidence, self.correct, self.result.prediction, self.labels)
        typicality = {} if self.typicality is None else {_TYPICALITY: self.typicality}
        eligible = {} if self.eligible is None else {_ELIGIBLE: self.eligible}
        sets = {f"{_SET_SCORES}{method}": scores for method, scores in self.set_scores.items()}
        vectors = {} if self.vectors is None else dict(zip(_VECTORS, self.vectors, strict=True))
        return {
            **vectors,
            **typicality,
            **eligible,
            **sets,
            **{f"calibration_{name}": array for name, array in zip(_ARRAYS, own, strict=True)},
            **{f"calibrator_{key}": array for key, array in self.calibrator.state_.items()},
        }

    @classmethod
    def from_manifest(cls, entry: CalibrationEntry, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make what `to_manifest` and `to_arrays` wrote."""
        learned = {
            name.removeprefix("calibrator_"): array
            for name, array in arrays.items()
            if name.startswith("calibrator_")
        }
        confidence, _, prediction, label = (arrays[f"calibration_{name}"] for name in _ARRAYS)
        return cls(
            certificate=None if entry.certificate is None else rule_from_dict(entry.certificate),
            calibrator=Calibrator.from_dict({"name": entry.calibrator.name, "state": learned}),
            result=ScoreResult(prediction.astype(np.int64), confidence.astype(np.float64)),
            labels=label.astype(np.int64),
            images=tuple(image.model_dump() for image in entry.data.images),
            dataset=entry.data.name,
            score=entry.score.name,
            parameters=entry.score.parameters,
            created_at=entry.created_at,
            unreadable=entry.data.unreadable,
            typicality=arrays.get(_TYPICALITY),
            gate=entry.gate,
            eligible=arrays.get(_ELIGIBLE),
            other_rules=tuple(map(rule_from_dict, entry.other_rules)),
            set_scores={
                name.removeprefix(_SET_SCORES): array
                for name, array in arrays.items()
                if name.startswith(_SET_SCORES)
            },
            looks=entry.data.looks,
            revision=entry.score.revision,
            given=entry.data.given_labels,
            groups=entry.data.groups,
            vectors=(arrays[_VECTORS[0]], arrays[_VECTORS[1]])
            if all(name in arrays for name in _VECTORS)
            else None,
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
