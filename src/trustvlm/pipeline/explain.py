"""Why a verdict is what it is: evidence of text and image, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.monitoring.ood import EVERYTHING, Scope
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import softmax
from trustvlm.scores.comparison import prototype_similarities

# The two views of a prediction, text and image, side by side: what a verdict is explained with.


@dataclass(frozen=True)
class Views:
    """What text and examples say about the predictions for n images.

    Attributes
    ----------
    text_score
        `(n,)` softmax probability of the predicted class.
    image_score
        `(n,)` cosine with the prototype of the predicted class, NaN if it has none.
    text_choice
        `(n,)` class that the text side alone would choose.
    nearest
        `(n,)` class of the most similar prototype, -1 if there is none at all.
    nearest_score
        `(n,)` its cosine, NaN if there is none.
    unlike
        `(n,)` bool, whether even that is so low that the image resembles no class.
    scope
        Where it becomes so low.
    runner_up
        `(n,)` class to consider instead: the nearest one if it is not the predicted one, else the
        most probable other one; -1 if there is a single class.
    runner_up_text, runner_up_image
        `(n,)` its probability and cosine, NaN where there is none.
    """

    text_score: NDArray[np.float64]
    image_score: NDArray[np.float64]
    text_choice: NDArray[np.int64]
    nearest: NDArray[np.int64]
    nearest_score: NDArray[np.float64]
    unlike: NDArray[np.bool_]
    scope: Scope
    runner_up: NDArray[np.int64]
    runner_up_text: NDArray[np.float64]
    runner_up_image: NDArray[np.float64]


def look(evidence: Evidence, prediction: NDArray[np.int64], scope: Scope = EVERYTHING) -> Views:
    """Look at predictions from the text side and from the image side.

    Parameters
    ----------
    evidence
        Logits of n images; features and prototypes where there are any.
    prediction
        `(n,)` class indices, from any score.
    scope
        Where an image resembles no class; by default none is so unlike.

    Examples
    --------
    >>> views = look(Evidence.of(logits=[[2.0, 0.0]]), np.array([0]))
    >>> views.text_score.round(3), views.runner_up, views.nearest
    (array([0.881]), array([1]), array([-1]))
    """
    n, n_classes = evidence.logits.shape
    p = softmax(evidence.logits)
    similarities = np.full((n, n_classes), np.nan)
    if evidence.bank is not None and evidence.features is not None:
        similarities = prototype_similarities(evidence)
    known = ~np.isnan(similarities).all(axis=1)
    filled = np.where(np.isnan(similarities), -np.inf, similarities)
    nearest = np.where(known, filled.argmax(axis=1), -1)
    others = p.copy()
    np.put_along_axis(others, prediction[:, None], -1.0, axis=1)
    by_text = others.argmax(axis=1) if n_classes > 1 else np.full(n, -1)
    runner_up = np.where(known & (nearest != prediction), nearest, by_text)
    nearest_score = _at(similarities, nearest)
    return Views(
        text_score=_at(p, prediction),
        image_score=_at(similarities, prediction),
        text_choice=evidence.logits.argmax(axis=1),
        nearest=nearest,
        nearest_score=nearest_score,
        unlike=scope.flags(nearest_score),
        scope=scope,
        runner_up=runner_up,
        runner_up_text=_at(p, runner_up),
        runner_up_image=_at(similarities, runner_up),
    )


def _at(table: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.take_along_axis(table, np.maximum(columns, 0)[:, None], axis=1)[:, 0]
    return np.where(columns >= 0, values, np.nan)


# Why a verdict is what it is, in plain words.


def reasons(prediction: NDArray[np.int64], views: Views, class_names: Sequence[str]) -> list[str]:
    """Put the evidence for n predictions into one sentence each.

    Examples
    --------
    >>> from trustvlm.pipeline.explain import look
    >>> from trustvlm.scores import Evidence
    >>> evidence = Evidence.of(logits=[[2.0, 0.0]], features=[[0.0, 1.0]],
    ...                        support_features=[[1.0, 0.0], [0.0, 1.0]], support_labels=[0, 1])
    >>> prediction = np.array([0])
    >>> reasons(prediction, look(evidence, prediction), ["a", "b"])[0][:48]
    "the image resembles the examples of 'b' (1.00) m"
    """
    return [_reason(i, int(c), views, class_names) for i, c in enumerate(prediction)]


def with_threshold(
    reasons: Sequence[str],
    confidence: NDArray[np.float64],
    threshold: NDArray[np.float64],
    *,
    outside: NDArray[np.bool_] | None = None,
) -> list[str]:
    """Put before each reason whether the confidence reaches its threshold, NaN for none.

    Images `outside` all classes are reviewed whatever their confidence: their reason says so.

    Examples
    --------
    >>> for why in with_threshold(["why"] * 3, np.array([1.5, 1, 1]), np.array([1.2, 1.2, np.nan])):
    ...     print(why)
    confidence 1.5 reaches the threshold 1.2: why
    confidence 1 is below the threshold 1.2: why
    no threshold is certified: why
    """
    whole = []
    for i, why in enumerate(reasons):
        if outside is not None and outside[i]:
            whole.append(why)
            continue
        c, t = float(confidence[i]), float(threshold[i])
        # As many digits as it takes to tell the two apart.
        digits = next((d for d in (4, 6, 9) if f"{c:.{d}g}" != f"{t:.{d}g}"), 17)
        if np.isnan(t):
            begin = "no threshold is certified"
        elif c >= t:
            begin = f"confidence {c:.{digits}g} reaches the threshold {t:.{digits}g}"
        else:
            begin = f"confidence {c:.{digits}g} is below the threshold {t:.{digits}g}"
        whole.append(f"{begin}: {why}")
    return whole


def _reason(i: int, c: int, views: Views, names: Sequence[str]) -> str:
    why = _comparison(i, c, views, names)
    if not views.unlike[i]:
        return why
    # What it resembles most says little then, but still says why the label is what it is.
    return (
        f"the image resembles no class: even '{names[int(views.nearest[i])]}' only "
        f"{views.nearest_score[i]:.2f}, where at most {100 * views.scope.false_flags:.1f} % of "
        f"example images have less than {views.scope.below:.2f}; {why}"
    )


def _comparison(i: int, c: int, views: Views, names: Sequence[str]) -> str:
    label, runner_up = names[c], int(views.runner_up[i])
    text, image = views.text_score[i], views.image_score[i]
    nearest = int(views.nearest[i])
    if np.isnan(image):
        why = f"there are no example images of '{label}', so only the text supports it ({text:.2f})"
        if nearest >= 0:
            why += (
                f"; among the classes with examples the image resembles '{names[nearest]}' most "
                f"({views.nearest_score[i]:.2f})"
            )
        return why
    if nearest != c:
        return (
            f"the image resembles the examples of '{names[nearest]}' "
            f"({views.nearest_score[i]:.2f}) more than those of '{label}' ({image:.2f}), "
            "the predicted class"
        )
    text_choice = int(views.text_choice[i])
    if text_choice != c:
        return (
            f"the image resembles the examples of '{label}' most ({image:.2f}), which outweighs "
            f"the text's choice of '{names[text_choice]}'"
        )
    if runner_up < 0:
        return f"the image resembles the examples of '{label}' ({image:.2f}), the only class"
    other, rival = names[runner_up], views.runner_up_image[i]
    compared = "" if np.isnan(rival) else f", '{other}' {rival:.2f}"
    agreement = f"text and examples agree on '{label}' (examples {image:.2f}{compared})"
    if text < 0.5:
        agreement += (
            f"; the text alone is unsure ({text:.2f}, '{other}' {views.runner_up_text[i]:.2f})"
        )
    return agreement
