"""Evidence in, confidence out: prototypes and every confidence score, on NumPy arrays.

>>> from trustvlm import scores
>>> scores.compute("msp", logits=[[2.0, 0.0]]).confidence.round(4)
array([0.8808])
"""

from __future__ import annotations

from trustvlm.scores import gaussians, neighbours, text, visual
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.prototypes import PrototypeBank
from trustvlm.scores.registry import (
    Score,
    ScoreResult,
    apply,
    compute,
    get,
    names,
    register,
    unregister,
)
from trustvlm.scores.zero_shot import zero_shot_logits

__all__ = [
    "Evidence",
    "PrototypeBank",
    "Score",
    "ScoreResult",
    "apply",
    "compute",
    "gaussians",
    "get",
    "names",
    "neighbours",
    "register",
    "text",
    "unregister",
    "visual",
    "zero_shot_logits",
]
