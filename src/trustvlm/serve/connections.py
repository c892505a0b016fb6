"""Connections: bounded in number, and in how long they may take to say what they want."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from trustvlm.serve.errors import error_body

__all__ = ["bounded_connections"]


def bounded_connections(
    *, head_seconds: float, max_connections: int, failed: Callable[[str], None]
) -> type[asyncio.Protocol]:
    """Return a protocol whose connections cannot be held open by saying nothing.

    uvicorn waits for ever for the first byte of a connection and for the rest of a head that has
    begun. Bodies are bounded elsewhere (`BoundedBodies`), since they are read by the application.

    Parameters
    ----------
    head_seconds
        In which the head of a request has to arrive, from the connecting or, on a connection that
        is used again, from the first byte; then the connection is closed.
    max_connections
        Open at a time: one beyond them is answered with 503 and closed.
    failed
        Called with the kind of every refusal: `slow_head` or `connections`.

    Returns
    -------
    type
        For `uvicorn.Config(http=...)`.
    """

    class BoundedConnection(_Connection):
        pass

    BoundedConnection.head_seconds = head_seconds
    BoundedConnection.max_connections = max_connections
    BoundedConnection.failed = staticmethod(failed)
    return BoundedConnection


class _Connection(H11Protocol):
    head_seconds: float
    max_connections: int
    failed: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.max_connections:
            self._refused = True
            self.failed("connections")
            transport.write(_refusal())
            transport.close()
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_deadline()
        elif self._deadline is None:
            # The next head, or what still comes of a body whose request is already answered.
            self._await_head()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._too_late)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.failed("slow_head")
            self.transport.close()


def _refusal() -> bytes:
    message = "Too many connections are open: come back later, or use one of yours again."
    body = json.dumps(error_body("connections", message)).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
