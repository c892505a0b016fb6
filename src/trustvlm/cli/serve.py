"""`trustvlm serve`: an HTTP service and a page for reviewing."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from trustvlm.cli.options import Plugins, load_plugins
from trustvlm.serve.settings import Settings, environment_name, flag, setting_fields

EPILOG = "Example:  trustvlm serve pets.trust --port 8000"


def serve(
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

    load_plugins(plugins)
    run(models, Settings(**settings))


def _with_settings() -> None:
    """Give `serve` one option per setting, so that there is one table of them."""
    signature = inspect.signature(serve, eval_str=True)
    parameters = [signature.parameters["models"], signature.parameters["plugins"]]
    types = {"str": str, "int": int, "float": float}
    annotations: dict[str, Any] = {parameter.name: parameter.annotation for parameter in parameters}
    annotations["return"] = None
    for setting in setting_fields():
        option = typer.Option(
            flag(setting.name),
            envvar=environment_name(setting.name),
            help=setting.metadata["help"],
            show_envvar=False,
        )
        annotation: Any = Annotated[types[str(setting.type)], option]
        annotations[setting.name] = annotation
        parameters.append(
            inspect.Parameter(
                setting.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=setting.default,
                annotation=annotation,
            )
        )
    serve.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = annotations


_with_settings()
