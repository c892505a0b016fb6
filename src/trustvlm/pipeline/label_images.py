"""Labels from class names alone: no shots; the images themselves verify each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import Source, open_images, read_classes
from trustvlm.models.prompts import read_prompts
from trustvlm.pipeline.predict import verdicts_without_shots
from trustvlm.pipeline.records import ClassSource, Embedder, PromptSource, encode_images
from trustvlm.pipeline.verdict import Verdicts, in_order
from trustvlm.scores import Evidence, apply, zero_shot_logits
from trustvlm.scores.transductive import batch_of, batch_weight, unlabelled_logits

# Above these shares a person should look first: with the offline models, whose accuracy was at
# hand, text and groups disagreed on 4 to 46 % of images where the VLM named 40 % or more rightly.
_DISAGREEMENT = 0.5


def label_images(
    images: Source,
    load_embedder: Callable[[], Embedder],
    *,
    classes: ClassSource | None,
    prompt: PromptSource | None = None,
    correct: bool = False,
    progress: Progress | None = None,
) -> Verdicts:
    """Label images as `TrustVLM.label` says.

    Raises
    ------
    InputError
        Without class names, or if the input does not exist or holds no images.
    """
    if classes is None:
        raise InputError("Expected `classes` to name what to look for: there are no shots here.")
    class_list, listed = read_classes(classes), open_images(images)
    embedder = load_embedder()
    vlm = embedder.encoders.vlm
    encoded = encode_images(listed, embedder, progress)
    readable = encoded.readable()
    if not len(readable):
        return Verdicts(in_order(encoded, []))
    prompts = read_prompts(vlm.prompt if prompt is None else prompt)
    evidence = Evidence.of(
        logits=zero_shot_logits(
            readable.image_embeddings,
            embedder.embed_classes(class_list.names, prompts),
            logit_scale=vlm.logit_scale,
        ),
        features=readable.features,
        image_embeddings=readable.image_embeddings,
    )
    result = apply("auto_unlabelled_star" if correct else "auto_unlabelled", evidence)
    together = unlabelled_logits(evidence)
    _warn(evidence, together)
    verdicts = verdicts_without_shots(
        result, evidence.logits, together, readable.paths, class_list.labels
    )
    return Verdicts(in_order(encoded, verdicts))


def _warn(evidence: Evidence, together: NDArray[np.float64]) -> None:
    """Say where the images cannot verify each other, or contradict the VLM."""
    different, n_classes = len(batch_of(evidence)), together.shape[1]
    if batch_weight(different, n_classes) < 0.5:
        warnings.warn(
            f"{evidence.n} images of {n_classes} classes, {different} of them different, say "
            "little about each other: the labels rest on the text alone, more or less. Label more "
            "images at once, or give examples "
            "(trustvlm fit)",
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
