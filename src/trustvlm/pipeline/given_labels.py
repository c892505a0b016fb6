"""Labels that a model did not give: of a language model, a vendor, an old classifier, people."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import ImageError, InputError, TrustVLMWarning
from trustvlm.images import (
    ClassList,
    ImageSource,
    LabelledImage,
)
from trustvlm.images.classes import normal_form
from trustvlm.images.references import read_probability
from trustvlm.pipeline.records import EncodedImages
from trustvlm.pipeline.verdict import Verdict, error_verdict
from trustvlm.scores import Score

Image = TypeVar("Image", bound=ImageSource)

UNKNOWN_LABELS = ("review", "error")
"""What becomes of an image whose label is no class of the model."""


class NotJudgedError(ImageError):
    """The label of an image cannot be judged: it is no class, or the image is an example."""


def meant_by(labels: Iterable[str], synonyms: Mapping[str, str]) -> dict[str, str]:
    """Return what each distinct label means: itself, or what it is a synonym of.

    Words are compared as labels are with classes: as they are spelled, else by `normal_form`.

    Raises
    ------
    InputError
        If a label is spelled as none of the synonyms, and may be two of them.

    Examples
    --------
    >>> meant_by(["Puppy", "cat", "Puppy"], {"puppy": "dog"})
    {'Puppy': 'dog', 'cat': 'cat'}
    """
    by_form: dict[str, set[str]] = {}
    for word, name in synonyms.items():
        by_form.setdefault(normal_form(word), set()).add(name)
    result = {}
    for label in dict.fromkeys(labels):
        names = {synonyms[label]} if label in synonyms else by_form.get(normal_form(label), {label})
        if len(names) > 1:
            raise InputError(
                f"Expected every label to mean one class, but by its synonyms {label!r} may be "
                f"{' or '.join(map(repr, sorted(names)))}: spell it as one of them."
            )
        (result[label],) = names
    return result


class GivenLabels:
    """The classes that labels from elsewhere mean, each read off the image that it came with.

    Parameters
    ----------
    classes
        Of the model.
    images
        The labelled images; their distinct labels are looked up once.
    synonyms
        Classes by other words for them, such as `{"puppy": "dog"}`, as `meant_by` reads them.
    unknown
        Of `UNKNOWN_LABELS`: what becomes of an image whose label is no class.

    Raises
    ------
    InputError
        If synonyms stand for what is no class, or spell one word in two ways for two classes, or
        `unknown` is something else.

    Examples
    --------
    >>> from trustvlm.images import find_labelled
    >>> images = find_labelled((["1.jpg", "2.jpg", "3.jpg"], ["puppy", "cat", "cow"])).refs
    >>> labels = GivenLabels(ClassList(("cat", "dog")), images, synonyms={"puppy": "dog"})
    >>> labels.indices(images), labels.unknown
    (array([ 1,  0, -1]), ('cow',))
    """

    def __init__(
        self,
        classes: ClassList,
        images: Iterable[LabelledImage],
        *,
        synonyms: Mapping[str, str] | None = None,
        unknown: str = "review",
    ) -> None:
        if unknown not in UNKNOWN_LABELS:
            raise InputError(
                f"Expected unknown labels to be {' or '.join(UNKNOWN_LABELS)}, but got {unknown!r}."
            )
        synonyms = synonyms or {}
        if none := classes.unknown(synonyms.values()):
            raise InputError(
                f"Expected synonyms of classes of the model, but {none[0]!r} is none: the classes "
                f"are {', '.join(classes.labels[:10])}{', ...' if len(classes) > 10 else ''}."
            )
        self.is_error = unknown == "error"
        self._classes = classes
        meant = meant_by((image.label for image in images), synonyms)
        labels = list(meant)
        missing = set(classes.unknown(meant.values()))
        self.unknown = tuple(label for label in labels if meant[label] in missing)
        of_class = [label for label in labels if meant[label] not in missing]
        indices = classes.indices(meant[label] for label in of_class)
        self._index = dict(zip(of_class, indices.tolist(), strict=True))

    @classmethod
    def one_by_one(cls, classes: ClassList, images: Iterable[LabelledImage]) -> GivenLabels:
        """Look each label up by itself, so that none changes what another one means.

        Nothing is warned of, and a label that may mean two classes is unknown: for a service, whose
        images come from several clients.

        Examples
        --------
        >>> from trustvlm.images import find_labelled
        >>> images = find_labelled((["1.jpg", "2.jpg"], ["Cat", "cow"])).refs
        >>> GivenLabels.one_by_one(ClassList(("cat", "dog")), images).indices(images)
        array([ 0, -1])
        """
        every = cls(classes, ())
        unknown = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrustVLMWarning)
            for image in {image.label: image for image in images}.values():
                with suppress(InputError):
                    every._index |= cls(classes, [image])._index
                if image.label not in every._index:
                    unknown.append(image.label)
        every.unknown = tuple(unknown)
        return every

    def indices(self, images: Sequence[Any]) -> NDArray[np.int64]:
        """`(n,)` class index of the label of each image; -1 where it is no class."""
        return np.array([self._index.get(image.label, -1) for image in images], dtype=np.int64)

    def checked(self, images: EncodedImages[Any], examples: Collection[str]) -> EncodedImages[Any]:
        """Return images with their labels, and with an error where these cannot be judged.

        Parameters
        ----------
        images
            The labelled ones that this was made of.
        examples
            SHA-256 of the shots: their own label would be among those that they are judged by.
        """
        labels = self.indices(images.refs)
        errors = list(images.errors)
        for i, (ref, label, digest) in enumerate(
            zip(images.refs, labels, images.hashes, strict=True)
        ):
            if errors[i] is None and label < 0:
                errors[i] = no_class(ref)
            elif errors[i] is None and digest in examples:
                problem = "this image is among the examples, by which no label of its own is judged"
                errors[i] = NotJudgedError("example", problem)
        return replace(images, labels=labels, errors=errors)

    def pieces(self, images: Sequence[Any], score: Score | None = None) -> dict[str, Any]:
        """Return `given_labels` and `label_confidence` of `Evidence`, as far as a score reads them.

        The probabilities are None if none came with the labels.
        """
        p = np.array([image.confidence for image in images], dtype=np.float64)
        reads = score is None or "label_confidence" in score.optional
        reads = reads and not np.isnan(p).all()
        return {"given_labels": self.indices(images), "label_confidence": p if reads else None}

    def not_judged(self, image: LabelledImage, error: NotJudgedError, best: str) -> Verdict:
        """Return the verdict on an image whose label cannot be judged.

        Parameters
        ----------
        image
            With its label.
        error
            Why.
        best
            The class that text and examples favour.
        """
        is_label = error.kind == "label"
        if is_label and self.is_error:
            return error_verdict(image.path, error)
        nan = math.nan
        return Verdict(
            path=image.path,
            label=image.label,
            confidence=nan,
            p_correct=nan,
            decision="review",
            text_score=nan,
            image_score=nan,
            runner_up=best if is_label else "",
            reason=f"{error}; of its classes '{best}' fits the image best"
            if is_label
            else str(error),
            error="",
            corrected=False,
        )


def no_class(image: LabelledImage) -> NotJudgedError:
    """Return the error of an image whose label is no class."""
    return NotJudgedError("label", f"the label '{image.label}' is no class of the model")


def with_confidence(
    images: Sequence[LabelledImage], confidence: Sequence[float] | None
) -> list[LabelledImage]:
    """Return labelled images with the probability that came with each label.

    Raises
    ------
    InputError
        If they differ in number, or one is no probability.
    """
    if confidence is None:
        return list(images)
    if len(confidence) != len(images):
        raise InputError(
            f"Expected a probability for each of {len(images)} labels, but got {len(confidence)}."
        )
    pairs = zip(images, confidence, strict=True)
    return [replace(image, confidence=read_probability(p, image.path)) for image, p in pairs]
