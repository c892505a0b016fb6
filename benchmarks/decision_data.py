"""Scores of ready-made embeddings, judged right or wrong: what decisions are made on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm import scores
from trustvlm.benchmark.dataset import ArraySet, load_arrays
from trustvlm.decisions import LogisticPrior
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import softmax
from trustvlm.scores.auto import auto_logits, fit_auto
from trustvlm.scores.few_shot import draw_shots

SHOTS = 16


@dataclass(frozen=True)
class Judged:
    """A score on one test split, or on the shots, each judged without itself."""

    name: str
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.confidence)

    def rows(self, index: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Confidence and correctness of some images."""
        return self.confidence[index], self.correct[index]

    def oracle(self, risk: float) -> float:
        """Largest coverage with at most this risk, read off the split itself."""
        order = np.argsort(-self.confidence, kind="stable")
        observed = np.cumsum(~self.correct[order]) / np.arange(1, self.n + 1)
        kept = np.flatnonzero(observed <= risk)
        return float(kept[-1] + 1) / self.n if kept.size else 0.0


def judged(root: Path, score: str, shots: int = SHOTS, draw: int = 0) -> list[Judged]:
    """Score every test split of a folder of arrays; draw 0 of the shots is the paper's."""
    return [
        Judged(file.stem, result.confidence, result.prediction == test.labels)
        for file, test, evidence in _splits(root, shots, draw)
        for result in [scores.apply(score, evidence)]
    ]


def probabilities(
    root: Path, shots: int = SHOTS, draw: int = 0
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.int64]]]:
    """By test split: class probabilities of text and shots together, and the true classes."""
    for file, test, evidence in _splits(root, shots, draw):
        yield file.stem, softmax(auto_logits(evidence, fit_auto(evidence))), test.labels


def _splits(root: Path, shots: int, draw: int) -> Iterator[tuple[Path, ArraySet, Evidence]]:
    for file in sorted(root.glob("*__test*.npz")):
        train, chosen = _shots(root, file, shots, draw)
        test = load_arrays(file)
        images = train.image_embeddings
        yield (
            file,
            test,
            Evidence.of(
                logits=test.logits,
                features=test.features,
                image_embeddings=test.image_embeddings,
                text_embeddings=test.text_embeddings,
                support_features=train.features[chosen],
                support_labels=train.labels[chosen],
                support_logits=train.logits[chosen],
                support_image_embeddings=None if images is None else images[chosen],
            ),
        )


def judged_shots(root: Path, score: str, shots: int = SHOTS, draw: int = 0) -> dict[str, Judged]:
    """By test split: its shots, each judged by the others, as `calibrate --from-shots` does."""
    found: dict[str, Judged] = {}
    for file in sorted(root.glob("*__test*.npz")):
        name = file.stem.split("__")[0]
        if name not in found:
            train, chosen = _shots(root, file, shots, draw)
            held_out = cross_validate(train.shots(chosen), [score], folds=shots)
            result = held_out.results[score]
            right = result.prediction == held_out.labels
            found[name] = Judged(name, result.confidence, right)
        found[file.stem] = found[name]
    return found


def priors(root: Path, score: str, shots: int = SHOTS, draw: int = 0) -> dict[str, LogisticPrior]:
    """By test split: what `calibrate` takes to be known of P(correct) without labelled images."""
    if scores.get(score).log_odds:
        return {file.stem: LogisticPrior() for file in sorted(root.glob("*__test*.npz"))}
    return {
        name: LogisticPrior.of_held_out(held_out.confidence, held_out.correct)
        for name, held_out in judged_shots(root, score, shots, draw).items()
    }


def _shots(root: Path, file: Path, shots: int, draw: int) -> tuple[ArraySet, NDArray[np.int64]]:
    train = load_arrays(root / f"{file.stem.split('__')[0]}__train.npz")
    return train, draw_shots(train.labels, len(train.class_names), shots, draw=draw).indices
