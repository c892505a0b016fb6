"""Whoever labels images elsewhere: the labels of one, and those of several side by side."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Unpack
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.exceptions import ImageError, InputError, TrustVLMWarning
from trustvlm.images import (
    DEFAULT_LIMITS,
    ClassList,
    Columns,
    ImageSource,
    InMemoryImage,
    LabelledImage,
    LabelledImages,
    LabelledSource,
    Limits,
    content_hash,
    find_labelled,
)
from trustvlm.images.labelled import LABEL_CONFIDENCE
from trustvlm.images.pictures import HeldPicture, is_numbered
from trustvlm.pipeline.given_labels import (
    UNKNOWN_LABELS,
    GivenLabels,
    no_class,
)
from trustvlm.pipeline.records import (
    Embedder,
    EncodedImages,
    ListedImages,
    encode_images,
    list_labelled,
)
from trustvlm.pipeline.verdict import Verdict, Verdicts
from trustvlm.scores import Score
from trustvlm.serialization import nan_to_null
from trustvlm.text import counted

Image = TypeVar("Image", bound=ImageSource)


GivenSource: TypeAlias = LabelledSource | LabelledImages
"""Labels from elsewhere: where they are, or as `find_labelled` lists them."""


class Labeller:
    """The labels that somebody else gave to images which are listed apart from them.

    Parameters
    ----------
    labels
        The labels, with the images that they are of. Images are matched by their files.
    classes
        Of the model.
    synonyms, unknown
        As in `GivenLabels`.
    limits
        As of `find_labelled`, where that lists the labels.

    Raises
    ------
    InputError
        As `find_labelled` and `GivenLabels`, or if an image has two different labels, or no label
        is a class.
    """

    def __init__(
        self,
        labels: GivenSource,
        classes: ClassList,
        *,
        synonyms: Mapping[str, str] | None = None,
        unknown: str = UNKNOWN_LABELS[0],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if not isinstance(labels, LabelledImages):
            labels = find_labelled(labels, confidence_column=LABEL_CONFIDENCE, limits=limits)
        self._keys = ImageKeys()
        self._by_image = self._keys.by_image(labels.refs)
        self._given = GivenLabels(classes, labels.refs, synonyms=synonyms, unknown=unknown)
        if len(self._given.unknown) == len(labels.classes):
            raise InputError(
                f"No given label is a class of the model: '{self._given.unknown[0]}', for one, is "
                "none. Say what other words mean with --synonyms (synonyms=)."
            )

    def label_of(self, image: Any) -> LabelledImage | None:
        """Return an image with its given label; None if it has none."""
        return self._by_image.get(self._keys[image])

    def listed(self, images: ListedImages[Image]) -> ListedImages[Image]:
        """Return the images that have a given label.

        Raises
        ------
        InputError
            If none has one.

        Warns
        -----
        TrustVLMWarning
            If some have none.
        """
        rows = np.array([self.label_of(image) is not None for image in images.refs], dtype=bool)
        if not rows.any():
            raise InputError(
                f"None of the {len(rows)} images has a given label: images are matched by their "
                "files, so both lists have to name the same ones."
            )
        if not rows.all():
            warnings.warn(
                f"left out: {counted(int((~rows).sum()), 'image')} without a given label",
                TrustVLMWarning,
                stacklevel=5,
            )
        return images.select(rows)

    def of_class(self, images: EncodedImages[Image]) -> EncodedImages[Image]:
        """Return the images whose given label is a class; each of the others is left out.

        Where unknown labels are errors, it stays as one.

        Parameters
        ----------
        images
            All with a given label.

        Warns
        -----
        TrustVLMWarning
            If images are left out.
        """
        own = self._own(images.refs)
        of_class = self._given.indices(own) >= 0
        if self._given.is_error:
            unknown = [
                error or (None if is_class else no_class(image))
                for error, is_class, image in zip(images.errors, of_class, own, strict=True)
            ]
            return replace(images, errors=unknown)
        if not of_class.all():
            first = next(i.label for i, c in zip(own, of_class, strict=True) if not c)
            warnings.warn(
                f"left out: {counted(int((~of_class).sum()), 'image')} whose given label is no "
                f"class of the model, such as '{first}'. `verify` reviews or refuses such labels",
                TrustVLMWarning,
                stacklevel=5,
            )
        return images.select(of_class)

    def pieces(self, images: Sequence[Any], score: Score | None = None) -> dict[str, Any]:
        """Return what evidence takes of the given labels of images, as `GivenLabels.pieces`."""
        return self._given.pieces(self._own(images), score)

    def _own(self, images: Sequence[Any]) -> list[LabelledImage]:
        return [self._by_image[self._keys[image]] for image in images]


def encode_labelled(
    labelled: LabelledSource,
    classes: ClassList,
    embedder: Embedder,
    labeller: Labeller | None,
    progress: Progress | None = None,
    *,
    groups: Sequence[str] | None = None,
    **columns: Unpack[Columns],
) -> EncodedImages[LabelledImage]:
    """Encode images whose true labels are known, and of which given ones are judged, or none are.

    Parameters
    ----------
    labelled
        With the true labels.
    classes
        Of the model.
    embedder, progress
        As of `encode_images`.
    labeller
        Whose labels are judged: images without one, or of which it is no class, are left out. None
        takes all images.
    groups, **columns
        As of `list_labelled`.

    Raises
    ------
    InputError
        As `list_labelled` and `Labeller.listed`.
    """
    listed = list_labelled(labelled, classes, limits=embedder.limits, groups=groups, **columns)
    if labeller is None:
        return encode_images(listed, embedder, progress)
    return labeller.of_class(encode_images(labeller.listed(listed), embedder, progress))


class ImageKeys:
    """What is the same of one image in two lists: its file, its URL, or else its content.

    A position is no name: two lists of pictures that a program holds may differ in their order.
    Such a picture is encoded to be compared, which is done once for each.
    """

    def __init__(self) -> None:
        self._held: WeakKeyDictionary[HeldPicture | InMemoryImage, str] = WeakKeyDictionary()

    def __getitem__(self, image: ImageSource) -> str:
        file: Path | None = getattr(image, "file", None)
        if file is not None:
            return str(file.resolve())
        source = image.source if isinstance(image, LabelledImage) else image
        if not isinstance(source, HeldPicture | InMemoryImage):
            return image.path
        if source not in self._held:
            name = "" if is_numbered(image.path) else image.path
            try:
                self._held[source] = f"{name} {content_hash(source.read())}"
            except ImageError:
                return image.path
        return self._held[source]

    def by_image(self, images: Iterable[LabelledImage]) -> dict[str, LabelledImage]:
        """Return labelled images by their keys.

        Raises
        ------
        InputError
            If one image has two different labels.
        """
        result: dict[str, LabelledImage] = {}
        for image in images:
            other = result.setdefault(self[image], image)
            if other.label != image.label:
                raise InputError(
                    f"Expected one label of each image, but {image.path!r} has '{other.label}' and "
                    f"'{image.label}': give one labeller at a time."
                )
        return result


def share_right(p: NDArray[np.float64], n_classes: int) -> float:
    """Estimate which share of given labels is right, if the wrong ones are any other class.

    Parameters
    ----------
    p
        `(n,)` probability of each given label by the examples alone; n >= 1.
    n_classes
        C >= 2.

    Returns
    -------
    float
        The share r of the greatest likelihood, by expectation maximisation, where a label is the
        true class with probability r and else any of the others, all equally likely: Angluin &
        Laird 1988, "Learning from noisy examples".

    Examples
    --------
    >>> round(share_right(np.array([0.6] * 9 + [0.001]), 10), 2)
    0.9
    """
    share = 0.9
    for _ in range(200):
        right = share * p
        wrong = (1.0 - share) * (1.0 - p) / max(n_classes - 1, 1)
        share = float((right / np.maximum(right + wrong, 1e-300)).mean())
    return share


@dataclass(frozen=True)
class LabellerFacts:
    """What the verdicts on the labels of one labeller come to.

    Attributes
    ----------
    labels
        Images that it labelled and that can be read.
    judged
        Those whose label is a class and is not that of an example.
    accepted
        Share of the labels that is accepted.
    supported, estimated_right
        Two estimates of the share right of the judged ones. Of a calibrated model both are the mean
        P(correct). Else the first is the mean probability by the examples alone, which is too low
        where they are few, and the second `share_right`, which is too high where wrong labels look
        right; NaN for scores that are no log-odds. No guarantee goes with either.
    """

    labels: int
    judged: int
    accepted: float
    supported: float
    estimated_right: float


@dataclass(frozen=True)
class Agreement:
    """How often two labellers give an image the same label, of `images` that both labelled."""

    one: str
    other: str
    images: int
    same: float


def _one_label(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Return the label of each image by its path; without those that have two different ones."""
    labels: dict[str, set[str]] = {}
    for verdict in verdicts:
        if verdict.decision != "error":
            labels.setdefault(verdict.path, set()).add(verdict.label)
    return {path: next(iter(given)) for path, given in labels.items() if len(given) == 1}


