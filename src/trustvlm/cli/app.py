"""The command `trustvlm` and its sub-commands."""

from __future__ import annotations

from functools import cache as cached
from typing import Annotated, Any

import typer

from trustvlm._version import __version__
from trustvlm.cli import (
    advise,
    bench,
    cache,
    calibrate,
    choices,
    classes,
    corrections,
    crossvalidate,
    demo,
    evaluate,
    export,
    fit,
    label,
    models,
    monitor,
    predict,
    report,
    serve,
    update,
    verify,
)
from trustvlm.cli.console import say
from trustvlm.cli.options import OutputCommand, PlainCommand, PlainGroup, with_groups

app = typer.Typer(
    name="trustvlm",
    cls=PlainGroup,
    help=(
        "Label images with a vision-language model, and learn which labels can be trusted.\n\n"
        "A CLIP-like model labels images with class names, and is often confidently wrong. "
        "trustvlm checks each label against example images of that class, seen by a second "
        "vision encoder, and reports how far the label can be trusted, whether to accept or "
        "review it, and why."
    ),
    epilog=(
        "Start with:  trustvlm demo\n\n"
        "Then, with your own pictures:  trustvlm fit shots/ -o my.trust  and  "
        "trustvlm predict my.trust photos/ -o out.csv\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs failed, "
        "4 drift: images unlike those that the model was made for (predict, verify, monitor)."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_IMPROVE, _COMPARE = "Measure and improve a model", "Scores, data sets, models and what is stored"
for panel, modules in {
    None: (demo, label, fit, calibrate, predict, verify, serve),
    _IMPROVE: (evaluate, crossvalidate, advise, monitor, export, corrections, update),
}.items():
    for module in modules:
        if module is serve:
            # Its options come from the service's settings.
            serve.add_to(app)
            continue
        command = with_groups(getattr(module, module.__name__.rpartition(".")[2]))
        app.command(epilog=module.EPILOG, cls=OutputCommand, rich_help_panel=panel)(command)
app.add_typer(classes.app, name="classes", rich_help_panel=_IMPROVE)
app.add_typer(report.app, name="report", rich_help_panel=_IMPROVE)
app.add_typer(bench.app, name="bench", rich_help_panel=_COMPARE)
for name, epilog in choices.EPILOGS.items():
    app.command(epilog=epilog, cls=PlainCommand, rich_help_panel=_COMPARE)(getattr(choices, name))
app.add_typer(models.app, name="models", rich_help_panel=_COMPARE)
app.add_typer(cache.app, name="cache", rich_help_panel=_COMPARE)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"trustvlm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; works after a sub-command as well.")
    ] = False,
) -> None:
    pass


@cached
def command_line() -> Any:
    """Return what runs a list of arguments; it takes a tenth of a second to make."""
    return typer.main.get_command(app)
