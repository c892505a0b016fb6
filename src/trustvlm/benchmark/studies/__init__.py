"""Studies that reviewers ask for, each one question with its figure and its table."""

from __future__ import annotations

from trustvlm.benchmark.studies.comparisons import (
    EncodersStudy,
    GainStudy,
    ModalitiesStudy,
    SensitivityStudy,
)
from trustvlm.benchmark.studies.shots import MissingStudy, ShiftStudy, ShotsStudy
from trustvlm.benchmark.studies.study import Study, StudySettings

__all__ = ["STUDIES", "Study", "StudySettings"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        *(ModalitiesStudy(), ShotsStudy(), SensitivityStudy(), EncodersStudy()),
        *(ShiftStudy(), MissingStudy(), GainStudy()),
    )
}
