"""Put the service together and run it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from trustvlm._version import __version__
from trustvlm.environment import require
from trustvlm.serve import predictions, review
from trustvlm.serve.context import Context
from trustvlm.serve.middleware import BoundedBodies, Gate, Watched
from trustvlm.serve.responses import ServiceError, error_body
from trustvlm.serve.settings import Settings

# The page on which people review: static files of this package, and nothing from elsewhere.

router = APIRouter()
_FOLDER = Path(__file__).with_name("static")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(_FOLDER / "index.html", media_type="text/html; charset=utf-8")


def files() -> StaticFiles:
    """Return an application that serves the page's scripts and styles."""
    return StaticFiles(directory=_FOLDER)


# Put the service together.


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
        await asyncio.to_thread(context.shelf.close)
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
    app.include_router(router)
    app.mount("/static", files())
    app.include_router(predictions.health_router, tags=["operation"])
    _answer_errors(app, context)
    app.add_middleware(
        BoundedBodies,
        max_bytes=context.settings.max_body_mib * 2**20,
        max_total=context.settings.max_bodies_mib * 2**20,
        seconds=context.settings.body_seconds,
        failed=context.telemetry.failed,
    )
    app.add_middleware(Gate, context=context)
    if context.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type"],
        )
    app.add_middleware(Watched, context=context)
    return app


def _answer_errors(app: FastAPI, context: Context) -> None:
    def answer(status: int, kind: str, message: str, headers: dict[str, str]) -> Response:
        context.telemetry.failed(kind)
        return JSONResponse(error_body(kind, message), status_code=status, headers=headers)

    @app.exception_handler(ServiceError)
    async def stated(_: Request, error: ServiceError) -> Response:
        return answer(error.status, error.kind, error.message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        return answer(422, "invalid", f"{where}: {first['msg']}.", {})

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        kinds = {404: "not_found", 405: "method_not_allowed"}
        kind = kinds.get(error.status_code, "bad_request")
        return answer(error.status_code, kind, f"{error.detail}.", dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        # What an unforeseen error says may hold anything, so only its type goes out.
        context.log.event("unforeseen", error=type(error).__name__, detail=str(error)[:500])
        return answer(500, "internal", "Something unexpected went wrong; it was logged.", {})


# Run the service until it is told to stop.


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
    from trustvlm.serve.context import Context
    from trustvlm.serve.feedback import FeedbackStore
    from trustvlm.serve.middleware import bounded_connections
    from trustvlm.serve.model_registry import Shelf, names_of
    from trustvlm.serve.settings import read_keys
    from trustvlm.serve.telemetry import Log, Telemetry

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
