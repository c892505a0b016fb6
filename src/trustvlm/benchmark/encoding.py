"""From images to arrays, through the embedding store: the tests, and the shots that are drawn."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.arrays import ArraySet
from trustvlm.benchmark.config import ModelPair, SetConfig
from trustvlm.benchmark.listing import ListedSplit, list_set
from trustvlm.embeddings import EmbeddingStore, Progress, encode_all, encode_texts
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.models import class_embeddings, read_prompts
from trustvlm.pipeline.encoders import Encoders
from trustvlm.scores import zero_shot_logits
from trustvlm.scores.shots import draw_shots

__all__ = ["EncodedSet", "encode_set"]

Point = tuple[int, int]


@dataclass(frozen=True)
class EncodedSet:
    """A data set through one pair of encoders.

    Attributes
    ----------
    support, tests
        Arrays of the training images that some draw uses, and of each test split.
    draws
        Rows of `support` by (shots, draw).
    left_out
        Messages on images that could not be read.
    validation
        Arrays of the validation images, if they were asked for.
    digest
        SHA-256 over the content and labels of all these images, the classes and the prompts.
    """

    support: ArraySet
    tests: tuple[ArraySet, ...]
    draws: Mapping[Point, NDArray[np.int64]]
    left_out: tuple[str, ...]
    digest: str
    validation: ArraySet | None = None


@dataclass(frozen=True)
class _Encoder:
    """Both encoders, the class texts, and where vectors are kept."""

    encoders: Encoders
    class_names: tuple[str, ...]
    texts: NDArray[np.float32]
    store: EmbeddingStore
    progress: Progress | None

    def encode(
        self, name: str, split: ListedSplit
    ) -> tuple[ArraySet, NDArray[np.bool_], list[str], list[str]]:
        """Return the readable images as arrays, which are readable, their hashes, the errors."""
        both = {"vlm": self.encoders.vlm, "vision": self.encoders.vision}
        chunk = encode_all(split.refs, both, self.store, progress=self.progress)
        ok = chunk.readable
        if not ok.any():
            raise InputError(f"No image of {name} can be read.")
        embeddings = chunk.embeddings["vlm"][ok]
        scale = self.encoders.vlm.logit_scale
        arrays = ArraySet(
            name=name,
            logits=zero_shot_logits(embeddings, self.texts, logit_scale=scale),
            features=chunk.embeddings["vision"][ok],
            labels=split.labels[ok],
            class_names=self.class_names,
            image_embeddings=embeddings,
            text_embeddings=self.texts,
        )
        digests = [digest for digest, kept in zip(chunk.hashes, ok, strict=True) if kept]
        return arrays, ok, digests, [str(error) for error in chunk.errors if error is not None]


def encode_set(
    dataset: SetConfig,
    models: ModelPair,
    encoders: Encoders,
    store: EmbeddingStore,
    points: Iterable[Point],
    progress: Progress | None = None,
    *,
    validation: bool = False,
) -> EncodedSet:
    """Encode the test images, and the training images that a draw uses; only what is new.

    Parameters
    ----------
    dataset, models, encoders, store
        What, with which prompts, through which encoders, and where vectors are kept.
    points
        (shots, draw) of the draws to come. They are drawn from the listing, as the paper does,
        so that an unreadable image leaves a gap and changes no other draw.
    progress
        As in `encode_images`.
    validation
        Whether the validation images are wanted as well.

    Raises
    ------
    LeakError
        If a test image is also among the drawn training images or the validation images, by
        content, or a validation image among the drawn training images.
    InputError
        If labels and classes do not fit, or no image can be read.
    """
    listed = list_set(dataset, validation=validation)
    prompts = read_prompts(encoders.vlm.prompt if models.prompt is None else models.prompt)
    texts = class_embeddings(
        encoders.vlm,
        listed.class_names,
        prompts,
        encode=lambda new: encode_texts(encoders.vlm, new, store),
    )
    encoder = _Encoder(encoders, listed.class_names, texts, store, progress)
    n_classes = len(listed.class_names)
    drawn = {
        (shots, draw): draw_shots(listed.train.labels, n_classes, shots, draw=draw).indices
        for shots, draw in points
    }
    used = np.unique(np.concatenate(list(drawn.values())))
    shown = ListedSplit([listed.train.refs[int(i)] for i in used], listed.train.labels[used])
    support, ok, digests, left_out = encoder.encode(f"{dataset.name}/train", shown)
    row_of = np.full(len(listed.train.labels), -1)
    row_of[used[ok]] = np.arange(int(ok.sum()))
    content = hashlib.sha256(json.dumps([listed.class_names, prompts, digests]).encode())
    content.update(support.labels.tobytes())
    taken = dict.fromkeys(digests, "training")
    encoded = []
    listed_as = [] if listed.validation is None else [("val", listed.validation)]
    for split, images in [*listed_as, *listed.tests.items()]:
        arrays, _, found, errors = encoder.encode(f"{dataset.name}/{split}", images)
        _refuse_leaks(arrays.name, found, taken)
        if images is listed.validation:
            taken.update(dict.fromkeys(found, "validation"))
        content.update(json.dumps([arrays.name, found]).encode() + arrays.labels.tobytes())
        left_out += errors
        encoded.append(arrays)
    for message in left_out:
        warnings.warn(f"left out: {message}", TrustVLMWarning, stacklevel=2)
    return EncodedSet(
        support=support,
        tests=tuple(encoded[len(listed_as) :]),
        validation=encoded[0] if listed_as else None,
        draws={point: row_of[i][row_of[i] >= 0] for point, i in drawn.items()},
        left_out=tuple(left_out),
        digest=content.hexdigest(),
    )


def _refuse_leaks(name: str, digests: list[str], taken: Mapping[str, str]) -> None:
    leaked = [taken[digest] for digest in digests if digest in taken]
    if leaked:
        kinds = " or ".join(dict.fromkeys(leaked))
        raise LeakError(
            f"{len(leaked)} of {len(digests)} images of {name} are also {kinds} images, by "
            "content: metrics on them would be too good. Remove them from one of the two."
        )
