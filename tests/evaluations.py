"""Evaluations of synthetic data, made by the public scores and metrics, for tests of the faces."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm import metrics
from trustvlm.decisions import UNCALIBRATED_RULE, accept_on_agreement
from trustvlm.metrics import Evaluation
from trustvlm.pipeline.evaluate import EvaluationResult
from trustvlm.pipeline.verdict import Verdict, Verdicts
from trustvlm.scores import PrototypeBank, ScoreResult, compute

SCORES = ("msp", "energy", "image_similarity", "trustvlm", "trustvlm_star")
NOTE = "The test model is weak: it was made of random numbers."


def make_evaluation(
    folder: Path | None = None,
    *,
    n: int = 60,
    class_names: Sequence[str] = ("cat", "dog", "horse", "owl", "fox"),
    score: str = "trustvlm",
    scores: Sequence[str] = SCORES,
    noise: float = 1.5,
    right: bool | None = None,
    without_shots: Sequence[int] = (),
    seed: int = 0,
    **changes: Any,
) -> EvaluationResult:
    """Build an evaluation on n images; `right` makes every label right or wrong.

    With a folder, n small pictures are written there; without one, the files do not exist.
    `changes` replaces fields of the result.
    """
    names = tuple(class_names)
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(names), size=n)
    centres = rng.normal(size=(len(names), 16))
    features = centres[labels] + noise * rng.normal(size=(n, 16))
    logits = 2.0 * np.eye(len(names))[labels] + noise * rng.normal(size=(n, len(names)))
    with_shots = [c for c in range(len(names)) if c not in without_shots]
    shot_labels = np.repeat(with_shots, 4)
    shots = centres[shot_labels] + 0.3 * rng.normal(size=(len(shot_labels), 16))
    bank = PrototypeBank().fit(shots, shot_labels, n_classes=len(names))
    found = {s: compute(s, logits=logits, features=features, bank=bank) for s in scores}
    if right is not None:
        shift = 0 if right else 1
        wanted = (labels + shift) % max(2, len(names))
        found = {s: ScoreResult(wanted, r.confidence) for s, r in found.items()}
    return evaluation_of(
        found,
        labels,
        bank.similarities(features),
        names,
        folder=folder,
        score=score,
        counts=bank.counts_.tolist(),
        **changes,
    )


def evaluation_of(
    results: Mapping[str, ScoreResult],
    labels: NDArray[np.int64],
    similarities: NDArray[np.float64],
    names: tuple[str, ...],
    *,
    folder: Path | None,
    score: str,
    counts: list[int],
    **changes: Any,
) -> EvaluationResult:
    own = results[score]
    vlm = results.get("msp", own).prediction
    n = len(labels)
    nearest = np.where(np.isnan(similarities), -np.inf, similarities).argmax(axis=1)
    accepted = accept_on_agreement(own.prediction, nearest)
    label_of = dict(enumerate(names))
    rows = [
        Verdict(
            path=f"photos/{i:04d}.png",
            label=label_of.get(int(own.prediction[i]), "another class"),
            confidence=float(own.confidence[i]),
            p_correct=math.nan,
            decision="accept" if accepted[i] else "review",
            text_score=0.5,
            image_score=math.nan,
            runner_up=names[nearest[i]],
            reason=f"the image resembles the examples of '{names[nearest[i]]}' most",
            error="",
            vlm_label=label_of.get(int(vlm[i]), "another class"),
            corrected=bool(vlm[i] != own.prediction[i]),
        )
        for i in range(n)
    ]
    fields: dict[str, Any] = {
        "dataset": "photos",
        "score": score,
        "class_names": names,
        "shots": 4,
        "draw": 0,
        "convention": "exact",
        "labels": labels,
        "files": _pictures(folder, labels) if folder else [Path("gone") / r.path for r in rows],
        "results": results,
        "metrics": {
            name: measured(result.confidence, result.prediction == labels)
            for name, result in results.items()
        },
        "verdicts": Verdicts(rows),
        "nearest": nearest,
        "failures": Verdicts([]),
        "excluded": (),
        "model": manifest(names, score, counts),
    }
    return EvaluationResult(**{**fields, **changes})


def empty_evaluation(**changes: Any) -> EvaluationResult:
    """Build an evaluation whose images could all not be read."""
    nothing = ScoreResult(np.empty(0, dtype=np.int64), np.empty(0))
    return evaluation_of(
        {"trustvlm": nothing, "msp": nothing},
        np.empty(0, dtype=np.int64),
        np.empty((0, 2)),
        ("cat", "dog"),
        folder=None,
        score="trustvlm",
        counts=[4, 4],
        failures=Verdicts([failure("photos/a.png"), failure("photos/b.png")]),
        **changes,
    )


def failure(path: str, message: str = "the file is empty. Copy it again.") -> Verdict:
    """Build the verdict on an image that could not be read."""
    nan = math.nan
    return Verdict(path, "", nan, nan, "error", nan, nan, "", "", f"{path}: {message}")


def measured(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Evaluation:
    """Measure without the warnings that degenerate input deserves elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.evaluate(confidence, correct)


def manifest(names: tuple[str, ...], score: str, counts: list[int]) -> dict[str, Any]:
    """Build what an artefact says about a model."""
    encoder = {
        "spec": "test",
        "source": "nowhere",
        "revision": "1",
        "weights": "ab" * 32,
        "settings": {},
        "preprocessing": {"size": [8, 8]},
        "fingerprint": "cd" * 32,
        "note": NOTE,
    }
    return {
        "created_by": "trustvlm 0.0",
        "created_at": "2026-01-01T00:00:00+00:00",
        "models": {"vlm": encoder, "vision": {**encoder, "fingerprint": "ef" * 32}},
        "protocol": "clean",
        "classes": list(names),
        "folders": list(names),
        "prompts": ["a photo of a {}."],
        "score": {"name": score, "parameters": {"weight": 0.75}},
        "shots": {"per_class": 4, "draw": 0, "counts": counts, "images": [], "unreadable": []},
        "calibration": None,
        "decision_rule": UNCALIBRATED_RULE,
    }


def _pictures(folder: Path, labels: NDArray[np.int64]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, label in enumerate(labels.tolist()):
        file = folder / f"{i:04d}.png"
        Image.new("RGB", (40, 24), ((40 * label) % 256, (7 * i) % 256, 128)).save(file)
        files.append(file)
    return files
