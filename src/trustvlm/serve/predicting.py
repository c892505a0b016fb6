"""`/v1/predict` and `/v1/model`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from trustvlm.pipeline.verdicts import error_verdict
from trustvlm.serve.answers import answers
from trustvlm.serve.context import Context, context_of
from trustvlm.serve.errors import overloaded
from trustvlm.serve.feedback import KeptImage
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
async def predict(
    request: Request,
    model: ModelName = None,
    explain: Annotated[bool, Query(description="Add the most similar examples.")] = False,
    keep: Annotated[bool, Query(description="Keep the images for the review queue.")] = False,
) -> dict[str, Any]:
    """Label images and say how far each label can be trusted.

    One verdict per image, in order. An image that cannot be used has a verdict that says why; the
    others are answered all the same.
    """
    context = context_of(request)
    name = context.shelf[model].name
    uploads = await read_uploads(request, max_images=context.settings.max_images)
    results = await judge_uploads(context, name, uploads)
    verdicts = [verdict_answer(result, explain=explain or keep) for result in results]
    if keep:
        await asyncio.to_thread(_keep, context, name, uploads, verdicts)
    return {"model": name, "verdicts": verdicts}


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


def verdict_answer(result: Judged, *, explain: bool = False) -> dict[str, Any]:
    """Return a verdict as it goes over the wire, with its most similar examples if asked for."""
    answer: dict[str, Any] = {
        **result.verdict.to_row(),
        "image": result.digest,
        "kind": result.kind,
    }
    if explain and result.look is not None:
        verdict, nearest = result.verdict, result.look.nearest
        for role, label in (("label", verdict.label), ("runner_up", verdict.runner_up)):
            if label in nearest:
                answer[f"{role}_example"] = asdict(nearest[label])
    return VerdictAnswer.model_validate(answer).model_dump()


def _keep(
    context: Context, name: str, uploads: Sequence[Upload], verdicts: Sequence[dict[str, Any]]
) -> None:
    for upload, verdict in zip(uploads, verdicts, strict=True):
        if not verdict["kind"]:
            stored = {**verdict, "kept": True}
            kept = KeptImage(
                verdict["image"], name, upload.image.path, stored, upload.image.content
            )
            verdict["kept"] = context.feedback.keep(kept)
