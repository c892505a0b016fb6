"""What every request passes: limits of bodies and connections, access, and measuring."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from trustvlm.environment import give_back_memory
from trustvlm.serve.context import Context
from trustvlm.serve.hosts import is_foreign, network_of, parse_host
from trustvlm.serve.responses import ServiceError, error_body, overloaded
from trustvlm.serve.settings import offered_key

# What comes of a body after the answer is thrown away for so many seconds and bytes in all, and as
# long as so many bytes come in so many seconds, which a busy machine may need.
_DRAIN_SECONDS, _DRAIN_BYTES = 20.0, 2**28
_DRAIN_STEP_SECONDS, _DRAIN_STEP_BYTES = 5.0, 2**16


async def _refuse(
    error: ServiceError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    failed: Callable[[str], None],
) -> None:
    """Answer a request with an error before its body was read to the end, and count it."""
    failed(error.kind)
    # The connection cannot be used again where the body is not read to the end.
    response = JSONResponse(
        error_body(error.kind, error.message),
        status_code=error.status,
        headers={**error.headers, "Connection": "close"},
    )

    async def send_unfinished(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    # A connection that is closed before all was read is reset, and a client that sees that while it
    # sends never reads the answer. So the answer goes out whole, the rest of the body is thrown
    # away, and only then the connection is closed. A client that waits to be asked for its body
    # (`Expect`) sends none, and one that is too slow is not waited for again.
    await response(scope, receive, send_unfinished)
    if error.status != 408 and "expect" not in Headers(scope=scope):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    """Read a body that nobody wants, to its end or to the bounds on that; TimeoutError if slow."""
    left = _DRAIN_BYTES
    while left > 0:
        until = left - _DRAIN_STEP_BYTES
        async with asyncio.timeout(_DRAIN_STEP_SECONDS):
            while left > until:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


# As what a request is routed: below which prefix, and `HEAD` as `GET` without the body.


@dataclass(eq=False)
class RoutingMiddleware:
    """ASGI middleware for a service behind a prefix, which a proxy may strip or keep.

    Parameters
    ----------
    app
        Who gets the request.
    prefix
        Such as `/trust`; "" for none.
    """

    app: ASGIApp
    _: KW_ONLY
    prefix: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        routed, path = {**scope, "root_path": self.prefix}, scope["path"]
        if self.prefix and path == self.prefix:
            # Without the slash the page's relative addresses would be those of the level above.
            await RedirectResponse(f"{self.prefix}/", 308)(scope, receive, send)
            return
        if not path.startswith(f"{self.prefix}/"):
            routed["path"] = self.prefix + path

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        head = scope["method"] == "HEAD"
        if head:
            routed["method"] = "GET"
        try:
            await self.app(routed, receive, send_head if head else send)
        finally:
            scope["route"] = routed.get("route")  # for the metrics


# Who may ask: with a key, under a name of the service, and from no page of another origin.

_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
# Load balancers ask by whatever name they have, and learn nothing that a page could use.
_HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class AccessMiddleware:
    """ASGI middleware that refuses a request before its body is read.

    Parameters
    ----------
    app
        Who gets the request.
    context
        Configuration, keys and metrics.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app = app
        self.context = context
        self.hosts = context.settings.allowed_hosts
        self.origins = context.settings.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await _refuse(error, scope, receive, send, failed=self.context.telemetry.failed)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        headers, method = Headers(scope=scope), scope["method"]
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        host = parse_host(headers.get("host", ""))
        if path not in _HEALTH_PATHS and not self.hosts.answer(host):
            return ServiceError(
                421,
                "host",
                "The service does not answer under this name: ask by its IP address, or start it "
                "with --hosts NAME.",
            )
        if method not in _SAFE_METHODS and is_foreign(
            headers.get("origin"), host, headers.get("sec-fetch-site", ""), self.origins
        ):
            return ServiceError(
                403,
                "other_site",
                "Pages of other origins may not do this. Start the service with --cors ORIGIN to "
                "let them, also where a proxy replaces the Host header.",
            )
        # Health, the page without any data, and a browser's question before its request.
        open_to_all = path in _OPEN_PATHS or path.startswith("/static/") or method == "OPTIONS"
        if not self.context.keys or open_to_all:
            return None
        if self.context.keys.fit(offered_key(headers)):
            return None
        return ServiceError(
            401,
            "key",
            "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            {"WWW-Authenticate": "Bearer"},
        )


