"""Put the service together and run it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from trustvlm._version import __version__
from trustvlm.files import local_path, url_of
from trustvlm.serialization import first_invalid
from trustvlm.serve import middleware, predictions, review, update
from trustvlm.serve.context import Context
from trustvlm.serve.feedback import FeedbackStore, StorageError
from trustvlm.serve.model_registry import ModelRegistry, models_by_name
from trustvlm.serve.responses import ServiceError, error_body
from trustvlm.serve.settings import Keys, Settings, read_keys
from trustvlm.serve.telemetry import Log, Telemetry, logged_as_json

# The page on which people review: static files of this package, and nothing from elsewhere.
_PAGE = Path(__file__).with_name("static")


def create_app(context: Context) -> FastAPI:
    """Return the service as an ASGI application; its models are closed when it shuts down.

    Parameters
    ----------
    context
        Models, configuration, metrics and log.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(context.updates.close)
        await asyncio.to_thread(context.models.close)
        context.feedback.close()

    app = FastAPI(
        title="trustvlm",
        version=__version__,
        summary="Labels for images, and how far each can be trusted.",
        lifespan=lifespan,
        docs_url=None,  # both pages would load scripts from another host
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.context = context
    app.state.ready = None
    app.state.ready_turn = asyncio.Lock()
    app.include_router(predictions.router, tags=["predict"])
    app.include_router(review.router, tags=["review"])
    app.include_router(update.router, tags=["update"])
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_PAGE))
    app.include_router(predictions.health_router, tags=["operation"])
    _answer_errors(app, context)
    app.add_middleware(
        middleware.BodyLimitMiddleware,
        max_bytes=context.settings.max_body_mib * 2**20,
        max_total=context.settings.max_bodies_mib * 2**20,
        seconds=context.settings.body_seconds,
        failed=context.telemetry.failed,
    )
    app.add_middleware(middleware.AccessMiddleware, context=context)
    if context.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(context.settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type"],
        )
    app.add_middleware(middleware.RoutingMiddleware, prefix=context.settings.prefix)
    app.add_middleware(middleware.MetricsMiddleware, context=context)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=context.settings.proxies)
    return app


async def _page() -> FileResponse:
    return FileResponse(_PAGE / "index.html", media_type="text/html; charset=utf-8")


def _answer_errors(app: FastAPI, context: Context) -> None:
    def respond(
        status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        context.telemetry.failed(kind)
        return JSONResponse(error_body(kind, message), status_code=status, headers=headers)

    @app.exception_handler(ServiceError)
    async def stated(_: Request, error: ServiceError) -> Response:
        return respond(error.status, error.kind, error.message, error.headers)

    @app.exception_handler(StorageError)
    async def unstored(_: Request, error: StorageError) -> Response:
        context.log.event("storage", detail=str(error))
        if error.full:
            return respond(507, "storage_full", f"{error} {error.remedy} nothing was stored.")
        return respond(503, "storage", f"{error} Nothing was stored.", {"Retry-After": "5"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        field, fault = first_invalid(error)
        return respond(422, "invalid", f"{field}: {fault}.")

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        kinds = {404: "not_found", 405: "method_not_allowed"}
        kind = kinds.get(error.status_code, "bad_request")
        return respond(error.status_code, kind, f"{error.detail}.", error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        # What an unforeseen error says may hold anything, so only its type goes out.
        context.log.event("unforeseen", error=type(error).__name__, detail=str(error)[:500])
        return respond(500, "internal", "Something unexpected went wrong; it was logged.")


# Run the service until a signal to stop.


def feedback_path(models: Sequence[Path], settings: Settings) -> Path:
    """Return where images and answers are kept: next to the first model by default.

    Where that is in object storage, they are kept in the folder in which the service is started.

    Examples
    --------
    >>> feedback_path([Path("models/pets.trust")], Settings()).as_posix()
    'models/pets.feedback.sqlite'
    """
    if settings.feedback:
        return local_path(settings.feedback, "file")
    first = Path(models[0].name) if url_of(models[0]) else models[0]
    return first.with_name(f"{first.name.removesuffix('.trust')}.feedback.sqlite")


def open_context(models: Sequence[Path], settings: Settings, keys: Keys, log: Log) -> Context:
    """Load the models and open the database of answers.

    Raises
    ------
    InputError, ArtefactError
        If two models have one name, the database cannot be used, or an artefact is damaged or
        does not fit.
    """
    paths, telemetry = models_by_name(models), Telemetry()
    feedback = FeedbackStore(
        feedback_path(models, settings),
        max_bytes=settings.max_kept_mib * 2**20,
        max_answers=settings.max_answers,
    )
    try:
        registry = ModelRegistry(paths, settings, telemetry, feedback.path.parent)
    except BaseException:
        feedback.close()
        raise
    return Context(settings, registry, telemetry, log, keys, feedback)


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
    InputError, ArtefactError
        As `open_context`, or if the API keys are no good or missing where they are needed.
    """
    keys, log = read_keys(settings.keys_file), Log()
    settings.require_keys(keys)
    with logged_as_json(log):
        context = open_context(models, settings, keys, log)
        # Once more: libraries that came with the models have given their loggers handlers.
        with logged_as_json(log):
            _serve(context)


def _serve(context: Context) -> None:
    settings, log = context.settings, context.log
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(context),
            http=middleware.bounded_connections(
                head_seconds=settings.head_seconds,
                max_connections=settings.max_connections,
                failed=context.telemetry.failed,
            ),
            ws="none",
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the application reads them, from proxies that were named
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
        models=list(context.models.names),
        host=settings.host,
        port=settings.port,
        keys=bool(context.keys),
        feedback=str(context.feedback.path),
    )
    server.run()
    log.event("stopped")
