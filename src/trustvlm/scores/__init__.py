"""Evidence in, confidence out: prototypes and every confidence score, on NumPy arrays.

>>> from trustvlm import scores
>>> scores.compute("msp", logits=[[2.0, 0.0]]).confidence.round(4)
array([0.8808])
"""

# These modules, and those that they build on, register their scores.
from trustvlm.scores import (  # noqa: F401
    adaptation,
    auto,
    finetuning,
    gaussians,
    neighbours,
    transductive,
    zero_shot_adaptation,
)
from trustvlm.scores.arrays import zero_shot_logits
from trustvlm.scores.compute import (
    PreparedScore,
    Score,
    ScoreResult,
    apply,
    canonical_name,
    check_parameters,
    compute,
    compute_embedded,
    get,
    names,
    prepare,
    register,
    unregister,
)
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.few_shot import draw_shots
from trustvlm.scores.prototype_scores import sweep
from trustvlm.scores.prototypes import PrototypeBank

__all__ = [
    "Evidence",
    "PreparedScore",
    "PrototypeBank",
    "Score",
    "ScoreResult",
    "apply",
    "canonical_name",
    "check_parameters",
    "compute",
    "compute_embedded",
    "draw_shots",
    "get",
    "names",
    "prepare",
    "register",
    "sweep",
    "unregister",
    "zero_shot_logits",
]
