"""Scores of any number of images from their stored embeddings, whose logits are never all there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_nonzero_rows, rows_and_lengths
from trustvlm.scores.comparison import compare_as_stored
from trustvlm.scores.computing import prepare
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.prototypes import PrototypeBank
from trustvlm.scores.registry import ScoreResult, get, joined
from trustvlm.scores.zero_shot import unit_rows

__all__ = ["compute_embedded"]

# How an executor's `map` and the builtin one are called here.
Map = Callable[[Callable[[slice], ScoreResult], Iterable[slice]], Iterable[ScoreResult]]


def compute_embedded(
    name: str,
    *,
    image_embeddings: NDArray[Any],
    text_embeddings: ArrayLike,
    logit_scale: float = 100.0,
    features: NDArray[Any] | None = None,
    bank: PrototypeBank | None = None,
    support_features: ArrayLike | None = None,
    support_labels: ArrayLike | None = None,
    support_image_embeddings: ArrayLike | None = None,
    map_blocks: Map = map,
    **parameters: Any,
) -> ScoreResult:
    """Compute a score from embeddings, block by block, in memory that does not grow with n x C.

    Parameters
    ----------
    name
        One of `names()` that scores each image by itself.
    image_embeddings, text_embeddings
        `(n, e)` and `(C, e)` of the VLM, any length per row. The first may be a memory map.
    logit_scale
        The model's learned scale (100 for CLIP).
    features
        `(n, d)` of the vision encoder; may be a memory map.
    bank, support_features, support_labels, support_image_embeddings
        As of `compute`.
    map_blocks
        Applies the work to the blocks: `ThreadPoolExecutor(k).map` uses k cores, best with linear
        algebra kept to one thread each.
    **parameters
        The score's own.

    Returns
    -------
    ScoreResult
        `prediction` `(n,)` int64 and `confidence` `(n,)` float64. Logits are computed in the
        precision of `image_embeddings` and cosines in that of `features`, at least float32.

    Raises
    ------
    InputError
        As `compute`; or if the score needs all images at once.
    EvidenceMissingError
        If the score needs evidence that was not passed.

    Examples
    --------
    >>> v = compute_embedded("msp", image_embeddings=np.eye(2), text_embeddings=np.eye(2))
    >>> v.prediction, v.confidence
    (array([0, 1]), array([1., 1.]))
    """
    if get(name).whole_batch:
        raise InputError(
            f"The score `{name}` reads all images at once, so it cannot be computed block by "
            "block: use scores.compute."
        )
    texts = as_nonzero_rows(text_embeddings, "text_embeddings")
    if image_embeddings.ndim != 2 or image_embeddings.shape[1] != texts.shape[1]:
        raise InputError(
            f"Expected `image_embeddings` to have {texts.shape[1]} columns like "
            f"`text_embeddings`, but got shape {image_embeddings.shape}."
        )
    n = len(image_embeddings)
    if features is not None and len(features) != n:
        raise InputError(
            f"Expected `features` to have {n} rows like `image_embeddings`, "
            f"but got {len(features)}."
        )
    precision = np.result_type(image_embeddings.dtype, np.float32)
    columns = np.asarray(logit_scale * unit_rows(texts).T, dtype=precision)

    def logits(rows: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        directions = np.divide(rows, lengths[:, None], dtype=precision)
        table: NDArray[Any] = directions @ columns
        return table

    shots = None
    if support_image_embeddings is not None:
        shots = rows_and_lengths(support_image_embeddings, "support_image_embeddings")
    known = Evidence.of(
        logits=np.empty((0, len(texts))),
        features=None if features is None else np.asarray(features[:0]),
        bank=bank,
        support_features=support_features,
        support_labels=support_labels,
        support_logits=None if shots is None else logits(*shots),
        image_embeddings=np.asarray(image_embeddings[:0]),
        text_embeddings=texts,
        support_image_embeddings=None if shots is None else shots[0],
    )
    prepared = prepare(name, known, **parameters)
    stored = None
    if features is not None and known.bank is not None and "bank" in get(name).needs:
        alike = np.result_type(features.dtype, np.float32) if features.dtype.kind == "f" else float
        stored = known.bank.prototypes_.astype(alike)

    def score(rows: slice) -> ScoreResult:
        where = f"[{rows.start}:{rows.stop}]"
        images = rows_and_lengths(image_embeddings[rows], f"image_embeddings{where}")
        # Checked above: with_images would look at everything again.
        evidence = replace(known, logits=logits(*images), image_embeddings=images[0])
        if features is not None:
            seen, lengths = rows_and_lengths(features[rows], f"features{where}")
            evidence = replace(evidence, features=seen)
            if stored is not None:
                evidence = compare_as_stored(evidence, lengths, stored)
        return prepared(evidence)

    return joined(list(map_blocks(score, known.slices(n))))
