"""Run the service until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from trustvlm.extras import require
from trustvlm.serve.settings import Settings

__all__ = ["feedback_path", "run"]


def feedback_path(models: Sequence[Path], settings: Settings) -> Path:
    """Return where images and answers are kept: next to the first model, unless told otherwise.

    Examples
    --------
    >>> feedback_path([Path("models/pets.trust")], Settings()).as_posix()
    'models/pets.feedback.sqlite'
    """
    if settings.feedback:
        return Path(settings.feedback)
    first = models[0]
    return first.with_name(f"{first.name.removesuffix('.trust')}.feedback.sqlite")


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
    from trustvlm.serve.connections import bounded_connections
    from trustvlm.serve.context import Context
    from trustvlm.serve.feedback import FeedbackStore
    from trustvlm.serve.keys import read_keys
    from trustvlm.serve.logs import Log
    from trustvlm.serve.shelf import Shelf, names_of
    from trustvlm.serve.telemetry import Telemetry

    keys, named = read_keys(settings.keys_file), names_of(models)
    feedback = FeedbackStore(
        feedback_path(models, settings), max_bytes=settings.max_kept_mib * 2**20
    )
    telemetry, log = Telemetry(), Log()
    shelf = Shelf(named, settings, telemetry)
    app = create_app(Context(settings, shelf, telemetry, log, keys, feedback))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=bounded_connections(
                head_seconds=settings.head_seconds,
                max_connections=settings.max_connections,
                failed=telemetry.failed,
            ),
            ws="none",
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
    log.event(
        "starting",
        models=list(shelf.names),
        host=settings.host,
        port=settings.port,
        keys=bool(keys),
        feedback=str(feedback.path),
    )
    server.run()
    log.event("stopped")