@dataclass(frozen=True)
class LabellerComparison:
    """Verdicts on the labels of several labellers.

    Attributes
    ----------
    by_labeller
        The verdicts on the labels of each, as of `TrustVLM.verify`.
    log_odds
        Whether their confidences are log-odds.
    n_classes
        Of the model.
    """

    by_labeller: Mapping[str, Verdicts]
    log_odds: bool
    n_classes: int

    @property
    def verdicts(self) -> Verdicts:
        """All verdicts with the name of the `labeller` of each, one labeller after the other."""
        return Verdicts(
            replace(verdict, labeller=name)
            for name, verdicts in self.by_labeller.items()
            for verdict in verdicts
        )

    @property
    def facts(self) -> dict[str, LabellerFacts]:
        """What the verdicts on each come to."""
        return {name: self._facts(verdicts) for name, verdicts in self.by_labeller.items()}

    def _facts(self, verdicts: Verdicts) -> LabellerFacts:
        readable = [verdict for verdict in verdicts if verdict.decision != "error"]
        judged = [verdict for verdict in readable if not math.isnan(verdict.confidence)]
        accepted = sum(verdict.decision == "accept" for verdict in readable)
        p = np.array([verdict.p_correct for verdict in judged])
        supported = estimated = float(p.mean()) if len(p) else math.nan
        if math.isnan(supported) and len(p) and self.log_odds:
            from scipy.special import expit  # late: predicting does without it

            p = expit(np.array([verdict.confidence for verdict in judged]))
            supported, estimated = float(p.mean()), share_right(p, self.n_classes)
        return LabellerFacts(
            labels=len(readable),
            judged=len(judged),
            accepted=accepted / len(readable) if readable else math.nan,
            supported=supported,
            estimated_right=estimated,
        )

    @property
    def agreements(self) -> list[Agreement]:
        """How often each pair of labellers agrees, on images to which each gave one label."""
        labels = {name: _one_label(verdicts) for name, verdicts in self.by_labeller.items()}
        pairs = []
        for one, other in combinations(labels, 2):
            both = labels[one].keys() & labels[other].keys()
            same = sum(labels[one][path] == labels[other][path] for path in both)
            pairs.append(Agreement(one, other, len(both), same / len(both) if both else math.nan))
        return pairs

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        comparison: dict[str, Any] = nan_to_null(
            {
                "labellers": {name: vars(facts) for name, facts in self.facts.items()},
                "agreements": [vars(pair) for pair in self.agreements],
            }
        )
        return comparison
