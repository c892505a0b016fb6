"""Put the service together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

import trustvlm
from trustvlm.serve import health, page, predicting, reviewing
from trustvlm.serve.access import Gate
from trustvlm.serve.bodies import BoundedBodies
from trustvlm.serve.context import Context
from trustvlm.serve.errors import ServiceError, error_body
from trustvlm.serve.watching import Watched

__all__ = ["create_app"]


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
        version=trustvlm.__version__,
        summary="Labels for images, and how far each can be trusted.",
        lifespan=lifespan,
        docs_url=None,  # both pages would load scripts from another host
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.context = context
    app.state.ready = None
    app.state.ready_turn = asyncio.Lock()
    app.include_router(predicting.router, tags=["predict"])
    app.include_router(reviewing.router, tags=["review"])
    app.include_router(page.router)
    app.mount("/static", page.files())
    app.include_router(health.router, tags=["operation"])
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
