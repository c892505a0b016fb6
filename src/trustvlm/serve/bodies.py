"""Request bodies: bounded in size, in time, and in what all of them hold together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.responses import JSONResponse

from trustvlm.serve.errors import ServiceError, error_body, overloaded

__all__ = ["BoundedBodies", "drain"]

_DRAIN_SECONDS = 1.0

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class BoundedBodies:
    """ASGI middleware that reads a body whole before anyone looks at it, or refuses it.

    Parameters
    ----------
    app
        Who gets the request.
    max_bytes
        Of one body: 413 beyond it.
    max_total
        Of all bodies that are held at a time: 429 beyond it.
    seconds
        In which a body has to arrive: 408 beyond it.
    failed
        Called with the kind of every refusal.
    """

    def __init__(
        self,
        app: App,
        *,
        max_bytes: int,
        max_total: int,
        seconds: float,
        failed: Callable[[str], None],
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_total = max_total
        self.seconds = seconds
        self.failed = failed
        self.held = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken = 0
        try:
            try:
                self._check_announced(scope)
                body = bytearray()
                async with asyncio.timeout(self.seconds):
                    while True:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            return
                        piece = message.get("body", b"")
                        if len(body) + len(piece) > self.max_bytes:
                            raise self._too_large()
                        if self.held + len(piece) > self.max_total:
                            raise overloaded(
                                "memory", "Too many request bodies are held at the moment."
                            )
                        self.held += len(piece)
                        taken += len(piece)
                        body += piece
                        if not message.get("more_body", False):
                            break
            except ServiceError as error:
                await self._refuse(error, scope, receive, send)
                return
            except TimeoutError:
                late = ServiceError(
                    408, "slow_body", f"The body did not arrive within {self.seconds:g} seconds."
                )
                await self._refuse(late, scope, receive, send)
                return
            await self.app(scope, _replayed(bytes(body), receive), send)
        finally:
            self.held -= taken

    def _check_announced(self, scope: MutableMapping[str, Any]) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self.max_bytes:
            raise self._too_large()

    def _too_large(self) -> ServiceError:
        return ServiceError(
            413,
            "body_too_large",
            f"A request body may have at most {self.max_bytes:,} bytes: send fewer or smaller "
            "images at a time.",
        )

    async def _refuse(
        self,
        error: ServiceError,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self.failed(error.kind)
        if error.status in (413, 429):
            await drain(scope, receive)
        # Whatever still comes of the body is not read: the connection cannot be used again.
        headers = {**error.headers, "Connection": "close"}
        response = JSONResponse(
            error_body(error.kind, error.message), status_code=error.status, headers=headers
        )
        await response(scope, receive, send)


async def drain(scope: MutableMapping[str, Any], receive: Receive) -> None:
    """Throw away what a client is sending, for a moment.

    A client that is cut off while it sends sees a broken connection instead of the answer. One that
    waits to be asked for its body sees the answer at once.
    """
    if b"expect" in dict(scope["headers"]):
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            more = True
            while more:
                message = await receive()
                more = message["type"] == "http.request" and message.get("more_body", False)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the whole body at once, and then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
