"""Scores that verify the prediction in image space, against prototypes of the shots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import pick, softmax
from trustvlm.scores.compute import ScoreResult, get, joined, register
from trustvlm.scores.evidence import Comparison, Evidence, compare
from trustvlm.scores.prototypes import NO_PROTOTYPE
from trustvlm.scores.zero_shot import judged_labels
from trustvlm.text import counted

_PAPER = "Dong et al. 2025 (arXiv 2505.23745)"
_register = partial(register, needs=("logits", "features", "bank"), complexity="O(nCd)")


def prototype_softmax(
    similarities: NDArray[np.float64], present: NDArray[np.bool_], temperature: float
) -> NDArray[np.float64]:
    """Softmax of cosines over temperature, over the classes that have shots; 0 for the others.

    Examples
    --------
    >>> prototype_softmax(np.array([[0.5, 0.5, 0.9]]), np.array([True, True, False]), 0.1)
    array([[0.5, 0.5, 0. ]])
    """
    if not temperature > 0:
        raise InputError(f"Expected `temperature` to be above 0, but got {temperature}.")
    if present.all():
        return softmax(similarities / temperature)
    posterior = np.zeros_like(similarities)
    if present.any():
        posterior[:, present] = softmax(similarities[:, present] / temperature)
    return posterior


@_register(
    "image_similarity",
    formula="S_ii = cos(E(x), P_yhat)",
    source=_PAPER,
    judges_given=True,
    without_text=True,
)
def image_similarity(evidence: Evidence) -> ScoreResult:
    """Cosine of the image with the prototype of the predicted class, in [-1, 1].

    A class without shots cannot be verified: its confidence is -1, the lowest there is.
    """
    comparison = compare(evidence)
    prediction, _ = comparison.judged
    return ScoreResult(prediction, comparison.similarity_to(prediction))


@_register(
    "prototype_margin",
    formula="cos(E(x), P_yhat) - max over c != yhat of cos(E(x), P_c)",
    source="a nearest-prototype margin",
    judges_given=True,
    without_text=True,
)
def prototype_margin(evidence: Evidence) -> ScoreResult:
    """How much nearer the predicted class's prototype is than any other, in [-2, 2].

    Above 0 the examples agree with the prediction. A missing prototype counts as cosine -1.
    """
    comparison = compare(evidence)
    prediction = judged_labels(evidence)
    table = comparison.similarities.copy()
    own = pick(table, prediction)
    np.put_along_axis(table, prediction[:, None], NO_PROTOTYPE, axis=1)
    return ScoreResult(prediction, own - table.max(axis=1))


@_register(
    "prototype_posterior",
    formula="softmax(S / T)_yhat",
    source="Snell et al. 2017 (arXiv 1703.05175)",
    judges_given=True,
    without_text=True,
)
def prototype_posterior(evidence: Evidence, *, temperature: float = 0.01) -> ScoreResult:
    """Softmax of the prototype cosines at the predicted class, in [0, 1]; 0 without shots."""
    comparison = compare(evidence)
    prediction = judged_labels(evidence)
    posterior = prototype_softmax(comparison.similarities, comparison.present, temperature)
    return ScoreResult(prediction, pick(posterior, prediction))


@_register(
    "trustvlm",
    formula="max_c p_c + r * cos(E(x), P_yhat)",
    source=_PAPER,
    judges_given=True,
)
def trustvlm(evidence: Evidence, *, weight: float = 1.0, link: str = "softmax") -> ScoreResult:
    """TrustVLM: maximum softmax probability plus `weight` times the image similarity.

    The prediction is the VLM's. `weight` = 0 is MSP. For a predicted class without shots the
    image term is absent, that is 0. `link` is as of `msp`.
    """
    judged = None if link == "softmax" else evidence.judged(link)
    return verified(compare(evidence), weight=weight, judged=judged)


def verified(
    comparison: Comparison,
    weight: float,
    judged: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None,
) -> ScoreResult:
    """Score images by `trustvlm`, from a comparison with any prototypes.

    `judged` gives labels and their text probabilities where they are not the softmax's.
    """
    prediction, probability = comparison.judged if judged is None else judged
    similarity = np.where(comparison.present[prediction], comparison.similarity_to(prediction), 0.0)
    return ScoreResult(prediction, probability + weight * similarity)


FEWEST_SHOTS = 4
"""From how many shots a class on `trustvlm_star` lowered the accuracy on no set.

