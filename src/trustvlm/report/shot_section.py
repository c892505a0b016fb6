"""The page's section on the example images: the findings with their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trustvlm.report.shot_findings import ShotCase, shot_groups, shot_summary

if TYPE_CHECKING:
    from trustvlm.pipeline.shot_health import ShotHealth

__all__ = ["PicturedCase", "PicturedGroup", "ShotSection", "shot_section"]

_PICTURED, _LISTED = 6, 12


@dataclass(frozen=True)
class PicturedCase:
    """A finding; each picture is its data URI, "" if the file is gone or changed, and its name."""

    text: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PicturedGroup:
    """Findings of one kind, and how many more there are."""

    title: str
    meaning: str
    cases: tuple[PicturedCase, ...]
    left_out: int


@dataclass(frozen=True)
class ShotSection:
    """Everything the section shows."""

    summary: str
    groups: tuple[PicturedGroup, ...]


def shot_section(found: ShotHealth | None) -> ShotSection | None:
    """Gather what the section shows: six findings with pictures of a kind, or twelve without.

    None if nobody looked at the examples.
    """
    if found is None:
        return None
    groups = []
    for group in shot_groups(found):
        most = _PICTURED if group.cases[0].shots else _LISTED
        cases = tuple(_pictured(found, case) for case in group.cases[:most])
        left_out = len(group.cases) - len(cases)
        groups.append(PicturedGroup(group.title, group.meaning, cases, left_out))
    return ShotSection(shot_summary(found), tuple(groups))


def _pictured(found: ShotHealth, case: ShotCase) -> PicturedCase:
    from trustvlm.images.thumbnails import thumbnail

    pictures = []
    for shot in case.shots:
        file = found.file(shot)
        pictures.append(("" if file is None else thumbnail(file), found.paths[shot]))
    return PicturedCase(case.text, tuple(pictures))
