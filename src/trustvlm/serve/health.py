"""Whether the process lives, whether it can judge an image, and what it has counted."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from PIL import Image

from trustvlm.images import InMemoryImage
from trustvlm.serve.answers import answers
from trustvlm.serve.context import Context, context_of
from trustvlm.serve.errors import ServiceError
from trustvlm.serve.predicting import judge_uploads
from trustvlm.serve.uploads import Upload

__all__ = ["check_ready", "probe", "router"]

router = APIRouter()
# Whoever asks more often than this gets the last answer, so that asking costs nothing.
_FRESH_SECONDS = 1.0


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses=answers(503))
async def ready(request: Request) -> dict[str, Any]:
    """Send a picture through every model, as a request would go, and say how long it took."""
    state = request.app.state
    async with state.ready_turn:
        known: tuple[float, dict[str, Any]] | None = state.ready
        if known is None or time.monotonic() - known[0] > _FRESH_SECONDS:
            known = state.ready = (time.monotonic(), await check_ready(context_of(request)))
    return known[1]


@router.get("/metrics", response_class=Response, responses=answers(401))
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    context = context_of(request)
    context.telemetry.waiting(context.shelf.waiting)
    return Response(context.telemetry.exposition(), media_type="text/plain; version=0.0.4")


async def check_ready(context: Context) -> dict[str, Any]:
    """Judge one picture with every model.

    Raises
    ------
    ServiceError
        If a model gives no verdict on it (503).
    """
    seconds = {}
    for name in context.shelf.names:
        begin = time.monotonic()
        upload = Upload(InMemoryImage("ready.png", probe(time.time_ns())))
        try:
            (result,) = await judge_uploads(context, name, [upload])
        except ServiceError as error:
            raise ServiceError(503, "not_ready", f"{name}: {error.message}") from error
        if result.kind:
            raise ServiceError(503, "not_ready", f"{name}: {result.verdict.error}")
        seconds[name] = round(time.monotonic() - begin, 4)
    return {"status": "ready", "seconds": seconds}


def probe(seed: int) -> bytes:
    r"""Return a PNG that was never seen before, so that no model answers from memory.

    Examples
    --------
    >>> probe(0)[:4], probe(0) == probe(1)
    (b'\x89PNG', False)
    """
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    content = io.BytesIO()
    coarse.resize((64, 64)).save(content, "PNG")
    return content.getvalue()
