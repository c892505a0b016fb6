"""Evidence in, confidence out: prototypes and every confidence score, on NumPy arrays.

>>> from trustvlm import scores
>>> scores.compute("msp", logits=[[2.0, 0.0]]).confidence.round(4)
array([0.8808])
"""

from __future__ import annotations

from trustvlm.scores import (
    adapted,
    auto,
    finetuning,
    gaussians,
    neighbours,
    text,
    unlabelled,
    visual,
)
from trustvlm.scores.computing import PreparedScore, apply, check_parameters, compute, prepare
from trustvlm.scores.embedded import compute_embedded
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.prototypes import PrototypeBank
from trustvlm.scores.registry import Score, ScoreResult, get, names, register, unregister
from trustvlm.scores.sweeping import sweep
from trustvlm.scores.zero_shot import zero_shot_logits

__all__ = [
    "Evidence",
    "PreparedScore",
    "PrototypeBank",
    "Score",
    "ScoreResult",
    "adapted",
    "apply",
    "auto",
    "check_parameters",
    "compute",
    "compute_embedded",
    "finetuning",
    "gaussians",
    "get",
    "names",
    "neighbours",
    "prepare",
    "register",
    "sweep",
    "text",
    "unlabelled",
    "unregister",
    "visual",
    "zero_shot_logits",
]
