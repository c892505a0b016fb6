"""Raw rows on disk: JSON Lines always, Parquet where pyarrow is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trustvlm.files import atomic_path, write_text

__all__ = ["write_rows"]

_NESTED = ("parameters", "selection", "versions", "fingerprints")


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `rows.jsonl`, and `rows.parquet` if the extra `parquet` is there; return the files.

    In Parquet, nested settings are JSON texts, so that rows of different scores fit one schema.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    files = [folder / "rows.jsonl"]
    write_text(files[0], lines)
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow
        import pyarrow.parquet

        columns = list(dict.fromkeys(key for row in rows for key in row))
        flat = [
            {
                key: json.dumps(row[key]) if key in _NESTED and key in row else row.get(key)
                for key in columns
            }
            for row in rows
        ]
        files.append(folder / "rows.parquet")
        with atomic_path(files[1]) as temporary:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), temporary)
    return files
