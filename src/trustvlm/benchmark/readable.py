"""Names that every format can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["readable", "with_readable_keys", "with_readable_names"]

_Value = TypeVar("_Value")


def readable(text: str) -> str:
    r"""Replace what UTF-8 cannot hold: Python's marks for file names in other encodings.

    Examples
    --------
    >>> readable("caf\udce9")
    'caf?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def with_readable_names(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows whose texts are readable; those that are stay the same objects."""
    return [
        row
        if all(readable(value) == value for value in row.values() if isinstance(value, str))
        else {
            key: readable(value) if isinstance(value, str) else value for key, value in row.items()
        }
        for row in rows
    ]


def with_readable_keys(mapping: Mapping[Any, _Value]) -> dict[Any, _Value]:
    """Return a mapping whose keys, texts or tuples that begin with texts, are readable."""

    def clean(key: Any) -> Any:
        if isinstance(key, str):
            return readable(key)
        return tuple(map(clean, key)) if isinstance(key, tuple) else key

    return {clean(key): value for key, value in mapping.items()}
