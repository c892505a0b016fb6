"""`/v1/predict` and `/v1/model`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from trustvlm.pipeline.verdicts import error_verdict
from trustvlm.serve.answers import answers
from trustvlm.serve.context import Context, context_of
from trustvlm.serve.errors import overloaded
from trustvlm.serve.schemas import ModelAnswer, PredictAnswer, VerdictAnswer, predict_body
from trustvlm.serve.serving import Judged
from trustvlm.serve.uploads import Upload, read_uploads

__all__ = ["ModelName", "judge_uploads", "router", "verdict_answer"]

router = APIRouter()
ModelName = Annotated[
    str | None, Query(description="Which model; the first one by default.", max_length=255)
]


@router.post(
    "/v1/predict",
    response_model=PredictAnswer,
    responses=answers(400, 401, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": predict_body()},
)
async def predict(request: Request, model: ModelName = None) -> dict[str, Any]:
    """Label images and say how far each label can be trusted.

    One verdict per image, in order. An image that cannot be used has a verdict that says why; the
    others are answered all the same.
    """
    context = context_of(request)
    name = context.shelf[model].name
    uploads = await read_uploads(request, max_images=context.settings.max_images)
    results = await judge_uploads(context, name, uploads)
    return {"model": name, "verdicts": [verdict_answer(result) for result in results]}


@router.get("/v1/model", response_model=ModelAnswer, responses=answers(401, 404, 422))
async def model_facts(request: Request, model: ModelName = None) -> dict[str, Any]:
    """Describe a model: its classes, encoders, and what its decisions rest on."""
    return context_of(request).shelf[model].describe()


@router.get("/v1/models", response_model=list[str], responses=answers(401))
async def model_names(request: Request) -> list[str]:
    """List the models; the first one answers where none is named."""
    return list(context_of(request).shelf.names)


async def judge_uploads(context: Context, name: str, uploads: Sequence[Upload]) -> list[Judged]:
    """Judge uploads in one batch with those of others; what could not be read has its error.

    Raises
    ------
    ServiceError
        If the queue is full (429) or the time is over (503).
    """
    images = [upload.image for upload in uploads if not upload.error]
    seconds = context.settings.request_seconds
    found: list[Judged] = []
    if images:
        answer = context.shelf.submit(name, images, timeout=seconds)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(answer), seconds)
        except TimeoutError:
            raise overloaded(
                "timeout", "The model did not come to it in time.", status=503, seconds=5
            ) from None
    judged = iter(found)
    results = []
    for upload in uploads:
        if upload.error:
            context.telemetry.failed("not_base64")
            verdict = error_verdict(upload.image.path, ValueError(upload.error))
            results.append(Judged(verdict, "", "not_base64"))
        else:
            results.append(next(judged))
    return results


def verdict_answer(result: Judged) -> dict[str, Any]:
    """Return a verdict as it goes over the wire."""
    answer = {**result.verdict.to_row(), "image": result.digest, "kind": result.kind}
    return VerdictAnswer.model_validate(answer).model_dump()
