"""Updating a model over HTTP: start, progress, comparison, and the switch or its refusal."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from trustvlm.serve import schemas
from trustvlm.serve.context import Context, context_of
from trustvlm.serve.predictions import ModelName
from trustvlm.serve.responses import error_responses
from trustvlm.serve.served_model import ServedModel
from trustvlm.serve.update_job import command_of

router = APIRouter(responses=error_responses(401, 404, 421, 422, 503, 507))
Service = Annotated[Context, Depends(context_of)]


@router.get("/v1/update", response_model=schemas.UpdateAnswer)
async def progress(context: Service, model: ModelName = None) -> dict[str, Any]:
    """Return how far the update of a model is, and the comparison once it is there."""
    return _status(context, context.models[model])


@router.post(
    "/v1/update",
    response_model=schemas.UpdateAnswer,
    status_code=202,
    responses=error_responses(403, 409),
)
async def start(context: Service, model: ModelName = None) -> dict[str, Any]:
    """Learn from the answers that there are; the model in service stays until the switch.

    One update runs at a time. What `trustvlm update` would write is held in memory.
    """
    served = context.models[model]
    await asyncio.to_thread(context.updates.start, served, context.feedback)
    context.log.event("update_started", model=served.name)
    return _status(context, served)


@router.post(
    "/v1/update/switch",
    response_model=schemas.UpdateAnswer,
    responses=error_responses(403, 409),
)
async def switch(
    context: Service,
    model: ModelName = None,
    even_if_worse: Annotated[
        bool, Query(description="Also where the comparison is significantly worse.")
    ] = False,
) -> dict[str, Any]:
    """Serve the new model, written in the place of the old one, of which a copy is kept beside it.

    No request is lost. If it cannot be written, the answer is 409 and the old one stays in service.
    """
    served = context.models[model]
    status = await asyncio.to_thread(
        context.updates.switch, served, context.models.reload, even_if_worse=even_if_worse
    )
    context.log.event("update_switched", model=served.name, kept=status.kept)
    return _status(context, served)


@router.delete("/v1/update", response_model=schemas.UpdateAnswer, responses=error_responses(403))
async def end(context: Service, model: ModelName = None) -> dict[str, Any]:
    """Cancel the update that runs, or discard its result."""
    served = context.models[model]
    await asyncio.to_thread(context.updates.end, served.name)
    return _status(context, served)


def _status(context: Context, served: ServedModel) -> dict[str, Any]:
    status = context.updates.status(served.name)
    return {
        "model": served.name,
        **{name: getattr(status, name) for name in ("state", "done", "total", "message", "kept")},
        "seconds": round(status.seconds, 3),
        "command": command_of(served, context.feedback),
        "result": None if status.report is None else status.report.to_dict(),
    }
