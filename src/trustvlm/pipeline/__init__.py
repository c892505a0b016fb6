"""The whole way from images to verdicts."""

from __future__ import annotations

from trustvlm.pipeline.advising import advise
from trustvlm.pipeline.evaluation import EvaluationResult
from trustvlm.pipeline.model import TrustVLM
from trustvlm.pipeline.monitoring import monitor
from trustvlm.pipeline.verdicts import Verdict, Verdicts

__all__ = ["EvaluationResult", "TrustVLM", "Verdict", "Verdicts", "advise", "monitor"]
