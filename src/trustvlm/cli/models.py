"""`trustvlm models`: every model that has a short name."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from trustvlm.cli.options import Plugins, load_plugins

_ROLES = {"vlm": "--vlm", "vision": "--vision", "both": "--vlm, --vision"}


EPILOG = "Example:  trustvlm models"


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    plugins: Plugins = None,
) -> None:
    """List the models that have a short name, and how to name any other.

    `--vlm` names the model that predicts, `--vision` the encoder that verifies.
    """
    from trustvlm.models import backends, presets
    from trustvlm.plugins import origin

    load_plugins(plugins)
    if as_json:
        typer.echo(json.dumps([asdict(preset) for preset in presets()], indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("name", "for", "what", "needs"):
        table.add_column(column, overflow="fold")
    for preset in presets():
        table.add_row(preset.name, _ROLES[preset.role], preset.about, _extra(preset.extra))
    patterns: dict[str, list[str]] = {}
    for backend in backends():
        role = "both" if len(backend.roles) > 1 else backend.roles[0]
        if origin(backend.load):
            pattern = escape(backend.pattern)
            table.add_row(pattern, _ROLES[role], escape(backend.summary), _extra(backend.extra))
        elif backend.form:
            patterns.setdefault(role, []).append(backend.pattern)
    Console().print(table)
    typer.echo(
        f"\nBesides: {', '.join(patterns['both'])}, and for --vision also "
        f"{', '.join(patterns['vision'])}; #cls after a vision model takes its class token instead "
        "of the mean over all tokens."
    )


def _extra(name: str) -> str:
    return f"trustvlm\\[{name}]" if name else ""
