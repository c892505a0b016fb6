"""The health of a fitted model's shots, with their names and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.data_quality.checks import Health, check_shots
from trustvlm.data_quality.label_next import Advice, label_next
from trustvlm.embeddings import Progress
from trustvlm.exceptions import ImageError
from trustvlm.images import content_hash, find_labelled, read_bytes
from trustvlm.pipeline.leaks import set_apart
from trustvlm.pipeline.records import gather_all
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.scores import Evidence, ScoreResult, apply, get

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


@dataclass(frozen=True)
class ShotHealth:
    """What is remarkable about the shots of a model.

    Attributes
    ----------
    health
        The findings, by index of shot and class.
    class_names
        C names.
    labels
        m indices of classes.
    paths
        m names of the shots, relative to their folder.
    folder
        Where they were; "" if that is not known.
    hashes
        m SHA-256 of the shots' bytes.
    """

    health: Health
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    paths: tuple[str, ...]
    folder: str
    hashes: tuple[str, ...]

    def file(self, shot: int) -> Path | None:
        """Return the file of a shot, if it is still there and has not changed."""
        file = Path(self.folder) / self.paths[shot]
        try:
            content = read_bytes(file) if self.folder else b""
        except ImageError:
            return None
        return file if content_hash(content) == self.hashes[shot] else None

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain JSON values, with names in place of indices."""
        name, path, health = self.class_names, self.paths, self.health
        return {
            "shots": health.n_shots,
            "classes": health.n_classes,
            "noise": health.noise,
            "mislabelled": [
                {
                    "path": path[found.shot],
                    "label": name[found.label],
                    "looks_like": name[found.looks_like],
                    "probability": found.probability,
                }
                for found in health.suspects
            ],
            "odd": [
                {
                    "path": path[found.shot],
                    "label": name[found.label],
                    "similarity": found.similarity,
                    "usual": found.usual,
                    "deviation": found.deviation,
                }
                for found in health.outliers
            ],
            "near_copies": [
                {"path": path[pair.image], "other": path[pair.other], "cosine": pair.cosine}
                for pair in health.near_duplicates
            ],
            "near_copies_from": health.near_duplicate_threshold,
            "alike_classes": [
                {**asdict(pair), "one": name[pair.one], "other": name[pair.other]}
                for pair in health.overlapping_classes
            ],
            "prototypes": [
                {
                    "label": name[prototype.label],
                    "shots": prototype.shots,
                    "certainty": prototype.reliability,
                    "enough": prototype.enough,
                }
                for prototype in health.prototype_reliability
            ],
        }


def examine(model: TrustVLM) -> ShotHealth:
    """Look for trouble among the shots of a fitted model.

    Raises
    ------
    InputError
        If the model is not fitted.
    """
    model.check_fitted()
    shots = model.evidence_of_shots()
    return ShotHealth(
        health=check_shots(
            model.support_features_,
            model.support_labels_,
            n_classes=len(model.classes_),
            logits=shots.support_logits,
        ),
        class_names=tuple(model.classes_.labels),
        labels=tuple(model.support_labels_.tolist()),
        paths=tuple(str(shot["path"]) for shot in model.shots_),
        folder=model.shots_folder_,
        hashes=tuple(str(shot["sha256"]) for shot in model.shots_),
    )


# What to do about the examples of a fitted model: their health, and which class to label next.

# For scores that learn from the shots anew in every trial.
_SLOW = {"candidates": 12, "repeats": 3}


@dataclass(frozen=True)
class Advised:
    """The health of the shots and, with labelled images, what to label next.

    Attributes
    ----------
    shots
        Health of the shots.
    advice
        Which classes to label next; None without labelled images.
    excluded
        Labelled images that were left out because they are among the shots.
    failures
        Verdicts of the labelled images that could not be read.
    """

    shots: ShotHealth
    advice: Advice | None
    excluded: tuple[str, ...]
    failures: Verdicts

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "health": self.shots.to_dict(),
            "label_next": self._advice(),
            "excluded": list(self.excluded),
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
        }

    def _advice(self) -> dict[str, Any] | None:
        if self.advice is None:
            return None
        stored = asdict(self.advice)
        for found in stored["classes"]:
            found["label"] = self.shots.class_names[found["label"]]
        return stored


def advise(
    model: TrustVLM,
    labelled: Any = None,
    *,
    risk: float = 0.05,
    examples: int = 8,
    progress: Progress | None = None,
    on_trial: Callable[[int, int], None] | None = None,
) -> Advised:
    """Look after the shots of a fitted model, and find the classes of which more shots help most.

    Parameters
    ----------
    model
        A fitted model.
    labelled
        Labelled images beside the shots, as for `TrustVLM.evaluate`; those that are shots are left
        out. None looks at the shots alone.
    risk
        Share of errors among the accepted images that coverages are for, in (0, 1).
    examples
        How many further shots of a class are tried.
    progress
        Called with images done, images in all, and images that needed no forward pass.
    on_trial
        Called with trials done and the most that can be needed.

    Raises
    ------
    InputError
        If the model is not fitted, the input holds no class with two images besides shots, or a
        number is out of range.

    Notes
    -----
    Fine-tuned prototypes are not tuned again with every trial: it is the plain means that are
    tried.
    """
    shots = examine(model)
    if labelled is None:
        return Advised(shots, None, (), Verdicts([]))
    listing = find_labelled(labelled)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    fresh, excluded = set_apart(model, found, exclude=True, calibrated_on=False, purpose="")
    truth = labels[found.readable][fresh]
    trial = _Trial(model, found.image_embeddings[fresh], found.features[fresh], truth)
    advice = label_next(
        trial.judge,
        truth,
        n_classes=len(model.classes_),
        risk=risk,
        examples=examples,
        progress=on_trial,
        **({} if get(model.score).fit is None else _SLOW),
    )
    return Advised(shots, advice, excluded, Verdicts(found.failures))


class _Trial:
    """Judges labelled images after others of them joined the shots."""

    def __init__(
        self,
        model: TrustVLM,
        embeddings: NDArray[np.float32],
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
    ) -> None:
        self._score, self._parameters = model.score, model.parameters_
        self._shots = model.evidence_of_shots()
        self._logits = np.asarray(model.evidence(embeddings, features, shots=self._shots).logits)
        self._embeddings, self._features, self._labels = embeddings, features, labels

    def judge(self, joined: NDArray[np.int64], judged: NDArray[np.int64]) -> ScoreResult:
        """Score the images `judged` by index, with the images `joined` among the shots."""
        shots = self._shots

        def and_joined(support: Any, more: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([support, more[joined]])

        evidence = Evidence.of(
            logits=self._logits[judged],
            features=self._features[judged],
            image_embeddings=self._embeddings[judged],
            text_embeddings=shots.text_embeddings,
            support_features=and_joined(shots.support_features, self._features),
            support_labels=and_joined(shots.support_labels, self._labels),
            support_logits=and_joined(shots.support_logits, self._logits),
            support_image_embeddings=and_joined(shots.support_image_embeddings, self._embeddings),
        )
        return apply(self._score, evidence, **self._parameters)
