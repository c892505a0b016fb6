"""What an evaluation on labelled images found: the input of every table and report."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.images import find_labelled
from trustvlm.metrics import Evaluation
from trustvlm.monitoring.ood import OODThreshold
from trustvlm.pipeline.calibration import fingerprint_of
from trustvlm.pipeline.explain import look
from trustvlm.pipeline.leaks import NearCopies, name_of, near_copies, set_apart
from trustvlm.pipeline.predict import verdict_rows
from trustvlm.pipeline.records import gather_all
from trustvlm.pipeline.shot_quality import ShotHealth
from trustvlm.pipeline.state import manifest_of
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.scores import Evidence, ScoreResult, apply, get, names

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics and verdicts on n readable labelled images.

    Attributes
    ----------
    dataset
        Name of the labelled input.
    score
        Name of the model's own score, the one its verdicts use.
    class_names
        C names, in the order of the indices in `labels` and predictions.
    shots, draw
        Shots per class that the model was fitted with, and which draw chose them.
    convention
        Of the metrics: `exact` or `trustvlm`.
    labels
        `(n,)` int64 true classes of the readable images.
    files
        n image files, for thumbnails; None for an image that is no file on this machine.
    results
        Prediction and confidence of every score, `(n,)` each.
    metrics
        Metrics of every score.
    verdicts
        The model's n verdicts on the readable images, in the order of `labels`.
    nearest
        `(n,)` int64, class of the most similar prototype; -1 without prototypes.
    failures
        Verdicts of the images that could not be read.
    excluded
        Paths of images that were left out because the model has learned from them.
    model
        The artefact's manifest: models, classes, prompt, score and so on.
    near_copies
        Images that are nearly the same as a shot; they are in every figure.
    health
        Of the shots, for reports; None if nobody looked.
    hashes
        SHA-256 of the bytes of the n images; empty if not known.
    """

    dataset: str
    score: str
    class_names: tuple[str, ...]
    shots: int
    draw: int
    convention: str
    labels: NDArray[np.int64]
    files: Sequence[Path | None]
    results: Mapping[str, ScoreResult]
    metrics: Mapping[str, Evaluation]
    verdicts: Verdicts
    nearest: NDArray[np.int64]
    failures: Verdicts
    excluded: tuple[str, ...]
    model: Mapping[str, Any]
    near_copies: NearCopies = field(default_factory=NearCopies)
    health: ShotHealth | None = None
    hashes: tuple[str, ...] = ()

    def correct(self, score: str | None = None) -> NDArray[np.bool_]:
        """`(n,)` bool: where the prediction of a score (by default the model's) is right."""
        right: NDArray[np.bool_] = self.results[score or self.score].prediction == self.labels
        return right

    @property
    def fingerprint(self) -> str:
        """Of the images' contents and true labels; "" if the contents are not known."""
        return fingerprint_of_data(self)

    def rows(self) -> list[dict[str, Any]]:
        """One row per score, as `trustvlm bench arrays` writes them; values are fractions."""
        keys = (
            "accuracy",
            "aurc",
            "eaurc",
            "augrc",
            "auroc",
            "fpr95",
            "aupr_success",
            "aupr_error",
            "n",
        )
        return [
            {
                "dataset": self.dataset,
                "score": name,
                "shots": self.shots,
                "draw": self.draw,
                **{key: getattr(found, key) for key in keys},
            }
            for name, found in self.metrics.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return rows and settings as plain JSON values; NaN becomes None."""
        rows = [
            {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
            for row in self.rows()
        ]
        return {
            "rows": rows,
            "convention": self.convention,
            "score": self.score,
            "p_correct": self._probability_quality(),
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
            "excluded": list(self.excluded),
            "near_copies": [vars(copy) for copy in self.near_copies.found],
            "data": data_of(self),
            "model": dict(self.model),
        }

    def _probability_quality(self) -> dict[str, float | None] | None:
        """Measure P(correct) as `metrics.probability_quality`; None without a calibration."""
        if not self.model.get("calibration"):
            return None
        found = metrics.probability_quality(self.verdicts.column("p_correct"), self.correct())
        return {name: None if np.isnan(value) else value for name, value in found.items()}


def evaluate(
    model: TrustVLM,
    labelled: Any,
    *,
    name: str | None = None,
    scores: Sequence[str] | None = None,
    convention: str = "exact",
    exclude_shots: bool = False,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure a fitted model's score, and others, on labelled images.

    Raises
    ------
    LeakError
        If images are also among the shots, or were selected or calibrated on, and `exclude_shots`
        is False.
    InputError
        If no labelled image is left, or a label is not among the model's classes.
    """
    listing = find_labelled(labelled)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    fresh, leaked = set_apart(
        model,
        found,
        exclude=exclude_shots,
        calibrated_on=True,
        purpose="metrics on them would be too good. Evaluate on other images",
    )
    if not fresh.any():
        raise InputError("No labelled image is left to evaluate on: all are unreadable or shots.")
    truth = labels[found.readable][fresh]
    refs = [ref for ref, keep in zip(found.refs, fresh, strict=True) if keep]
    evidence = model.evidence(found.image_embeddings[fresh], found.features[fresh])
    results = _all_scores(model, evidence, scores)
    own = results[model.score]
    views = look(evidence, own.prediction, OODThreshold.of_shots(evidence))
    return EvaluationResult(
        dataset=name_of(labelled) if name is None else name,
        score=model.score,
        class_names=model.classes_.labels,
        shots=model.shots_per_class_ or int(model.bank_.counts_.max(initial=0)),
        draw=model.draw_,
        convention=convention,
        labels=truth,
        files=[ref.file for ref in refs],
        results=results,
        metrics={name: _measured(result, truth, convention) for name, result in results.items()},
        verdicts=Verdicts(
            verdict_rows(
                own, views, [ref.path for ref in refs], model.classes_.labels, model.calibration_
            )
        ),
        nearest=views.nearest,
        failures=Verdicts(found.failures),
        excluded=leaked,
        model=manifest_of(model),
        near_copies=near_copies(model, [ref.path for ref in refs], found.features[fresh]),
        hashes=tuple(h for h, keep in zip(found.hashes, fresh, strict=True) if keep),
    )


def _measured(result: ScoreResult, truth: NDArray[np.int64], convention: str) -> Evaluation:
    with warnings.catch_warnings():
        # The tables say for each score what is undefined; one warning per score would not help.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metrics.evaluate(
            result.confidence, result.prediction == truth, convention=convention
        )


