"""Scores from the zero-shot logits alone: what the text side says about its own prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.evidence import Evidence
from trustvlm.scores.registry import ScoreResult, register
from trustvlm.scores.zero_shot import log_softmax, softmax

__all__ = ["energy", "entropy", "margin", "maxlogit", "msp", "vlm_prediction"]


def vlm_prediction(evidence: Evidence) -> NDArray[np.int64]:
    """`(n,)` argmax of the logits, the first class where several are equal."""
    prediction: NDArray[np.int64] = evidence.logits.argmax(axis=1)
    return prediction


def _keep(evidence: Evidence, confidence: NDArray[np.float64]) -> ScoreResult:
    return ScoreResult(vlm_prediction(evidence), confidence)


@register("msp", formula="max_c p_c", source="Hendrycks & Gimpel 2017 (arXiv 1610.02136)")
def msp(evidence: Evidence) -> ScoreResult:
    """Maximum softmax probability, in (0, 1]: the paper's image-to-text score S_it."""
    return _keep(evidence, softmax(evidence.logits).max(axis=1))


@register("maxlogit", formula="max_c z_c", source="Hendrycks et al. 2022 (arXiv 1911.11132)")
def maxlogit(evidence: Evidence) -> ScoreResult:
    """Largest logit, in logit units."""
    return _keep(evidence, evidence.logits.max(axis=1).astype(np.float64))


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


@register("margin", formula="p_(1) - p_(2)", source="Scheffer et al. 2001")
def margin(evidence: Evidence) -> ScoreResult:
    """Difference of the two largest probabilities, in [0, 1]; 1 if there is a single class."""
    p = softmax(evidence.logits)
    if p.shape[1] == 1:
        return _keep(evidence, np.ones(len(p)))
    top = np.partition(p, -2, axis=1)[:, -2:]
    return _keep(evidence, top[:, 1] - top[:, 0])
