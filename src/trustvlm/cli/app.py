"""The command `trustvlm`: its sub-commands, and where errors become exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from trustvlm._version import __version__
from trustvlm.cli import (
    advise,
    bench,
    cache,
    calibrate,
    choices,
    corrections,
    crossvalidate,
    demo,
    evaluate,
    fit,
    label,
    monitor,
    predict,
    report,
    serve,
)
from trustvlm.cli.console import print_error, show_warnings_plainly
from trustvlm.exceptions import TrustVLMError

app = typer.Typer(
    name="trustvlm",
    help=(
        "Label images with a vision-language model, and learn which labels can be trusted.\n\n"
        "A CLIP-like model names any image, and is often confidently wrong. trustvlm checks each "
        "label against example images of that class, seen by a second vision encoder, and reports "
        "how far the label can be trusted, whether to accept or review it, and why."
    ),
    epilog=(
        "Start with:  trustvlm demo\n\n"
        "Then, with your own pictures:  trustvlm fit shots/ -o my.trust  and  "
        "trustvlm predict my.trust photos/ -o out.csv\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs failed, "
        "4 drift: images unlike those that the model was made for (predict, monitor)."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (
    demo,
    label,
    fit,
    calibrate,
    predict,
    evaluate,
    crossvalidate,
    advise,
    monitor,
    serve,
    corrections,
):
    if module is serve:
        # Its options come from the service's settings.
        serve.add_to(app)
        continue
    command = module.__name__.rpartition(".")[2]
    app.command(epilog=module.EPILOG)(getattr(module, command))
for name, epilog in choices.EPILOGS.items():
    app.command(epilog=epilog)(getattr(choices, name))
app.add_typer(report.app, name="report")
app.add_typer(bench.app, name="bench")
app.add_typer(cache.app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trustvlm {__version__}")
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


def main() -> None:
    """Run the command line; every error ends as one message and an exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or bool(os.environ.get("TRUSTVLM_DEBUG"))
    show_warnings_plainly()
    try:
        app([argument for argument in arguments if argument != "--debug"])
    except TrustVLMError as error:
        if debug:
            traceback.print_exc()
        print_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        print_error(
            "interrupted. What has been embedded so far is kept: run the same command again and "
            "it continues from there."
        )
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print_error(
            f"something unexpected went wrong ({type(error).__name__}: {error}). "
            "Run again with --debug to see where, and please report it."
        )
        sys.exit(1)
