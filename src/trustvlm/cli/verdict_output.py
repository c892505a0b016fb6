"""Write verdicts where the user wants them, and say what they came to."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trustvlm.cli.console import note

if TYPE_CHECKING:
    from trustvlm.pipeline.verdicts import Verdicts

__all__ = ["NOT_CALIBRATED", "say_what_came", "write_verdicts"]

NOT_CALIBRATED = "decisions are uncalibrated: no error rate is promised"


def write_verdicts(verdicts: Verdicts, output: str | Path | None) -> None:
    """Write to a file by its ending, or CSV to standard output."""
    if output is None:
        sys.stdout.write(verdicts.to_csv())
    else:
        verdicts.write(output)


def say_what_came(
    verdicts: Verdicts, remarks: Iterable[str], *, basis: str, quiet: bool = False
) -> None:
    """Count the decisions, and say what they rest on; exit code 3 if some images failed."""
    for remark in remarks:
        note(f"note: {remark}", quiet=quiet)
    counts = verdicts.decisions()
    note(
        f"{len(verdicts)} images: {counts['accept']} accept, {counts['review']} review, "
        f"{counts['error']} error ({basis})",
        quiet=quiet,
    )
    if counts["error"]:
        raise typer.Exit(3)