def _all_scores(
    model: TrustVLM, evidence: Evidence, wanted: Sequence[str] | None
) -> dict[str, ScoreResult]:
    if wanted is None:
        wanted = [name for name, needs in names().items() if all(map(evidence.has, needs))]
    chosen = list(dict.fromkeys([model.score, *wanted]))
    own = {model.score: model.parameters_}
    return {get(n).name: apply(n, evidence, **own.get(n, {})) for n in chosen}


# The file of an evaluation: its metrics, and what every score said of every image.


def evaluation_json(result: EvaluationResult) -> str:
    """Return `EvaluationResult.to_dict` and, under `images`, what each score said of each image.

    The long columns stand on one line each, so that the rest can be read.
    """
    told = json.dumps(result.to_dict(), indent=2, allow_nan=False).removesuffix("\n}")
    columns = [f"    {json.dumps(k)}: {_line(v)}" for k, v in images_of(result).items()]
    return f'{told},\n  "images": {{\n' + ",\n".join(columns) + "\n  }\n}\n"


def data_of(result: EvaluationResult) -> dict[str, Any]:
    """Say which images were evaluated: name, number, fingerprint of contents and labels."""
    return {
        "name": result.dataset,
        "n": len(result.labels),
        "fingerprint": fingerprint_of_data(result) or None,
    }


def fingerprint_of_data(result: EvaluationResult) -> str:
    """SHA-256 of the contents and true labels of the images; "" if the contents are not known.

    The order and the names of the files do not matter.
    """
    if len(result.hashes) != len(result.labels) or not result.hashes:
        return ""
    return fingerprint_of([{"sha256": digest} for digest in result.hashes], result.labels.tolist())


def fingerprint_of_shots(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the contents and classes of a model's examples; "" if its manifest lacks them.

    Examples
    --------
    >>> shots = {"images": [{"sha256": "aa", "class": 0}, {"sha256": "bb", "class": 1}]}
    >>> turned = {"images": shots["images"][::-1]}
    >>> fingerprint_of_shots({"shots": shots}) == fingerprint_of_shots({"shots": turned}) != ""
    True
    >>> fingerprint_of_shots({})
    ''
    """
    shots = manifest.get("shots")
    images = shots.get("images") if isinstance(shots, Mapping) else None
    try:
        return fingerprint_of(images, [image["class"] for image in images]) if images else ""
    except (KeyError, TypeError, ValueError):
        return ""


def images_of(result: EvaluationResult) -> dict[str, Any]:
    """Return the n evaluated images as columns of plain JSON values.

    Returns
    -------
    dict
        `class_names` (C,), and by image: `path`, `sha256` (null if not known), `label` (index of
        the true class), `scores`: by name, `prediction` (index) and `confidence`, higher is more
        trusted.
    """
    n = len(result.labels)
    known = len(result.hashes) == n
    return {
        "class_names": list(result.class_names),
        "path": [row.path for row in result.verdicts],
        "sha256": list(result.hashes) if known else [None] * n,
        "label": result.labels.tolist(),
        "scores": {
            name: {
                "prediction": found.prediction.tolist(),
                "confidence": found.confidence.tolist(),
            }
            for name, found in result.results.items()
        },
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"      {json.dumps(k)}: {_line(v)}" for k, v in value.items()]
        if all(isinstance(v, list) for v in value.values()):
            return f"{{{', '.join(part.strip() for part in parts)}}}"
        return "{\n" + ",\n".join(parts) + "\n    }"
    return json.dumps(value, allow_nan=False)
