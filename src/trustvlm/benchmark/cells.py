"""Finished pieces of a study on disk, each named by everything that can change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trustvlm.files import write_text

__all__ = ["cell_file", "read_cell", "write_cell"]


def cell_file(folder: Path, content: Mapping[str, Any]) -> Path:
    """Name the file of a cell by its content: models, images, shots, scores, parameters.

    Examples
    --------
    >>> cell_file(Path("results"), {"shots": 4}).as_posix()
    'results/cells/cc71abf3f57390936ea1.json'
    """
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    return folder / "cells" / f"{key}.json"


def read_cell(file: Path) -> Any:
    """Return the rows of a finished cell."""
    return json.loads(file.read_text(encoding="utf-8"))


def write_cell(file: Path, rows: Any) -> None:
    """Keep the rows of a cell, which is finished from now on."""
    write_text(file, json.dumps(rows, allow_nan=False))
