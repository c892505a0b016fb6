"""Every request is timed, counted and logged, and every answer carries the same safe headers."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders

from trustvlm.serve.bodies import App, Message, Receive, Send
from trustvlm.serve.context import Context

__all__ = ["Watched"]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Anything else a client may write as a method shares one name, or it could fill the memory.
_METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})


class Watched:
    """ASGI middleware around everything else.

    Parameters
    ----------
    app
        Who gets the request.
    context
        Where it is counted and logged.
    """

    def __init__(self, app: App, context: Context) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self._note(scope, status, time.monotonic() - begin)

    def _note(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        # So do paths that do not exist. Status 0: the client went away before the answer.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.context.telemetry.request(method, route, status, seconds)
        self.context.log.event(
            "request", method=method, route=route, status=status, seconds=round(seconds, 4)
        )
