"""`trustvlm scores`: every confidence score there is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EPILOG = "Example:  trustvlm scores --json"


def scores(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the confidence scores: what each needs, its formula, and where it is from."""
    from trustvlm.plugins import load_installed
    from trustvlm.scores import get, names

    load_installed()
    entries = [get(name) for name in names()]
    if as_json:
        rows = [
            {
                "name": s.name,
                "needs": list(s.needs),
                "corrects": s.corrects,
                "parameters": dict(s.parameters),
                "formula": s.formula,
                "source": s.source,
                "summary": s.summary,
            }
            for s in entries
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for s in entries:
        settings = ", ".join(f"{k}={v!r}" for k, v in s.parameters.items())
        typer.echo(f"{s.name}" + (f" ({settings})" if settings else ""))
        typer.echo(f"    {s.summary}")
        typer.echo(f"    {s.formula}")
        typer.echo(f"    needs {', '.join(s.needs)}; {s.complexity}; {s.source}\n")
