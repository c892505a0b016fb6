"""Who may ask: with a key, under a known name of the service, and from no other site."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from trustvlm.serve.bodies import App, Receive, Send, drain
from trustvlm.serve.context import Context
from trustvlm.serve.errors import ServiceError, error_body

__all__ = ["Gate"]

_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
_PORT = re.compile(r":\d*$")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Gate:
    """ASGI middleware that refuses a request before its body is read.

    Parameters
    ----------
    app
        Who gets the request.
    context
        Configuration, keys and metrics.
    """

    def __init__(self, app: App, context: Context) -> None:
        self.app = app
        self.context = context
        # A page of another site may call this machine by a name of its own and so pass for the
        # service's page. Where everyone may ask, names must therefore be known.
        local = context.settings.host in _LOOPBACK and not context.keys
        self.hosts = _LOOPBACK | context.settings.names if local else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        self.context.telemetry.failed(refusal.kind)
        await drain(scope, receive)
        response = JSONResponse(
            error_body(refusal.kind, refusal.message),
            status_code=refusal.status,
            headers={**refusal.headers, "Connection": "close"},
        )
        await response(scope, receive, send)

    def _refusal(self, scope: MutableMapping[str, Any]) -> ServiceError | None:
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        host = headers.get("host", b"").decode("latin-1").lower()
        if self.hosts is not None and _PORT.sub("", host) not in self.hosts:
            return ServiceError(
                403, "host", "The service is not known by this name; see --hosts and --host."
            )
        origin = headers.get("origin", b"").decode("latin-1")
        if (
            scope["method"] not in ("GET", "HEAD", "OPTIONS")
            and headers.get("sec-fetch-site", b"") in (b"cross-site", b"same-site")
            and origin not in self.context.settings.origins
        ):
            return ServiceError(
                403, "other_site", "Pages of other sites may not do this; see --cors."
            )
        if not self.context.keys or _open(scope):
            return None
        offered = headers.get("x-api-key", b"").decode("latin-1")
        scheme, _, token = headers.get("authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            offered = token.strip()
        if self.context.keys.fit(offered):
            return None
        return ServiceError(
            401,
            "key",
            "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            {"WWW-Authenticate": "Bearer"},
        )


def _open(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request needs no key: health, the page without any data, a browser's question."""
    path = scope["path"]
    return path in _OPEN_PATHS or path.startswith("/static/") or scope["method"] == "OPTIONS"
