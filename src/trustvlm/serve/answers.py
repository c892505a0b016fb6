"""The errors that a path can answer with, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from trustvlm.serve.schemas import ErrorAnswer

__all__ = ["answers"]

_MEANINGS = {
    400: "The request cannot be read.",
    401: "The API key is missing or wrong.",
    403: "The request comes from another site.",
    404: "There is nothing of that name.",
    408: "The body did not arrive in time.",
    409: "That cannot be done in the present state.",
    413: "The body is too large, or has too many images.",
    415: "The body is of a type that is not read.",
    422: "The request has the wrong content.",
    429: "Too much waits already; come back after `Retry-After` seconds.",
    503: "The service is stopping, not ready, or took too long.",
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a path.

    Examples
    --------
    >>> answers(404)[404]["description"]
    'There is nothing of that name.'
    """
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}
