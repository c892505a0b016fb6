"""The health of a fitted model's shots, with their names and files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustvlm.decisions.health import Health, check_shots
from trustvlm.exceptions import ImageError
from trustvlm.images import content_hash, read_bytes

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["ShotHealth", "examine"]


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
                for found in health.odd
            ],
            "near_copies": [
                {"path": path[pair.image], "other": path[pair.other], "cosine": pair.cosine}
                for pair in health.copies
            ],
            "near_copies_from": health.alike_from,
            "alike_classes": [
                {**asdict(pair), "one": name[pair.one], "other": name[pair.other]}
                for pair in health.relatives
            ],
            "prototypes": [
                {**asdict(found), "label": name[found.label]} for found in health.certainties
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
