"""Responses to whatever goes wrong with a request, in one JSON shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trustvlm.serve.schemas import ErrorAnswer


class ServiceError(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status
        HTTP status.
    kind
        One word for programs and for the metrics.
    message
        What was wrong and what to do, for people.
    headers
        To send along.
    """

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = dict(headers or {})


def overloaded(kind: str, message: str, *, status: int = 429, seconds: float = 1) -> ServiceError:
    """Return the refusal of a request that may be sent again later.

    Examples
    --------
    >>> overloaded("queue_full", "Too many images wait.", seconds=2.1).headers
    {'Retry-After': '3'}
    """
    return ServiceError(status, kind, message, {"Retry-After": str(max(1, -int(-seconds // 1)))})


def out_of_time() -> ServiceError:
    """Return the refusal of a request that waited for the model too long."""
    message = "The model did not come to it in time."
    return overloaded("timeout", message, status=503, seconds=5)


def error_body(kind: str, message: str) -> dict[str, Any]:
    """Return the JSON body of an error.

    Examples
    --------
    >>> error_body("not_found", "There is nothing here.")
    {'error': {'kind': 'not_found', 'message': 'There is nothing here.'}}
    """
    return {"error": {"kind": kind, "message": message}}


# The errors that a path can answer with, for the OpenAPI document.

_MEANINGS = {
    400: "The request cannot be read.",
    401: "The API key is missing or wrong.",
    403: "The request comes from a page of another origin.",
    404: "There is nothing of that name.",
    408: "The body did not arrive in time.",
    409: "That cannot be done in the present state.",
    413: "The body is too large, or has too many images.",
    415: "The body is of a type that is not read.",
    421: "The service does not answer under the name in `Host`.",
    422: "The request has the wrong content.",
    429: "Too much waits already; come back after `Retry-After` seconds.",
    503: "The service is stopping, not ready, took too long, or cannot store anything.",
    507: "There is no room for what should be stored.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a path.

    Examples
    --------
    >>> error_responses(404)[404]["description"]
    'There is nothing of that name.'
    """
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}
