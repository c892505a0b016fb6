"""Hashes that tell weights apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

__all__ = ["file_hash", "files_hash", "json_hash"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hex."""
    # The hub's cache names large files by their SHA-256 already.
    target = file.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def files_hash(files: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, the SHA-256 over their names and hashes."""
    if len(files) == 1:
        return file_hash(files[0])
    lines = [f"{file.name} {file_hash(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def json_hash(file: Path, *, without: Collection[str] = ()) -> str:
    """SHA-256 in hex of the values in a JSON file, whatever their order and layout."""
    values = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key not in without}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