# Request bodies: limited in size, in time, and in what all of them hold together.


# Bytes of a body without images, such as an answer of a person. Such a body is parsed at once, on
# the thread that serves all connections.
_WITHOUT_IMAGES = 2**16
# Bytes of bodies after which the C library is asked to return what it keeps of them, and when.
_KEPT_FREE = 2**22
_GIVE_BACK_SECONDS = 5.0


@dataclass(eq=False)
class BodyLimitMiddleware:
    """ASGI middleware that reads a body whole before anyone looks at it, or refuses it.

    Parameters
    ----------
    app
        Who gets the request.
    max_bytes
        Of one body: 413 beyond it. What is sent elsewhere than to `/v1/predict` holds no images and
        may have 64 KiB at most.
    max_total
        Of all bodies that are held at a time: 429 beyond it.
    seconds
        In which a body has to arrive: 408 beyond it.
    failed
        Called with the kind of every refusal.
    """

    app: ASGIApp
    _: KW_ONLY
    max_bytes: int
    max_total: int
    seconds: float
    failed: Callable[[str], None]
    held: int = field(default=0, init=False)
    _let_go: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                complete = await self._read_into(body, scope, receive)
        except ServiceError as error:
            await _refuse(error, scope, receive, send, failed=self.failed)
        except TimeoutError:
            late = ServiceError(
                408, "slow_body", f"The body did not arrive within {self.seconds:g} seconds."
            )
            await _refuse(late, scope, receive, send, failed=self.failed)
        else:
            if complete:
                await self.app(scope, _replayed(bytes(body), receive), send)
        finally:
            self.held -= len(body)
            self._give_back(len(body))

    def _give_back(self, n_bytes: int) -> None:
        """Return memory to the system now and then, once large bodies were let go of."""
        before, self._let_go = self._let_go, self._let_go + n_bytes
        if before < _KEPT_FREE <= self._let_go:
            # The endpoint that had the body lets go of it meanwhile.
            asyncio.get_running_loop().call_later(_GIVE_BACK_SECONDS, self._give_back_now)

    def _give_back_now(self) -> None:
        self._let_go = 0
        # Waiting for the allocator's locks holds up nobody in a thread of its own.
        threading.Thread(target=give_back_memory, name="trustvlm-memory", daemon=True).start()

    async def _read_into(self, body: bytearray, scope: Scope, receive: Receive) -> bool:
        """Read a body piece by piece; False if the client went away before its end."""
        announced = Headers(scope=scope).get("content-length", "0")
        holds_images = scope["path"].endswith("/v1/predict")
        max_bytes = self.max_bytes if holds_images else min(self.max_bytes, _WITHOUT_IMAGES)
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            piece = message.get("body", b"")
            if len(body) + len(piece) > max_bytes:
                raise _too_large(max_bytes)
            if self.held + len(piece) > self.max_total:
                raise overloaded("memory", "Too many request bodies are held at the moment.")
            self.held += len(piece)
            body += piece
            more = message.get("more_body", False)
        return True


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError(
        413,
        "body_too_large",
        f"A request body may have at most {max_bytes:,} bytes here: send fewer or smaller images "
        "at a time.",
    )


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


# Connections: limited in number, and in how long they may take to say what they want.


