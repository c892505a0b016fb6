"""Know when a vision-language model's prediction can be trusted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trustvlm._version import __version__

if TYPE_CHECKING:
    from trustvlm import benchmark, datasets, decisions, metrics, models, scores
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.verdict import Verdicts
    from trustvlm.scores import PrototypeBank

__all__ = [
    "PrototypeBank",
    "TrustVLM",
    "Verdicts",
    "__version__",
    "benchmark",
    "datasets",
    "decisions",
    "metrics",
    "models",
    "scores",
]

_ROOMS = ("benchmark", "datasets", "decisions", "metrics", "models", "scores")
_CLASSES = {
    "PrototypeBank": "trustvlm.scores",
    "TrustVLM": "trustvlm.pipeline",
    "Verdicts": "trustvlm.pipeline.verdict",
}


def __getattr__(name: str) -> Any:
    # Nothing is imported before it is used: `import trustvlm` stays instant and free of torch.
    if name in _ROOMS:
        return importlib.import_module(f"trustvlm.{name}")
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'trustvlm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
