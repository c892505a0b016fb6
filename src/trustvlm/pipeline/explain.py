"""Why a verdict is what it is: what text and example images say, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.monitoring.ood import OODThreshold
from trustvlm.scores import Evidence
from trustvlm.scores.arrays import softmax
from trustvlm.scores.evidence import prototype_similarities

# What text and example images say of a prediction, side by side.


@dataclass(frozen=True)
class PredictionEvidence:
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
    is_ood
        `(n,)` bool, whether even that is so low that the image is out-of-distribution.
    ood_threshold
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
    is_ood: NDArray[np.bool_]
    ood_threshold: OODThreshold
    runner_up: NDArray[np.int64]
    runner_up_text: NDArray[np.float64]
    runner_up_image: NDArray[np.float64]


def explain(
    evidence: Evidence, prediction: NDArray[np.int64], ood_threshold: OODThreshold | None = None
) -> PredictionEvidence:
    """Compare predictions with what the text side and the image side say.

    Parameters
    ----------
    evidence
        Logits of n images; features and prototypes where there are any.
    prediction
        `(n,)` class indices, from any score.
    ood_threshold
        Where an image resembles none of the classes; by default every image resembles one.

    Examples
    --------
    >>> shown = explain(Evidence.of(logits=[[2.0, 0.0]]), np.array([0]))
    >>> shown.text_score.round(3), shown.runner_up, shown.nearest
    (array([0.881]), array([1]), array([-1]))
    """
    threshold = ood_threshold or OODThreshold()
    n, n_classes = evidence.logits.shape
    p = softmax(evidence.logits)
    similarities = np.full((n, n_classes), np.nan)
    if evidence.bank is not None and evidence.features is not None:
        similarities = prototype_similarities(evidence)
    comparable = ~np.isnan(similarities).all(axis=1)
    filled = np.where(np.isnan(similarities), -np.inf, similarities)
    nearest = np.where(comparable, filled.argmax(axis=1), -1)
    others = p.copy()
    np.put_along_axis(others, prediction[:, None], -1.0, axis=1)
    by_text = others.argmax(axis=1) if n_classes > 1 else np.full(n, -1)
    runner_up = np.where(comparable & (nearest != prediction), nearest, by_text)
    nearest_score = _at(similarities, nearest)
    return PredictionEvidence(
        text_score=_at(p, prediction),
        image_score=_at(similarities, prediction),
        text_choice=evidence.logits.argmax(axis=1),
        nearest=nearest,
        nearest_score=nearest_score,
        is_ood=threshold.is_ood(nearest_score),
        ood_threshold=threshold,
        runner_up=runner_up,
        runner_up_text=_at(p, runner_up),
        runner_up_image=_at(similarities, runner_up),
    )


def _at(table: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.take_along_axis(table, np.maximum(columns, 0)[:, None], axis=1)[:, 0]
    return np.where(columns >= 0, values, np.nan)


# Why a verdict is what it is, in plain words.


def reasons(
    prediction: NDArray[np.int64], shown: PredictionEvidence, class_names: Sequence[str]
) -> list[str]:
    """Put the evidence for n predictions into one sentence each.

    Examples
    --------
    >>> evidence = Evidence.of(logits=[[2.0, 0.0]], features=[[0.0, 1.0]],
    ...                        support_features=[[1.0, 0.0], [0.0, 1.0]], support_labels=[0, 1])
    >>> prediction = np.array([0])
    >>> reasons(prediction, explain(evidence, prediction), ["a", "b"])[0][:48]
    "the image resembles the examples of 'b' (1.00) m"
    """
    sentences = []
    for i, c in enumerate(prediction):
        sentence = _comparison(i, int(c), shown, class_names)
        if shown.is_ood[i]:
            # What it resembles most says little then, but still says why the label is what it is.
            threshold = shown.ood_threshold
            sentence = (
                "the image resembles none of the classes: even "
                f"'{class_names[int(shown.nearest[i])]}' only {shown.nearest_score[i]:.2f}, where "
                f"at most {100 * threshold.false_flags:.1f} % of example images have less than "
                f"{threshold.below:.2f}; {sentence}"
            )
        sentences.append(sentence)
    return sentences


def with_threshold(
    reasons: Sequence[str],
    confidence: NDArray[np.float64],
    threshold: NDArray[np.float64],
    *,
    is_ood: NDArray[np.bool_] | None = None,
) -> list[str]:
    """Put before each reason whether the confidence reaches its threshold, NaN for none.

    Out-of-distribution images are reviewed whatever their confidence: their reason says so.

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
        if is_ood is not None and is_ood[i]:
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


def _comparison(i: int, c: int, shown: PredictionEvidence, names: Sequence[str]) -> str:
    label, runner_up = names[c], int(shown.runner_up[i])
    text, image = shown.text_score[i], shown.image_score[i]
    nearest = int(shown.nearest[i])
    if np.isnan(image):
        why = f"there are no example images of '{label}', so only the text supports it ({text:.2f})"
        if nearest >= 0:
            why += (
                f"; among the classes with examples the image resembles '{names[nearest]}' most "
                f"({shown.nearest_score[i]:.2f})"
            )
        return why
    if nearest != c:
        return (
            f"the image resembles the examples of '{names[nearest]}' "
            f"({shown.nearest_score[i]:.2f}) more than those of '{label}' ({image:.2f}), "
            "the predicted class"
        )
    text_choice = int(shown.text_choice[i])
    if text_choice != c:
        return (
            f"the image resembles the examples of '{label}' most ({image:.2f}), which outweighs "
            f"the text's choice of '{names[text_choice]}'"
        )
    if runner_up < 0:
        return f"the image resembles the examples of '{label}' ({image:.2f}), the only class"
    other, rival = names[runner_up], shown.runner_up_image[i]
    compared = "" if np.isnan(rival) else f", '{other}' {rival:.2f}"
    agreement = f"text and examples agree on '{label}' (examples {image:.2f}{compared})"
    if text < 0.5:
        agreement += (
            f"; the text alone is unsure ({text:.2f}, '{other}' {shown.runner_up_text[i]:.2f})"
        )
    return agreement


# The same where there are no shots, and images are compared with each other.


def reason_without_shots(
    label: int,
    text_choice: int,
    choice: int,
    text: NDArray[np.float64],
    names: Sequence[str],
    *,
    sure: bool,
) -> str:
    """Say in one sentence what the text, and the images that one resembles, say of it.

    Parameters
    ----------
    label, text_choice, choice
        Index of the predicted class, and of those that the text alone and the images together
        would choose.
    text
        `(C,)` softmax probabilities of the text.
    names
        Of the C classes.
    sure
        Whether the label is more likely right than wrong.
    """
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
