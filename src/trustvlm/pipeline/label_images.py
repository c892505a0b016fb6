"""Labels from class names alone: no shots; the images themselves verify each other."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import open_images, read_classes
from trustvlm.pipeline.records import embed_classes, gather_all
from trustvlm.pipeline.verdict import Verdict, Verdicts
from trustvlm.scores import Evidence, ScoreResult, apply, zero_shot_logits
from trustvlm.scores.arrays import pick, softmax
from trustvlm.scores.transductive import batch_weight, unlabelled_logits

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM


# Above these shares a person should look first: with the offline models, whose accuracy was at
# hand, text and groups disagreed on 4 to 46 % of images where the VLM named 40 % or more rightly.
_DISAGREEMENT = 0.5


def label_images(
    model: TrustVLM, images: Any, *, correct: bool = False, progress: Progress | None = None
) -> Verdicts:
    """Label images as `TrustVLM.label` says.

    Raises
    ------
    InputError
        Without class names, or if the input does not exist or holds no images.
    """
    if model.classes is None:
        raise InputError("Expected `classes` to name what to look for: there are no shots here.")
    classes = read_classes(model.classes)
    found = gather_all(model, open_images(images), progress)
    if not found.refs:
        return Verdicts(found.in_order([]))
    vlm = model.encoders.vlm
    evidence = Evidence.of(
        logits=zero_shot_logits(
            found.image_embeddings,
            embed_classes(model, classes.names),
            logit_scale=vlm.logit_scale,
        ),
        features=found.features,
        image_embeddings=found.image_embeddings,
    )
    result = apply("auto_unlabelled_star" if correct else "auto_unlabelled", evidence)
    together = unlabelled_logits(evidence)
    _warn(evidence, together)
    paths = [ref.path for ref in found.refs]
    return Verdicts(found.in_order(_rows(result, evidence, together, paths, classes.labels)))


def _warn(evidence: Evidence, together: NDArray[np.float64]) -> None:
    """Say where the images cannot verify each other, or contradict the VLM."""
    n, n_classes = together.shape
    if batch_weight(n, n_classes) < 0.5:
        warnings.warn(
            f"{n} images of {n_classes} classes say little about each other: the labels rest on "
            "the text alone, more or less. Label more images at once, or give examples "
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


def _rows(
    result: ScoreResult,
    evidence: Evidence,
    together: NDArray[np.float64],
    paths: Sequence[str],
    names: Sequence[str],
) -> list[Verdict]:
    text = softmax(evidence.logits)
    text_choice, choice = evidence.logits.argmax(axis=1), together.argmax(axis=1)
    others = together.copy()
    np.put_along_axis(others, result.prediction[:, None], -np.inf, axis=1)
    runner_up = others.argmax(axis=1) if len(names) > 1 else np.full(len(paths), -1)
    text_score = pick(text, result.prediction)
    verdicts = []
    for i, path in enumerate(paths):
        label = int(result.prediction[i])
        agree = label == choice[i] == text_choice[i] and len(names) > 1
        sure = bool(result.confidence[i] > 0)
        verdicts.append(
            Verdict(
                path=path,
                label=names[label],
                confidence=float(result.confidence[i]),
                p_correct=math.nan,
                decision="accept" if agree and sure else "review",
                text_score=float(text_score[i]),
                image_score=math.nan,
                runner_up=names[runner_up[i]] if runner_up[i] >= 0 else "",
                reason=_reason(
                    label, int(text_choice[i]), int(choice[i]), text[i], names, sure=sure
                ),
                error="",
            )
        )
    return verdicts


def _reason(
    label: int,
    text_choice: int,
    choice: int,
    text: NDArray[np.float64],
    names: Sequence[str],
    *,
    sure: bool,
) -> str:
    if len(names) == 1:
        return f"'{names[0]}' is the only class to choose from: there is nothing to compare it with"
    if choice != label:
        return (
            f"the text says '{names[label]}' ({text[label]:.2f}), but the images that this one "
            f"resembles are '{names[choice]}'"
        )
    if text_choice != label:
        return (
            f"the images that this one resembles are '{names[label]}', which outweighs the text's "
            f"choice of '{names[text_choice]}' ({text[text_choice]:.2f})"
        )
    agreement = f"the text and the images that this one resembles agree on '{names[label]}'"
    if text[label] < 0.5:
        agreement += f"; the text alone is unsure ({text[label]:.2f})"
    return agreement if sure else f"{agreement}; even so it is less likely right than wrong"