def bounded_connections(
    *, head_seconds: float, max_connections: int, failed: Callable[[str], None]
) -> type[asyncio.Protocol]:
    """Return a protocol whose connections cannot be held open by saying nothing.

    uvicorn waits for ever for the first byte of a connection and for the rest of a head that has
    begun. Bodies are limited elsewhere (`BodyLimitMiddleware`), since the application reads them.

    Parameters
    ----------
    head_seconds
        In which the head of a request has to arrive, from the connecting or, on a connection that
        is used again, from the first byte; then the connection is closed.
    max_connections
        Open at a time. One beyond them takes the place of the one that has been open for longest
        without any request; if there is none, that of one that waits for its client, at rest or
        sending a body or reading an answer, of the address with most of them. If that would be its
        own address, or all are at work, it is answered with 503 and closed.
    failed
        Called with the kind of every refusal: `slow_head` or `connections`.

    Returns
    -------
    type
        For `uvicorn.Config(http=...)`.
    """
    bounds = {
        "head_seconds": head_seconds,
        "max_connections": max_connections,
        "failed": staticmethod(failed),
    }
    return type("BoundedConnection", (_BoundedConnection,), bounds)


class _BoundedConnection(H11Protocol):
    head_seconds: float
    max_connections: int
    failed: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._silent_since = 0.0
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._address = network_of((transport.get_extra_info("peername") or ("",))[0])
        if len(self.connections) >= self.max_connections and not self._make_room():
            self._refused = True
            self.failed("connections")
            transport.write(_too_many_connections())
            transport.close()
            return
        super().connection_made(transport)
        self._silent_since = self.loop.time()
        self._await_head()

    def _make_room(self) -> bool:
        """Close the connection that has said nothing for longest, or another; False if none can be.

        What is closed counts as closed at once, since the client that waits for it is here already.
        """
        others = [other for other in self.connections if isinstance(other, _BoundedConnection)]
        silent = [other for other in others if other.silent_since is not None]
        if silent:
            longest = min(silent, key=lambda other: other.silent_since or 0.0)
            self.failed("slow_head")
            longest.transport.close()
        else:
            waiting = [other for other in others if other.waits_for_client]
            by_address = Counter(other._address for other in waiting)
            (most, n), *_ = by_address.most_common(1) or [("", 0)]
            if n <= sum(other._address == self._address for other in others) + 1:
                return False
            longest = next(other for other in waiting if other._address == most)
            self.failed("connections")
            # What it has not read yet would keep it open.
            longest.transport.abort()
        self.connections.discard(longest)
        return True

    @property
    def waits_for_client(self) -> bool:
        """Whether the client has to send or to read something before anything goes on."""
        cycle = self.cycle
        return cycle is not None and (
            cycle.more_body or cycle.response_started or self.flow.write_paused
        )

    @property
    def silent_since(self) -> float | None:
        """When it began to wait for its first request; None if one has come."""
        return self._silent_since if self.cycle is None else None

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


def _too_many_connections() -> bytes:
    message = "Too many connections are open: come back later, or use one of yours again."
    body = json.dumps(error_body("connections", message)).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


# Every request is timed, counted and logged, and every response carries the same safe headers.

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers would then call the page's own origin `null` in some requests.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Anything else a client may write as a method shares one name, or it could fill the memory.
_METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})


@dataclass(eq=False)
class MetricsMiddleware:
    """ASGI middleware around everything else.

    Parameters
    ----------
    app
        Who gets the request.
    context
        Where it is counted and logged.
    """

    app: ASGIApp
    context: Context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 0  # of a client that went away before the response

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The service stops, and the time in which it answers what it has accepted is over.
            if status:
                raise
            error = overloaded("stopping", "The service is stopping.", status=503, seconds=5)
            self.context.telemetry.failed(error.kind)
            response = JSONResponse(
                error_body(error.kind, error.message), error.status, error.headers
            )
            await response(scope, receive, send_with_headers)
        finally:
            seconds = time.monotonic() - begin
            # Paths that do not exist share one name, as methods do.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.context.telemetry.request(method, route, status, seconds)
            self.context.log.event(
                "request", method=method, route=route, status=status, seconds=round(seconds, 4)
            )
