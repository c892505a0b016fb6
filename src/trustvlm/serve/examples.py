"""The example images that an upload resembles most, to be shown beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, content_hash, decode, read_bytes
from trustvlm.pipeline import TrustVLM

__all__ = ["Example", "Examples", "Look", "preview"]


@dataclass(frozen=True)
class Example:
    """One example image.

    Attributes
    ----------
    shot
        Its position among the examples of the model.
    similarity
        Its cosine with the upload, in [-1, 1].
    """

    shot: int
    similarity: float


@dataclass(frozen=True)
class Look:
    """What an upload resembles.

    Attributes
    ----------
    nearest
        The most similar example of each class that has any, by class label.
    typicality
        Cosine with the most similar prototype; NaN if there is none.
    """

    nearest: Mapping[str, Example]
    typicality: float


class Examples:
    """Finds the nearest example of every class, and the files of examples.

    Parameters
    ----------
    model
        A fitted model.
    folder
        Where the examples are; None for where they were when it was fitted.
    """

    def __init__(self, model: TrustVLM, folder: Path | None = None) -> None:
        self._model = model
        self._folder = Path(model.shots_folder_) if folder is None else folder
        self._units = _unit(model.support_features_)
        labels = model.classes_.labels
        self._members = {
            labels[c]: np.flatnonzero(model.support_labels_ == c)
            for c in np.unique(model.support_labels_)
        }

    def look(self, features: NDArray[np.float32]) -> list[Look]:
        """Compare n uploads, `(n, d)`, with every example."""
        if not len(features) or not self._members:
            return [Look({}, np.nan)] * len(features)
        cosines = _unit(features) @ self._units.T
        typicality = np.nanmax(self._model.bank_.similarities(features), axis=1)
        best = {label: rows[cosines[:, rows].argmax(1)] for label, rows in self._members.items()}
        return [
            Look(
                {k: Example(int(at[i]), float(cosines[i, at[i]])) for k, at in best.items()},
                float(typicality[i]),
            )
            for i in range(len(features))
        ]

    def preview(self, shot: int, side: int, limits: Limits) -> bytes | None:
        """Return a small JPEG of an example; None if its file is not at hand or has changed."""
        if not 0 <= shot < len(self._model.shots_):
            return None
        known = self._model.shots_[shot]
        try:
            content = read_bytes(self._folder / known["path"], limits)
        except ImageError:
            return None
        # Only what the model was fitted on is ever shown, whatever stands at that path by now.
        if content_hash(content) != known["sha256"]:
            return None
        return preview(content, side, limits)


def preview(content: bytes, side: int, limits: Limits) -> bytes | None:
    """Return a JPEG of at most `side` pixels; None if the image cannot be decoded.

    An upload is never sent back as it came, so nothing but pixels reaches a browser.
    """
    try:
        picture = decode(content, limits)
    except ImageError:
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(
        wide, lengths, out=np.zeros_like(wide), where=lengths > 0
    )
    return units
