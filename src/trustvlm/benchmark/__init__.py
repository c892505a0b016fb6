"""Compare confidence scores fairly: the same images, the same shots, named conventions."""

from __future__ import annotations

from trustvlm.benchmark.dataset import ArraySet, load_arrays
from trustvlm.benchmark.run import ROW_KEYS, StudyResult, run_study

__all__ = ["ROW_KEYS", "ArraySet", "StudyResult", "load_arrays", "run_study"]
