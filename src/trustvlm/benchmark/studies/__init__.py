"""Studies that reviewers ask for, each one question with its figure and its table."""

from __future__ import annotations

from trustvlm.benchmark.studies.comparisons import ENCODERS, GAIN, MODALITIES, SHOTS
from trustvlm.benchmark.studies.missing import MISSING
from trustvlm.benchmark.studies.sensitivity import SENSITIVITY
from trustvlm.benchmark.studies.shift import SHIFT
from trustvlm.benchmark.studies.study import Plan, Study

__all__ = ["STUDIES", "Plan", "Study"]

STUDIES: dict[str, Study] = {
    study.name: study for study in (MODALITIES, SHOTS, SENSITIVITY, ENCODERS, SHIFT, MISSING, GAIN)
}