Measured on images of the train parts that were not drawn, of four sets with real CLIP ViT-B/32 and
nine with the offline models: accuracy minus the VLM's was down to -12.8 points at one shot, -4.5 at
two, -0.4 at three, and +0.0 or more from four on (`benchmarks/few_shot_corrections.py`).
"""
_HARMED = ("trustvlm_star", "trustvlm_star_f")


def harm_of_few_shots(score: str, shots: int) -> str:
    """Say that a score may spoil more labels than it corrects with so few shots; "" if not.

    Parameters
    ----------
    score
        A name.
    shots
        Per class.

    Examples
    --------
    >>> harm_of_few_shots("trustvlm_star", 4), harm_of_few_shots("auto_star", 1)
    ('', '')
    >>> harm_of_few_shots("trustvlm_star", 1)[:47]
    'with 1 example image per class the score trustv'
    """
    if score not in _HARMED or not 0 < shots < FEWEST_SHOTS:
        return ""
    return (
        f"with {counted(shots, 'example image')} per class the score {score} may spoil more labels "
        f"than it corrects: with fewer than {FEWEST_SHOTS} it was right less often than the VLM "
        "itself with real CLIP, by up to 13 points at one. Use auto_star, or more examples"
    )


@_register(
    "trustvlm_star",
    formula="max q + r * cos(E(x), P_yhat), q = softmax(z) + r * softmax(S/T), yhat = argmax q",
    source=_PAPER,
    corrects=True,
)
def trustvlm_star(
    evidence: Evidence, *, weight: float = 1.0, temperature: float = 0.01
) -> ScoreResult:
    """TrustVLM*: the examples also vote on the label, then verify it.

    `weight` = 0 gives MSP's predictions and confidences. Classes without shots get no vote from
    the examples and no image term. With fewer than four shots a class it can be right less often
    than the VLM; `auto_star` is then the better choice.
    """
    return joined(
        [
            voted(part, prototype_softmax(part.similarities, part.present, temperature), weight)
            for part in compare(evidence).parts()
        ]
    )


def voted(comparison: Comparison, votes: NDArray[np.float64], weight: float) -> ScoreResult:
    """Score images by `trustvlm_star`, from a comparison and its `(n, C)` prototype softmax."""
    if not weight or not comparison.present.any():
        # Softmax can round distinct logits to equal values; without image votes the logits decide.
        return ScoreResult(*comparison.judged)
    q = weight * votes
    q += comparison.probabilities
    prediction = q.argmax(axis=1)
    own = pick(comparison.table, prediction).astype(np.float64)
    similarity = np.where(comparison.present[prediction], own, 0.0)
    return ScoreResult(prediction, pick(q, prediction) + weight * similarity)


# Many settings of weight and temperature on the same images, at the cost of few.

Setting = tuple[float, float | None]


def sweep(
    name: str,
    evidence: Evidence,
    *,
    weights: Iterable[float] = (1.0,),
    temperatures: Iterable[float] = (0.01,),
) -> Iterator[tuple[Setting, ScoreResult]]:
    """Yield (weight, temperature) and the result of `trustvlm` or `trustvlm_star` for each pair.

    Cosines and softmax are computed once, the prototype softmax once a temperature. This shows how
    much settings matter. To choose one, use images that are not tested: `TrustVLM.fit(select=...)`.

    Parameters
    ----------
    name
        `trustvlm`, whose temperature is None, or `trustvlm_star`.
    evidence
        With `features` and `bank`, of n images.
    weights, temperatures
        The values of each.

    Raises
    ------
    InputError
        For another score, or a temperature that is not above 0.
    EvidenceMissingError
        If features or prototypes are not there.

    Examples
    --------
    >>> images = Evidence.of(logits=[[0.0, 0.0]], features=[[1.0, 0.0]],
    ...                      support_features=[[1.0, 0.0]], support_labels=[0])
    >>> [(setting, result.confidence.tolist())
    ...  for setting, result in sweep("trustvlm", images, weights=(0.0, 1.0))]
    [((0.0, None), [0.5]), ((1.0, None), [1.5])]
    """
    evidence.demand(get(name).needs, by=name)
    yield from sweep_comparison(name, compare(evidence), weights, temperatures)


def sweep_comparison(
    name: str, comparison: Comparison, weights: Iterable[float], temperatures: Iterable[float]
) -> Iterator[tuple[Setting, ScoreResult]]:
    """Sweep over a comparison that has been made already, such as that of held-out shots."""
    weights = tuple(weights)
    if name == "trustvlm":
        for weight in weights:
            yield (weight, None), verified(comparison, weight=weight)
    elif name == "trustvlm_star":
        for temperature in temperatures:
            votes = prototype_softmax(comparison.similarities, comparison.present, temperature)
            for weight in weights:
                yield (weight, temperature), voted(comparison, votes, weight=weight)
    else:
        raise InputError(f"Expected `trustvlm` or `trustvlm_star` to sweep, but got `{name}`.")
