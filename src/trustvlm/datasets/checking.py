"""Which of the sets are on a disk, and whether they are as published."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trustvlm.datasets.catalogue import CATALOGUE
from trustvlm.datasets.deviations import deviations
from trustvlm.datasets.locating import absent, checked_folder, find_folder
from trustvlm.datasets.reading import read_split
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError

__all__ = ["DatasetStatus", "State", "status"]

State = Literal["complete", "counts differ", "partial", "absent"]


@dataclass(frozen=True)
class DatasetStatus:
    """How much of one set is there.

    Attributes
    ----------
    name
        Name of the set.
    state
        "complete": as published. "counts differ": nothing that is named is missing, but there are
        more or fewer images or classes. "partial": a file, folder or split is missing. "absent".
    folder
        Where it is; None if absent.
    counts
        Images found in each split; None for a split that cannot be read.
    details
        What is missing or differs, as sentences.
    """

    name: str
    state: State
    folder: Path | None
    counts: Mapping[Split, int | None]
    details: tuple[str, ...] = ()


def status(
    root: str | os.PathLike[str],
    *,
    splits_dir: str | os.PathLike[str] | None = None,
    specs: Iterable[DatasetSpec] = CATALOGUE,
) -> list[DatasetStatus]:
    """Look for every set under a folder; folders are listed, images are not opened.

    Parameters
    ----------
    root
        The folder above the sets.
    splits_dir
        Where `split_zhou_*.json` lie, if not in the folders of the sets.
    specs
        Which sets to look for.

    Raises
    ------
    InputError
        If `root` or `splits_dir` is no folder.

    Examples
    --------
    >>> import tempfile
    >>> {found.state for found in status(tempfile.mkdtemp())}
    {'absent'}
    """
    top = checked_folder(root, "root")
    splits = None if splits_dir is None else checked_folder(splits_dir, "splits_dir")
    return [_status(spec, top, splits) for spec in specs]


def _status(spec: DatasetSpec, root: Path, splits_dir: Path | None) -> DatasetStatus:
    folder = find_folder(spec, root)
    if folder is None:
        return DatasetStatus(
            spec.name, "absent", None, dict.fromkeys(spec.splits), (str(absent(spec, root)),)
        )
    counts: dict[Split, int | None] = {}
    details: list[str] = []
    partial = False
    for split in spec.splits:
        try:
            _, listing = read_split(spec, root, split, splits_dir)
        except InputError as error:
            partial = True
            counts[split] = None
            details.append(str(error))
            continue
        partial = partial or bool(listing.missing)
        counts[split] = len(listing.images)
        found = deviations(spec, split, listing)
        details += [f"{split}: {'; '.join(found)}."] if found else []
    state: State = "partial" if partial else "counts differ" if details else "complete"
    # What is wrong with a file that all splits share is said once.
    return DatasetStatus(spec.name, state, folder, counts, tuple(dict.fromkeys(details)))
