"""Label errors of a whole data set: every label is judged by the images of the other folds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from trustvlm.data_quality.duplicates import (
    DuplicatePair,
    connected_groups,
    near_duplicate_threshold,
    near_duplicates,
)
from trustvlm.embeddings import Progress
from trustvlm.exceptions import InputError
from trustvlm.images import (
    DEFAULT_LIMITS,
    Columns,
    LabelledImage,
    LabelledSource,
    Limits,
    classes_of,
    find_labelled,
)
from trustvlm.images.labelled import LABEL_CONFIDENCE
from trustvlm.models.prompts import read_prompts
from trustvlm.pipeline.cross_validate import check_folds, deal_folds, split_fold
from trustvlm.pipeline.given_labels import GivenLabels
from trustvlm.pipeline.predict import best_other, explain, verdicts_with_shots
from trustvlm.pipeline.records import (
    ClassSource,
    Embedder,
    EncodedImages,
    ListedImages,
    PromptSource,
    encode_images,
    in_groups,
)
from trustvlm.pipeline.state import keeping_labels
from trustvlm.pipeline.verdict import Verdict, Verdicts, folder_of, in_order
from trustvlm.scores import (
    Evidence,
    PrototypeBank,
    apply,
    check_parameters,
    get,
    zero_shot_logits,
)
from trustvlm.scores.arrays import softmax, unit_rows
from trustvlm.scores.auto import auto_logits, fit_auto
from trustvlm.text import printable


def cross_val_verify(
    labelled: LabelledSource,
    load_embedder: Callable[[], Embedder],
    *,
    folds: int = 5,
    classes: ClassSource | None = None,
    prompt: PromptSource | None = None,
    score: str,
    score_parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    confidence_column: str = LABEL_CONFIDENCE,
    limits: Limits = DEFAULT_LIMITS,
    groups: Sequence[Hashable] | None = None,
    **columns: Unpack[Columns],
) -> Verdicts:
    """Judge every label of a data set by the images of the other folds, as `TrustVLM` says.

    Raises
    ------
    InputError
        As there.
    """
    check_folds(folds)
    given = dict(score_parameters or {})
    check_parameters(score, given)
    source = find_labelled(labelled, confidence_column=confidence_column, limits=limits, **columns)
    refs = in_groups(source.refs, groups, columns.get("group_column"))
    class_list = classes_of(source, classes)
    names = class_list.labels
    listed = ListedImages(refs, class_list.indices(source.labels))
    embedder = load_embedder()
    vlm = embedder.encoders.vlm
    score = keeping_labels(score, text=vlm.dim > 0)
    if get(score).whole_batch:
        raise InputError(f"Expected a score of single images, but got `{score}`: choose auto.")
    encoded = encode_images(listed, embedder, progress)
    images = encoded.readable()
    if len(np.unique(images.labels)) < 2:
        raise InputError(
            f"Expected readable images of two classes or more, but got "
            f"{len(np.unique(images.labels))}: with less there is nothing to confuse."
        )
    of_text: dict[str, Any] = {"features": images.features[:0]}
    if vlm.dim:
        prompts = read_prompts(vlm.prompt if prompt is None else prompt)
        texts = embedder.embed_classes(class_list.names, prompts)
        of_text = {
            "logits": np.empty((0, len(names))),
            "support_logits": zero_shot_logits(
                images.image_embeddings, texts, logit_scale=float(vlm.logit_scale)
            ),
            "support_image_embeddings": images.image_embeddings,
            "text_embeddings": texts,
            "logit_bias": getattr(vlm, "logit_bias", None),
        }
    shots = Evidence.of(
        bank=PrototypeBank().fit(images.features, images.labels, n_classes=len(names)),
        support_features=images.features,
        support_labels=images.labels,
        **of_text,
    )
    given_labels = GivenLabels(class_list, images.refs).pieces(images.refs, get(score))
    copies = _copies(images, len(names))
    grouped = groups is not None or columns.get("group_column") is not None
    group = np.unique([image.group for image in images.refs], return_inverse=True)[1]
    fold = fold_of_images(images.labels, copies, folds, group if grouped else None)
    if (fold == fold[0]).all():
        raise InputError(
            "Expected some class to have two images that are not nearly the same"
            f"{' and not of one group' if grouped else ''}, but none has: there is nothing to "
            "judge the labels by."
        )
    rows: dict[int, Verdict] = {}
    for held_out in np.unique(fold).tolist():
        evidence = split_fold(shots, fold, held_out, given_labels)
        own = _judge_fold(evidence, score, given, images.select(fold == held_out), names)
        rows |= dict(zip(np.flatnonzero(fold == held_out).tolist(), own, strict=True))
    verdicts = [rows[i] for i in range(len(images))]
    paths: Any = labelled if isinstance(labelled, str | os.PathLike) else ()
    _review_copies(copies, images, names, verdicts)
    return Verdicts(in_order(encoded, verdicts), folder=folder_of(paths))


def fold_of_images(
    labels: NDArray[np.int64],
    copies: Sequence[DuplicatePair],
    folds: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """`(n,)` fold of each image; images that are nearly the same, or of one group, share one.

    Otherwise a copy with the same wrong label, or another frame of the scene, would speak for it.

    Examples
    --------
    >>> copies = [DuplicatePair(0, 3, 1.0)]
    >>> fold_of_images(np.array([0, 0, 1, 1, 1]), copies, 2)
    array([0, 1, 1, 0, 0])
    """
    n = len(labels)
    ends = _ends(copies)
    if groups is not None:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        ends = np.concatenate([ends, np.stack([np.arange(n), first[group]], axis=1)])
    group = connected_groups(n, ends)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    # The only image of a class is judged, too: it may be a copy of one of another class.
    return np.asarray(np.maximum(deal_folds(labels[first], folds), 0)[group])


def _ends(copies: Sequence[DuplicatePair]) -> NDArray[np.int64]:
    pairs = [(pair.image, pair.other) for pair in copies]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _copies(images: EncodedImages[LabelledImage], n_classes: int) -> list[DuplicatePair]:
    threshold = near_duplicate_threshold(images.features, images.labels, n_classes=n_classes)
    return near_duplicates(images.features, threshold=threshold)


def _judge_fold(
    evidence: Evidence,
    score: str,
    parameters: Mapping[str, Any],
    images: EncodedImages[LabelledImage],
    names: Sequence[str],
) -> list[Verdict]:
    """Judge the given labels of images by the examples in their evidence."""
    result = apply(score, evidence, **parameters)
    probabilities = softmax(auto_logits(evidence, fit_auto(evidence)))
    instead = best_other(probabilities, result.prediction)
    shown = explain(evidence, result.prediction, runner_up=instead)
    verdicts = verdicts_with_shots(result, shown, images.paths, names)
    present = np.bincount(evidence.piece("support_labels"), minlength=len(names)) > 0
    return [
        verdict if present[label] else _without_others(verdict)
        for verdict, label in zip(verdicts, images.labels, strict=True)
    ]


def _without_others(verdict: Verdict) -> Verdict:
    nan = math.nan
    reason = f"no other image is labelled '{verdict.label}', so nothing says what these look like"
    return replace(
        verdict, confidence=nan, text_score=nan, image_score=nan, decision="review", reason=reason
    )


def _review_copies(
    copies: Sequence[DuplicatePair],
    images: EncodedImages[LabelledImage],
    names: Sequence[str],
    verdicts: list[Verdict],
) -> None:
    """Send images to review that are nearly the same, of two or more, and have different labels."""
    group = connected_groups(len(images), _ends(copies))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        labels = images.labels[rows]
        if len(np.unique(labels)) < 2:
            continue
        features = unit_rows(images.features[rows])
        for i, one in enumerate(rows.tolist()):
            cosines = np.where(labels == labels[i], -2.0, features @ features[i])
            other = int(rows[cosines.argmax()])
            reason = (
                f"{printable(images.refs[other].path)}, nearly the same image "
                f"({cosines.max():.2f}), is labelled '{names[images.labels[other]]}': "
                f"{verdicts[one].reason}"
            )
            verdicts[one] = replace(verdicts[one], decision="review", reason=reason)
