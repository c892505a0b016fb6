"""`trustvlm serve`: an HTTP service and a page for reviewing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from trustvlm.cli.options import PlainCommand, Plugins, load_plugins
from trustvlm.environment import require

_MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic_settings")

EPILOG = "Example:  trustvlm serve pets.trust --port 8000"


def serve(
    context: typer.Context,
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.trust", help="One or more made by `trustvlm fit`."),
    ],
    plugins: Plugins = None,
    **settings: Any,
) -> None:
    """Serve models over HTTP: `POST /v1/predict` takes files under the name `images`.

    Every option is also an environment variable. Logs are JSON lines on standard error. Stop it
    with Ctrl-C or SIGTERM: what was accepted is answered first.
    """
    from trustvlm.serve.server import run
    from trustvlm.serve.settings import Settings

    load_plugins(plugins)
    # Options that are not on the command line come from the environment, see `Settings`.
    flags = {
        name: value
        for name, value in settings.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    run(models, Settings(**flags))


def _with_options(fields: Mapping[str, Any]) -> Callable[..., None]:
    """Return `serve` with one option per field of the settings."""

    @functools.wraps(serve)
    def command(**values: Any) -> None:
        serve(**values)

    signature = inspect.signature(serve, eval_str=True)
    parameters = [signature.parameters[name] for name in ("context", "models", "plugins")]
    for name, field in fields.items():
        option = typer.Option(f"--{name.replace('_', '-')}", help=field.description)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[field.annotation, option],
            )
        )
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


class _ServeCommand(typer.core.TyperCommand):
    """Gets its options when it is called: the settings need the extra `serve`."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        for module in _MODULES:
            require(module, extra="serve", purpose="trustvlm serve")
        from trustvlm.serve.settings import Settings

        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(epilog=EPILOG, cls=PlainCommand)(_with_options(Settings.model_fields))
        return typer.main.get_command(app).make_context(*args, **kwargs)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=_ServeCommand, epilog=EPILOG)(_with_options({}))
