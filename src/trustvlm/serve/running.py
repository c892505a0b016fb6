"""Run the service until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from trustvlm.extras import require
from trustvlm.serve.settings import Settings

__all__ = ["run"]


def run(models: Sequence[Path], settings: Settings) -> None:
    """Load the models and serve them; returns after a signal to stop, when all is answered.

    Parameters
    ----------
    models
        `.trust` directories.
    settings
        The configuration.

    Raises
    ------
    MissingExtraError
        If the extra `serve` is not installed.
    InputError, ArtefactError
        If two models have one name, or an artefact is damaged or does not fit.
    """
    for module in ("fastapi", "python_multipart", "prometheus_client"):
        require(module, extra="serve", purpose="trustvlm serve")
    uvicorn = require("uvicorn", extra="serve", purpose="trustvlm serve")
    from trustvlm.serve.app import create_app
    from trustvlm.serve.context import Context
    from trustvlm.serve.logs import Log
    from trustvlm.serve.shelf import Shelf, names_of
    from trustvlm.serve.telemetry import Telemetry

    telemetry, log = Telemetry(), Log()
    shelf = Shelf(names_of(models), settings, telemetry)
    app = create_app(Context(settings, shelf, telemetry, log))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
            h11_max_incomplete_event_size=64 * 1024,
            timeout_keep_alive=15,
        )
    )
    # uvicorn sends itself the signal again when all is answered; that would hide how it went.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
    log.event("starting", models=list(shelf.names), host=settings.host, port=settings.port)
    server.run()
    log.event("stopped")
