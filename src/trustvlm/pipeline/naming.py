"""What a labelled input is called in tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["name_of"]


def name_of(labelled: Any) -> str:
    """Name a labelled input by its folder or file; a bare split name says too little alone.

    Examples
    --------
    >>> name_of("pets/test"), name_of("photos.csv"), name_of(([], []))
    ('pets/test', 'photos', 'labelled')
    """
    if not isinstance(labelled, (str, os.PathLike)):
        return "labelled"
    path = Path(labelled).resolve()
    name = path.name if path.is_dir() else path.stem
    return f"{path.parent.name}/{name}" if name in ("train", "val", "valid", "test") else name
