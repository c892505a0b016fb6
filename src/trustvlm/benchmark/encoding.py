"""From image folders to arrays, through the embedding store."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from trustvlm.benchmark.arrays import ArraySet
from trustvlm.benchmark.config import ModelPair, SetConfig
from trustvlm.embeddings import EmbeddingStore, Progress, encode_all, encode_texts
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.images import find_labelled, read_classes
from trustvlm.models import class_embeddings, read_prompts
from trustvlm.pipeline.encoders import Encoders
from trustvlm.scores import zero_shot_logits

__all__ = ["EncodedSet", "encode_set"]


@dataclass(frozen=True)
class EncodedSet:
    """A data set through one pair of encoders.

    Attributes
    ----------
    support, tests
        Arrays of the training images and of each test split.
    left_out
        Messages on images that could not be read.
    digest
        SHA-256 over the content and labels of all images, the classes and the prompts.
    """

    support: ArraySet
    tests: tuple[ArraySet, ...]
    left_out: tuple[str, ...]
    digest: str


def encode_set(
    dataset: SetConfig,
    models: ModelPair,
    encoders: Encoders,
    store: EmbeddingStore,
    progress: Progress | None = None,
) -> EncodedSet:
    """Encode the training and test images of a data set; only what is new is computed.

    Raises
    ------
    LeakError
        If a test image is also a training image, by content.
    InputError
        If labels and classes do not fit, or no image can be read.
    """
    listed = find_labelled(dataset.train)
    classes = read_classes(listed.classes if dataset.classes is None else dataset.classes)
    prompts = read_prompts(encoders.vlm.prompt if models.prompt is None else models.prompt)
    texts = class_embeddings(
        encoders.vlm,
        classes.names,
        prompts,
        encode=lambda new: encode_texts(encoders.vlm, new, store),
    )
    training = f"{dataset.name}/train"
    left_out: list[str] = []
    seen: set[str] = set()
    content = hashlib.sha256(json.dumps([classes.names, prompts]).encode())

    def encoded(name: str, source: Path) -> ArraySet:
        refs = find_labelled(source).refs
        chunk = encode_all(
            refs, {"vlm": encoders.vlm, "vision": encoders.vision}, store, progress=progress
        )
        left_out.extend(str(error) for error in chunk.errors if error is not None)
        ok = chunk.readable
        if not ok.any():
            raise InputError(f"No image of {source} can be read.")
        embeddings = chunk.embeddings["vlm"][ok]
        labels = classes.indices([str(ref.label) for ref in refs])[ok]
        digests = [digest for digest, kept in zip(chunk.hashes, ok, strict=True) if kept]
        if name == training:
            seen.update(digests)
        else:
            _refuse_leaks(name, digests, seen)
        content.update(json.dumps([name, digests, labels.tolist()]).encode())
        return ArraySet(
            name=name,
            logits=zero_shot_logits(embeddings, texts, logit_scale=encoders.vlm.logit_scale),
            features=chunk.embeddings["vision"][ok],
            labels=labels,
            class_names=classes.names,
            image_embeddings=embeddings,
            text_embeddings=texts,
        )

    support = encoded(training, dataset.train)
    tests = tuple(encoded(f"{dataset.name}/{s}", path) for s, path in dataset.tests.items())
    for message in left_out:
        warnings.warn(f"left out: {message}", TrustVLMWarning, stacklevel=2)
    return EncodedSet(support, tests, tuple(left_out), content.hexdigest())


def _refuse_leaks(name: str, digests: list[str], training: set[str]) -> None:
    leaked = sum(digest in training for digest in digests)
    if leaked:
        raise LeakError(
            f"{leaked} of {len(digests)} images of {name} are also training images, by content: "
            "metrics on them would be too good. Remove them from one of the two."
        )
