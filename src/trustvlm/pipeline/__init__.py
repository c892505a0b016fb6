"""The whole way from images to verdicts."""

from trustvlm.pipeline.evaluate import EvaluationResult
from trustvlm.pipeline.model import TrustVLM
from trustvlm.pipeline.monitor import monitor
from trustvlm.pipeline.settings import settings_of
from trustvlm.pipeline.shot_quality import advise
from trustvlm.pipeline.verdict import Verdict, Verdicts

__all__ = [
    "EvaluationResult",
    "TrustVLM",
    "Verdict",
    "Verdicts",
    "advise",
    "monitor",
    "settings_of",
]
