"""Scores from the zero-shot logits alone: what the text side says about its own prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores.arrays import log_softmax, pick, softmax, top_probability, unit_rows
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import Evidence


def judged_labels(evidence: Evidence) -> NDArray[np.int64]:
    """`(n,)` labels that are judged: given ones, else the argmax of the logits, ties to the first.

    Raises
    ------
    EvidenceMissingError
        If there are neither.

    Examples
    --------
    >>> judged_labels(Evidence.of(logits=[[0.0, 2.0]]))
    array([1])
    >>> judged_labels(Evidence.of(logits=[[0.0, 2.0]], given_labels=[0]))
    array([0])
    """
    if evidence.given_labels is not None:
        return evidence.given_labels
    if not evidence.has_text:
        raise EvidenceMissingError("Expected `given_labels` to judge, as there are no logits.")
    prediction: NDArray[np.int64] = evidence.logits.argmax(axis=1)
    return prediction


def _keep(evidence: Evidence, confidence: NDArray[np.float64]) -> ScoreResult:
    return ScoreResult(judged_labels(evidence), confidence)


@register(
    "msp",
    formula="max_c p_c",
    source="Hendrycks & Gimpel 2017 (arXiv 1610.02136)",
    judges_given=True,
)
def msp(evidence: Evidence, *, link: str = "softmax") -> ScoreResult:
    """Maximum softmax probability, in (0, 1]: the paper's image-to-text score S_it.

    With the `link` sigmoid it is the probability, by SigLIP's own loss, that the label's text
    describes the image, whatever the other classes are. The labels are the same.
    """
    return ScoreResult(*evidence.judged(link))


@register(
    "maxlogit",
    formula="max_c z_c",
    source="Hendrycks et al. 2022 (arXiv 1911.11132)",
    judges_given=True,
)
def maxlogit(evidence: Evidence) -> ScoreResult:
    """Largest logit, in logit units."""
    prediction = judged_labels(evidence)
    return ScoreResult(prediction, pick(evidence.logits, prediction).astype(np.float64))


@register("energy", formula="log sum_c exp(z_c)", source="Liu et al. 2020 (arXiv 2010.03759)")
def energy(evidence: Evidence) -> ScoreResult:
    """Negative free energy at temperature 1, in logit units."""
    z = evidence.logits.astype(np.float64)
    top = z.max(axis=1)
    return _keep(evidence, top + np.log(np.exp(z - top[:, None]).sum(axis=1)))


@register("entropy", formula="sum_c p_c log p_c", source="Shannon entropy, negated")
def entropy(evidence: Evidence) -> ScoreResult:
    """Negative entropy of the softmax, in nats: 0 is certain, -log C is uniform."""
    log_p = log_softmax(evidence.logits)
    return _keep(evidence, (np.exp(log_p) * log_p).sum(axis=1))


@register("margin", formula="p_(1) - p_(2)", source="Scheffer et al. 2001", judges_given=True)
def margin(evidence: Evidence, *, link: str = "softmax") -> ScoreResult:
    """Difference of the two largest probabilities, in [0, 1]; 1 if there is a single class.

    Of a given label: its probability less the largest of another class, in [-1, 1]. `link` is as
    of `msp`.
    """
    p = evidence.probabilities(link)
    prediction = judged_labels(evidence)
    if p.shape[1] == 1:
        return ScoreResult(prediction, np.ones(len(p)))
    own = pick(p, prediction)
    np.put_along_axis(p, prediction[:, None], -np.inf, axis=1)
    return ScoreResult(prediction, own - p.max(axis=1))


def _text_cosines(evidence: Evidence, logit_scale: float) -> NDArray[np.float64]:
    """Cosines with the class texts: from the embeddings where they are, else z / s."""
    if evidence.image_embeddings is not None and evidence.text_embeddings is not None:
        texts = unit_rows(evidence.text_embeddings)
        cosines: NDArray[np.float64] = unit_rows(evidence.image_embeddings) @ texts.T
        return cosines
    if not logit_scale > 0:
        raise InputError(f"Expected `logit_scale` to be above 0, but got {logit_scale}.")
    return evidence.logits.astype(np.float64) / logit_scale


@register("maxcosine", formula="max_c cos(image, text_c)", source="Radford et al. 2021")
def maxcosine(evidence: Evidence, *, logit_scale: float = 100.0) -> ScoreResult:
    """Largest cosine of the image with a class text, in [-1, 1].

    Taken from the embeddings where they are passed, else the logits divided by `logit_scale`
    (100 is CLIP's).
    """
    return _keep(evidence, _text_cosines(evidence, logit_scale).max(axis=1))


@register("doctor_alpha", formula="-(1 - sum p^2) / sum p^2", source="Granese et al. 2021")
def doctor_alpha(evidence: Evidence) -> ScoreResult:
    """DOCTOR alpha: negative odds of an error if labels were drawn from p; 0 is certain."""
    p = softmax(evidence.logits)
    # 1 - sum p^2 is summed up from its terms: the difference would round to 0 near certainty.
    rest = p.copy()
    np.put_along_axis(rest, p.argmax(axis=1)[:, None], 0.0, axis=1)
    error = (rest * (1.0 - rest)).sum(axis=1) + p.max(axis=1) * rest.sum(axis=1)
    return _keep(evidence, -error / (p**2).sum(axis=1))


@register("doctor_beta", formula="-(1 - p_(1)) / p_(1)", source="Granese et al. 2021")
def doctor_beta(evidence: Evidence) -> ScoreResult:
    """DOCTOR beta: negative odds that the prediction is wrong; ranks as MSP does."""
    # The rest is summed rather than taken from 1, which would round to 0 near certainty.
    z = evidence.logits.astype(np.float64)
    others = np.exp(z - z.max(axis=1, keepdims=True))
    np.put_along_axis(others, z.argmax(axis=1)[:, None], 0.0, axis=1)
    return _keep(evidence, -others.sum(axis=1))


@register("mcm", formula="max_c softmax(cos / T)_c", source="Ming et al. 2022 (arXiv 2211.13445)")
def mcm(evidence: Evidence, *, temperature: float = 1.0, logit_scale: float = 100.0) -> ScoreResult:
    """Maximum concept matching: MSP of the bare cosines at temperature 1.

    Cosines come from the embeddings where they are passed, else from logits / `logit_scale`.
    """
    if not temperature > 0:
        raise InputError(f"Expected `temperature` to be above 0, but got {temperature}.")
    scaled = _text_cosines(evidence, logit_scale) / temperature
    return _keep(evidence, top_probability(scaled)[1])


@register("gen", formula="-sum over the M largest of p^g (1 - p)^g", source="Liu et al. 2023")
def gen(evidence: Evidence, *, gamma: float = 0.1, top: int = 100) -> ScoreResult:
    """Generalised entropy, negated: 0 is certain. `gamma` is g, `top` is M."""
    if not (0 < gamma < 1 and top >= 1):
        raise InputError(
            f"Expected `gamma` in (0, 1) and `top` of at least 1, but got {gamma} and {top}."
        )
    p = softmax(evidence.logits)
    if p.shape[1] > top:
        p = np.partition(p, -top, axis=1)[:, -top:]
    return _keep(evidence, -(p**gamma * (1.0 - p) ** gamma).sum(axis=1))


@register(
    "pnorm_maxlogit",
    formula="max_c u_c / |u|_p, u = z - mean z",
    source="Cattelan & Silva 2024 (arXiv 2305.15508)",
)
def pnorm_maxlogit(evidence: Evidence, *, p: float = 5.0) -> ScoreResult:
    """Largest centred logit over the p-norm of the centred logits, in [0, 1].

    The paper chooses p on labelled data; here it is fixed. Equal logits have confidence 0.
    """
    if not p > 0:
        raise InputError(f"Expected `p` to be above 0, but got {p}.")
    u = evidence.logits.astype(np.float64)
    u -= u.mean(axis=1, keepdims=True)
    largest = np.abs(u).max(axis=1, keepdims=True)
    u = np.divide(u, largest, out=np.zeros_like(u), where=largest > 0)  # no overflow in u^p
    norms = (np.abs(u) ** p).sum(axis=1) ** (1.0 / p)
    return _keep(evidence, np.divide(u.max(axis=1), norms, out=np.zeros(len(u)), where=norms > 0))
