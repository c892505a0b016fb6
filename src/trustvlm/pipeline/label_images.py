"""Labels from class names alone: no shots; the images themselves verify each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import DEFAULT_LIMITS, Columns, Limits, Source, open_images, read_classes
from trustvlm.models.prompts import read_prompts, text_problems
from trustvlm.monitoring.ood import looks_mixed
from trustvlm.pipeline.predict import verdicts_without_shots
from trustvlm.pipeline.records import (
    ClassSource,
    Embedder,
    PromptSource,
    encode_images,
    texts_of,
)
from trustvlm.pipeline.verdict import Verdicts, in_order
from trustvlm.scores import Evidence, apply, zero_shot_logits
from trustvlm.scores.transductive import batch_of, batch_weight, unlabelled_logits
from trustvlm.text import counted

# Above these shares a person should look first: with the offline models, whose accuracy was at
# hand, text and groups disagreed on 4 to 46 % of images where the VLM named 40 % or more rightly.
_DISAGREEMENT = 0.5


def label_images(
    images: Source,
    load_embedder: Callable[[], Embedder],
    *,
    classes: ClassSource | None,
    prompt: PromptSource | None = None,
    class_texts: Mapping[str, str] | None = None,
    correct: bool = False,
    other_classes: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    **columns: Unpack[Columns],
) -> Verdicts:
    """Label images as `TrustVLM.label` says.

    Raises
    ------
    InputError
        Without class names, or if the input does not exist or holds no images.
    """
    if classes is None:
        raise InputError("Expected `classes` to name what to look for: there are no shots here.")
    class_list, listed = read_classes(classes), open_images(images, limits=limits, **columns)
    embedder = load_embedder()
    vlm = embedder.encoders.vlm
    encoded = encode_images(listed, embedder, progress)
    readable = encoded.readable()
    if not len(readable):
        return Verdicts(in_order(encoded, []))
    prompts = read_prompts(vlm.prompt if prompt is None else prompt)
    names = texts_of(class_list, class_texts) or class_list.names
    texts = embedder.embed_classes(names, prompts)
    others = embedder.embed_others(other_classes, prompts, class_list)
    evidence = Evidence.of(
        logits=zero_shot_logits(readable.image_embeddings, texts, logit_scale=vlm.logit_scale),
        features=readable.features,
        image_embeddings=readable.image_embeddings,
    )
    result = apply("auto_unlabelled_star" if correct else "auto_unlabelled", evidence)
    together = unlabelled_logits(evidence)
    for problem in text_problems(vlm, class_list.labels, names, prompts, texts):
        warnings.warn(problem, TrustVLMWarning, stacklevel=3)
    _warn(evidence, together)
    # What any text fits, other classes included, is no sign of images that none fits.
    everything = evidence.logits
    if others is not None:
        everything = np.hstack([everything, others.logits(readable.image_embeddings)])
    if vlm.identity.settings.get("family") == "clip" and looks_mixed(everything):
        warnings.warn(
            "the images differ much in how well any class fits them, as batches do that hold "
            "images of none of the classes (5 % of others look so, too): look at some of the "
            "accepted ones, and name what else there is with --other-class, or give examples "
            "(trustvlm fit)",
            TrustVLMWarning,
            stacklevel=3,
        )
    verdicts = verdicts_without_shots(
        result,
        evidence.logits,
        together,
        readable.paths,
        class_list.labels,
        others,
        readable.image_embeddings,
        compared=len(batch_of(evidence)) > 1,
    )
    return Verdicts(in_order(encoded, verdicts))


def _warn(evidence: Evidence, together: NDArray[np.float64]) -> None:
    """Say where the images cannot verify each other, or contradict the VLM."""
    different, n_classes = len(batch_of(evidence)), together.shape[1]
    if n_classes == 1:
        warnings.warn(
            "there is one class only: it fits every image, whatever it shows. Name what else "
            "there may be with --other-class, or give examples (trustvlm fit)",
            TrustVLMWarning,
            stacklevel=4,
        )
        return
    if batch_weight(different, n_classes) < 0.5:
        warnings.warn(
            f"{counted(evidence.n, 'image')} of {n_classes} classes, {different:,} of them "
            "different, say little about each other: the labels rest on the text alone, more or "
            "less. Label more images at once, or give examples (trustvlm fit)",
            TrustVLMWarning,
            stacklevel=4,
        )
        return
    apart = float((together.argmax(axis=1) != evidence.logits.argmax(axis=1)).mean())
    if apart > _DISAGREEMENT:
        warnings.warn(
            f"the text's labels and the groups that the images form disagree on {apart:.0%} of "
            "the images. The model may hardly know these classes, or its names for them: check "
            "some labels yourself before you rely on any, or give examples (trustvlm fit)",
            TrustVLMWarning,
            stacklevel=4,
        )
