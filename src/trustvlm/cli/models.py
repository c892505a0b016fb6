"""`trustvlm models`: every model that has a short name; `models fetch`: files to carry."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.cli.choices import AsJson, print_json
from trustvlm.cli.console import print_table, say
from trustvlm.cli.options import Plugins, load_plugins

if TYPE_CHECKING:
    from trustvlm.models import Backend

_ROLES = {"vlm": "--vlm", "vision": "--vision", "both": "--vlm, --vision"}


app = typer.Typer(cls=options.PlainGroup, invoke_without_command=True)


@app.callback(epilog="Example:  trustvlm models")
def models(
    context: typer.Context,
    as_json: AsJson = False,
    plugins: Plugins = None,
) -> None:
    """List the models that have a short name, and how to name any other; or fetch one.

    `--vlm` names the model that predicts, `--vision` the encoder that verifies. A model of a hub
    may be followed by @ and a commit, tag or branch, as in hf:openai/clip-vit-base-patch16@main.
    """
    if context.invoked_subcommand is not None:
        return
    from trustvlm.models import backends, presets
    from trustvlm.plugins import origin

    load_plugins(plugins)
    if as_json:
        print_json(
            [
                *(asdict(preset) for preset in presets()),
                *(_outside(backend) for backend in backends() if origin(backend.load)),
            ]
        )
        return
    rows = [
        [
            *(p.name, _ROLES[p.role], f"{p.parameters:,} M" if p.parameters else ""),
            *(p.resolution, str(p.text_length or ""), f"{p.about}; for {p.good_for}"),
            *(p.licence, p.extra),
        ]
        for p in presets()
    ]
    patterns: dict[str, list[str]] = {}
    for backend in backends():
        role = "both" if len(backend.roles) > 1 else backend.roles[0]
        if origin(backend.load):
            name = [backend.pattern, _ROLES[role]]
            rows.append([*name, "", "", "", backend.summary, "", backend.extra])
        elif backend.form:
            patterns.setdefault(role, []).append(backend.pattern)
    columns = ["name", "for", "size", "px", "tokens", "what", "licence", "extra"]
    print_table(columns, rows, numbers=range(2, 5), pipe_width=200)
    say(
        f"\nBesides: {', '.join(patterns['both'])}, and for --vision also "
        f"{', '.join(patterns['vision'])}; #cls after a vision model takes its class token instead "
        "of the mean over all tokens."
    )


def _outside(backend: Backend) -> dict[str, Any]:
    """Return the facts of a backend from outside the package, under the names that presets have."""
    from trustvlm.plugins import origin

    return {
        "name": backend.pattern,
        "role": "both" if len(backend.roles) > 1 else backend.roles[0],
        "spec": backend.pattern,
        "extra": backend.extra,
        "about": backend.summary,
        "plugin": origin(backend.load)["name"],
    }


@app.command(
    cls=options.PlainCommand,
    epilog="Example:  trustvlm models fetch clip-vit-b16 -o models/clip\n\n"
    "On the other machine:  TRUSTVLM_MODELS=models trustvlm predict pets.trust photos/ -o out.csv",
)
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A preset, hf:REPO, openclip:ARCH/TAG, openclip:hf-hub:REPO, timm:NAME or "
            "timm:hf-hub:REPO; @REVISION may follow.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="A new directory, for this model alone."
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION", help="Commit, tag or branch. [default: the latest of the hub]"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the directory holds as JSON.")
    ] = False,
    plugins: Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the files of a model to a directory, for a machine without a network.

    It holds what the model needs and nothing else, and trustvlm-model.json, which says from which
    commit it is, and the SHA-256 of each file. It is there whole or not at all: run the same again
    after an interruption, and files that were complete are not downloaded again.
    """
    from trustvlm.models import fetch_model

    load_plugins(plugins)
    record = fetch_model(name, output, revision=revision)
    if as_json:
        say(json.dumps(record.facts(), indent=2))
        return
    size = sum((output / file).stat().st_size for file in record.sha256)
    console.note(
        f"{output}: {record.repository} at {record.revision}, {len(record.sha256)} files, "
        f"{size / 1e6:,.1f} MB. On the machine that it is carried to, set TRUSTVLM_MODELS to the "
        "folder above it, or to itself.",
        quiet=quiet,
    )
