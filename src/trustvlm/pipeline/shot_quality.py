"""The quality of a model's shots, with names and files, and which class to label next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.data_quality.checks import Health, check_shots
from trustvlm.data_quality.label_next import Advice, label_next
from trustvlm.embeddings import Progress
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import Columns, LabelledSource, content_hash, read_bytes
from trustvlm.pipeline.labellers import Labeller, encode_labelled
from trustvlm.pipeline.records import EncodedImages, exclude_leaked
from trustvlm.pipeline.state import FittedModel, ModelState
from trustvlm.pipeline.verdict import Verdicts, failures_of
from trustvlm.scores import Evidence, ScoreResult, apply, get


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
        Where they were; "" if no artefact says it.
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
        """Return the findings as plain JSON values, with names instead of indices."""
        name, path, health = self.class_names, self.paths, self.health
        return {
            "shots": health.n_shots,
            "classes": health.n_classes,
            "noise": health.noise,
            "expected_wrong": health.expected_wrong,
            "mislabelled": [
                {
                    "path": path[suspect.shot],
                    "label": name[suspect.label],
                    "looks_like": name[suspect.looks_like],
                    "probability": suspect.probability,
                    "expected_wrong": suspect.expected_wrong,
                }
                for suspect in health.suspects
            ],
            "odd": [
                {
                    "path": path[outlier.shot],
                    "label": name[outlier.label],
                    "similarity": outlier.similarity,
                    "usual": outlier.usual,
                    "deviation": outlier.deviation,
                }
                for outlier in health.outliers
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


def examine(state: ModelState) -> ShotHealth:
    """Look for trouble among the shots of a fitted model."""
    shots = state.evidence_of_shots()
    return ShotHealth(
        health=check_shots(
            state.support_features,
            state.support_labels,
            n_classes=len(state.classes),
            logits=shots.support_logits if shots.has_text else None,
        ),
        class_names=tuple(state.classes.labels),
        labels=tuple(state.support_labels.tolist()),
        paths=tuple(str(shot["path"]) for shot in state.shots),
        folder=state.shots_folder,
        hashes=tuple(str(shot["sha256"]) for shot in state.shots),
    )


# Which class to label next.

# For scores that learn from the shots anew in every trial.
_SLOW = {"candidates": 12, "repeats": 3}


@dataclass(frozen=True)
class ShotAdvice:
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
        for advised in stored["classes"]:
            advised["label"] = self.shots.class_names[advised["label"]]
        return stored


def advise(
    model: FittedModel,
    labelled: LabelledSource | None = None,
    *,
    risk: float = 0.05,
    examples: int = 8,
    labeller: Labeller | None = None,
    progress: Progress | None = None,
    on_trial: Callable[[int, int], None] | None = None,
    **columns: Unpack[Columns],
) -> ShotAdvice:
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
    labeller
        Whose labels of the labelled images are judged, `TrustVLM.labeller(...)`; None judges the
        model's own.
    progress
        Called with images done, images in all, and images that needed no forward pass.
    on_trial
        Called with trials done and the most that can be needed.
    **columns
        Of tables: `path_column`, `label_column`, `image_column`; see `images.Columns`.

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
    state = model.state
    if labeller is not None:
        state = state.for_given_labels()
    shots = examine(state)
    if labelled is None:
        return ShotAdvice(shots, None, (), Verdicts([]))
    if labeller is None:
        state.for_own_labels()
    encoded = encode_labelled(
        labelled, state.classes, model.embedder, labeller, progress, **columns
    )
    images, excluded = exclude_leaked(
        encoded.readable(),
        state.learned_from(calibrated_on=False),
        exclude=True,
        purpose="the shots cannot be advised by themselves",
    )
    if not len(images):
        raise InputError(
            "No labelled image is left to try as an example: all are unreadable, or are examples."
        )
    given = {} if labeller is None else labeller.pieces(images.refs, get(state.score))
    advice = label_next(
        Trial(state, images, given).judge,
        images.labels,
        n_classes=len(state.classes),
        risk=risk,
        examples=examples,
        progress=on_trial,
        **({} if get(state.score).fit is None else _SLOW),
    )
    return ShotAdvice(shots, advice, excluded, Verdicts(failures_of(encoded)))


class Trial:
    """Judges labelled images, or what labels were `given` to them, after some joined the shots."""

    def __init__(
        self,
        state: ModelState,
        images: EncodedImages[Any],
        given: Mapping[str, NDArray[Any] | None] | None = None,
    ) -> None:
        self._score, self._parameters = state.score, state.parameters
        self._shots, self._images = state.evidence_of_shots(), images
        self._given: dict[str, Any] = {k: v for k, v in (given or {}).items() if v is not None}
        self._logits = np.asarray(
            state.evidence(images.image_embeddings, images.features, shots=self._shots).logits
        )

    def judge(self, joined: NDArray[np.int64], judged: NDArray[np.int64]) -> ScoreResult:
        """Score the images `judged` by index, with the images `joined` among the shots."""
        shots, images = self._shots, self._images

        def and_joined(support: Any, more: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([support, more[joined]])

        text: dict[str, Any] = {}
        if shots.has_text:
            text = {
                "logits": self._logits[judged],
                "image_embeddings": images.image_embeddings[judged],
                "text_embeddings": shots.text_embeddings,
                "logit_bias": shots.logit_bias,
                "support_logits": and_joined(shots.support_logits, self._logits),
                "support_image_embeddings": and_joined(
                    shots.support_image_embeddings, images.image_embeddings
                ),
            }
        given = {name: array[judged] for name, array in self._given.items()}
        evidence = Evidence.of(
            features=images.features[judged],
            **shots.target_arrays,
            support_features=and_joined(shots.support_features, images.features),
            support_labels=and_joined(shots.support_labels, images.labels),
            **text,
            **given,
        )
        return apply(self._score, evidence, **self._parameters)
