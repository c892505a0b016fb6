"""What a labelled input is called in tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.data_quality.duplicates import near_duplicate_threshold, near_duplicates
from trustvlm.exceptions import LeakError
from trustvlm.pipeline.records import Gathered

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


def name_of(labelled: Any) -> str:
    """Name a labelled input by its folder or file; a bare split name says too little alone.

    Examples
    --------
    >>> name_of("pets/test"), name_of("photos.csv"), name_of(([], []))
    ('pets/test', 'photos', 'labelled')
    """
    if not isinstance(labelled, (str, os.PathLike)):
        return "labelled"
    path = Path(labelled).resolve()
    name = path.name if path.is_dir() else path.stem
    return f"{path.parent.name}/{name}" if name in ("train", "val", "valid", "test") else name


# Images that a model has learned from, or nearly so: what is measured on them is too good.


@dataclass(frozen=True)
class NearCopy:
    """An image that is nearly the same as a shot.

    Attributes
    ----------
    path, shot
        Names of the two.
    cosine
        Of their features.
    """

    path: str
    shot: str
    cosine: float


@dataclass(frozen=True)
class NearCopies:
    """All images that are nearly the same as a shot, most alike first, and from which cosine."""

    found: tuple[NearCopy, ...] = ()
    threshold: float = 1.0

    def warning(self, most: int = 3) -> str:
        """Say it in a sentence that names the first pairs; "" if there is none."""
        if not self.found:
            return ""
        n = len(self.found)
        pairs = "; ".join(f"{c.path} and {c.shot} ({c.cosine:.3f})" for c in self.found[:most])
        more = "; ..." if n > most else ""
        return (
            f"{n} {'image is' if n == 1 else 'images are'} nearly the same as an example image "
            f"(cosine {self.threshold:.3f} or more), which flatters every figure if they are "
            f"copies: {pairs}{more}"
        )


def set_apart(
    model: TrustVLM, found: Gathered[Any], *, exclude: bool, calibrated_on: bool, purpose: str
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Tell fresh images from those that the model has learned from, by content.

    Parameters
    ----------
    model
        A fitted model.
    found
        k readable images.
    exclude
        Whether the others are left out; else they are an error.
    calibrated_on
        Whether images that the model was calibrated on count as learned from.
    purpose
        What would be wrong, and what to do instead: the end of the error's message.

    Returns
    -------
    fresh
        `(k,)` bool.
    leaked
        Paths of the others.

    Raises
    ------
    LeakError
        If there are others and `exclude` is False.
    """
    calibration = model.calibration_ if calibrated_on else None
    used = {
        "the shots": model.shots_,
        "the images selected on": model.selection_images_,
        "the images calibrated on": calibration.images if calibration else (),
    }
    among = [name for name, images in used.items() if _share_content(images, found.hashes)]
    learned_from = {image["sha256"] for images in used.values() for image in images}
    fresh = np.array([digest not in learned_from for digest in found.hashes], dtype=bool)
    leaked = tuple(ref.path for ref, keep in zip(found.refs, fresh, strict=True) if not keep)
    if leaked and not exclude:
        raise LeakError(
            f"{len(leaked)} of {len(found.refs)} images are also among {' and '.join(among)}, by "
            f"content ({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}): {purpose}, or "
            "leave these out with --exclude-shots (exclude_shots=True)."
        )
    return fresh, leaked


def _share_content(images: Sequence[Mapping[str, Any]], hashes: Collection[str]) -> bool:
    return not {image["sha256"] for image in images}.isdisjoint(hashes)


def near_copies(model: TrustVLM, paths: list[str], features: NDArray[np.float32]) -> NearCopies:
    """List the images whose features are nearly those of a shot.

    Parameters
    ----------
    model
        A fitted model.
    paths, features
        Names of k images and their `(k, d)` features.
    """
    if not len(model.support_labels_):
        return NearCopies()
    threshold = near_duplicate_threshold(
        model.support_features_, model.support_labels_, n_classes=len(model.classes_)
    )
    pairs = near_duplicates(features, model.support_features_, threshold=threshold)
    copies = (
        NearCopy(paths[pair.image], str(model.shots_[pair.other]["path"]), pair.cosine)
        for pair in pairs
    )
    return NearCopies(tuple(copies), threshold)
