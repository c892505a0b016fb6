"""`trustvlm models`: every model that has a short name."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

_ROLES = {"vlm": "--vlm", "vision": "--vision", "both": "--vlm, --vision"}


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models that have a short name, and how to name any other.

    `--vlm` names the model that predicts, `--vision` the encoder that verifies.
    """
    from trustvlm.models import presets

    if as_json:
        typer.echo(json.dumps([asdict(preset) for preset in presets()], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("name", "for", "what", "needs"):
        table.add_column(column, overflow="fold")
    for preset in presets():
        extra = f"trustvlm\\[{preset.extra}]" if preset.extra else ""
        table.add_row(preset.name, _ROLES[preset.role], preset.about, extra)
    Console().print(table)
    typer.echo(
        "\nBesides: hf:<repo or directory>, openclip:<arch>/<weights>, and for --vision also "
        "timm:<name>, onnx:<file>, moco-v2-r50:<file>; #cls after a vision model takes its class "
        "token instead of the mean over all tokens."
    )


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example:  trustvlm models")(models)
