"""Options that several commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trustvlm.exceptions import InputError

__all__ = ["Device", "Draft", "ModelPath", "Precision", "Quiet", "parse_settings", "split_names"]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Draft = Annotated[
    bool, typer.Option("--draft", help="Decode large JPEGs at a reduced size, for speed.")
]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL.trust", help="A directory made by `trustvlm fit`.")
]


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Read `name=value` settings of a score; values are JSON where they can be.

    Examples
    --------
    >>> parse_settings(["weight=0.5"])
    {'weight': 0.5}
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise InputError(f"Expected --set to be NAME=VALUE, but got {setting!r}.")
        try:
            parsed[name.strip()] = json.loads(value)
        except ValueError:
            parsed[name.strip()] = value
    return parsed


def split_names(value: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None.

    Examples
    --------
    >>> split_names("msp, trustvlm")
    ['msp', 'trustvlm']
    """
    if value is None:
        return None
    return [part.strip() for part in value.split(",") if part.strip()]
