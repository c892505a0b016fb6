"""What the review page asks for: the queue, answers, pictures, and the risk-coverage curve."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from queue import Full
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Response

from trustvlm import metrics
from trustvlm.embeddings.decoding_pool import PreviewTask
from trustvlm.exceptions import ImageError, InputError, TrustVLMError
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.serve import schemas
from trustvlm.serve.batching import queue_full
from trustvlm.serve.context import Context, client_of, context_of
from trustvlm.serve.feedback import Answer, Recorded, Submission, answers_csv
from trustvlm.serve.predictions import ModelName
from trustvlm.serve.responses import ServiceError, error_responses
from trustvlm.serve.served_model import ServedModel

_MOST_POINTS = 400
# The image on the screen and the next few.
_LEASED = 5


def curve_of(calibration: Calibration | None) -> dict[str, Any] | None:
    """Return what would be accepted at which risk, as plain JSON values; None uncalibrated.

    The risk is what was observed on the calibration images. Only the certified point, if there is
    one, holds for new images; `certified` is None where nothing is certified, or every class has a
    threshold of its own.
    """
    if calibration is None or not len(calibration.labels):
        return None
    curve = metrics.risk_coverage(calibration.result.confidence, calibration.correct)
    n = len(curve.coverage)
    kept = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(int))
    rule = calibration.certificate
    threshold = getattr(rule, "threshold", math.nan) if rule is not None else math.nan
    certified = None
    if rule is not None and rule.certified and not math.isnan(threshold):
        bound = getattr(rule, "risk_bound", math.nan)
        certified = {
            "threshold": float(threshold),
            "coverage": float(rule.coverage),
            "risk_bound": None if math.isnan(bound) else float(bound),
        }
    return {
        "images": len(calibration.labels),
        "points": [
            {
                "threshold": float(curve.thresholds[i]),
                "coverage": float(curve.coverage[i]),
                "risk": float(curve.risk[i]),
                "accepted": int(curve.accepted[i]),
                "wrong": int(curve.errors[i]),
            }
            for i in kept
        ],
        "certified": certified,
        "statement": calibration.statement,
    }


# Reviewing: the queue, answers, their export, and pictures to look at.

router = APIRouter(responses=error_responses(421, 503, 507))
Service = Annotated[Context, Depends(context_of)]
Client = Annotated[str, Depends(client_of)]
Reviewer = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=64,
        description="Any text of your own; what you are handed is then yours for a while.",
    ),
]
Side = Annotated[int, Query(ge=16, le=1024, description="Longest side in pixels.")]
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "A JPEG."}
}


@router.post(
    "/v1/feedback",
    response_model=schemas.FeedbackAnswer,
    responses=error_responses(400, 401, 403, 404, 408, 409, 413, 422, 429),
)
async def answer_image(context: Service, said: schemas.FeedbackRequest) -> dict[str, Any]:
    """Store what a person says about a verdict; it is on disk before this answers.

    Of several answers on an image the last one counts; `earlier` says which one counted before, and
    counts again if this one is undone. With `if_unanswered` the first one counts instead.
    """
    submission = await _submission(context, said, said.model)
    (recorded,) = await asyncio.to_thread(context.feedback.record_all, [submission])
    context.leases.end(submission.answer.model, [said.image])
    if recorded.number is None:
        raise _answered(recorded)
    left = await asyncio.to_thread(context.feedback.n_open, submission.answer.model)
    return {"id": recorded.number, "open": left, "earlier": recorded.earlier}


@router.post(
    "/v1/feedback/batch",
    response_model=schemas.BatchAnswer,
    responses=error_responses(400, 401, 403, 404, 408, 413, 422, 429),
)
async def answer_images(context: Service, said: schemas.BatchRequest) -> dict[str, Any]:
    """Store answers on several images, each as a record of its own.

    An answer that makes no sense, or comes too late, has an error; the others are stored all the
    same, together.
    """
    name = context.models[said.model].name
    submissions: list[Submission] = []
    refused: dict[int, ServiceError] = {}
    for i, one in enumerate(said.answers):
        try:
            submissions.append(await _submission(context, one, one.model or name))
        except ServiceError as error:
            refused[i] = error
    stored = iter(await asyncio.to_thread(context.feedback.record_all, submissions))
    for submission in submissions:
        context.leases.end(submission.answer.model, [submission.answer.image])
    answers: list[dict[str, Any]] = []
    for i in range(len(said.answers)):
        recorded = Recorded(None, None) if i in refused else next(stored)
        fault = refused.get(i) or (None if recorded.number else _answered(recorded))
        answers.append(
            {
                "id": recorded.number,
                "earlier": recorded.earlier,
                "error": fault and {"kind": fault.kind, "message": fault.message},
            }
        )
    left = await asyncio.to_thread(context.feedback.n_open, name)
    return {"open": left, "answers": answers}


@router.delete(
    "/v1/feedback/{number}",
    response_model=schemas.UndoAnswer,
    responses=error_responses(401, 403, 404, 422),
)
async def undo(context: Service, number: Annotated[int, Path(ge=1, le=2**53)]) -> dict[str, int]:
    """Take an answer back; the image waits again."""
    if not await asyncio.to_thread(context.feedback.undo, number):
        raise ServiceError(404, "no_such_answer", "There is no such answer, or it was undone.")
    return {"undone": number}


@router.get(
    "/v1/feedback.csv",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {}}, "description": "One row per answered image."},
        **error_responses(401, 404, 422),
    },
)
async def export(context: Service, model: ModelName = None) -> Response:
    """Return the latest answer on every image as CSV."""
    served = context.models[model]
    try:
        rows = await asyncio.to_thread(context.feedback.answers, served.name)
    except InputError as error:
        raise ServiceError(503, "storage", str(error)) from error
    return Response(
        answers_csv(rows),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="feedback.csv"'},
    )


@router.get(
    "/v1/queue", response_model=schemas.QueueAnswer, responses=error_responses(401, 404, 422)
)
async def queue(
    context: Service,
    model: ModelName = None,
    limit: Annotated[
        int | None,
        Query(ge=1, le=200, description="50 by default; with a reviewer 5, and 100 at most."),
    ] = None,
    reviewer: Reviewer = None,
    label: Annotated[
        str | None, Query(max_length=1000, description="Only images of this predicted label.")
    ] = None,
) -> dict[str, Any]:
    """Return the images that wait for a person, the most doubtful first.

    With a `reviewer` they are leased: nobody else is handed them until the lease ends. Renew it
    with `POST /v1/leases`, and end it with `DELETE /v1/leases`.
    """
    name = context.models[model].name
    limit = limit or (_LEASED if reviewer else 50)
    enough = limit + (len(context.leases) if reviewer else 0)
    rows = await asyncio.to_thread(context.feedback.queue, name, enough, label)
    if reviewer:
        waiting = {row["image"]: row for row in rows}
        leased = context.leases.take(name, reviewer, list(waiting), limit)
        rows = [waiting[image] for image in leased]
    left = await asyncio.to_thread(context.feedback.n_open, name)
    seconds = context.leases.seconds if reviewer else None
    return {"open": left, "images": rows, "lease_seconds": seconds}


@router.get(
    "/v1/queue/labels",
    response_model=list[schemas.LabelCount],
    responses=error_responses(401, 404, 422),
)
async def queue_labels(context: Service, model: ModelName = None) -> list[dict[str, Any]]:
    """Return how many images of each predicted label wait, the most first."""
    name = context.models[model].name
    counts = await asyncio.to_thread(context.feedback.n_open_by_label, name)
    return [{"label": label, "open": n} for label, n in counts.items()]


@router.post(
    "/v1/leases",
    response_model=schemas.LeaseAnswer,
    responses=error_responses(400, 401, 403, 404, 408, 413, 422, 429),
)
async def renew(context: Service, said: schemas.LeaseRequest) -> dict[str, Any]:
    """Keep images for a reviewer who still looks at them."""
    name = context.models[said.model].name
    waiting = await asyncio.to_thread(context.feedback.still_open, said.images, name)
    held = context.leases.renew(name, said.reviewer, waiting)
    return {"held": held, "lease_seconds": context.leases.seconds}


@router.delete(
    "/v1/leases",
    response_model=schemas.ReleasedAnswer,
    responses=error_responses(401, 403, 404, 422),
)
async def release(
    context: Service,
    reviewer: Annotated[str, Query(min_length=1, max_length=64)],
    model: ModelName = None,
) -> dict[str, int]:
    """Give back what a reviewer was handed."""
    return {"released": context.leases.release(context.models[model].name, reviewer)}


@router.get(
    "/v1/images/{image}",
    response_class=Response,
    responses={**_JPEG, **error_responses(401, 404, 422, 429)},
)
async def picture(
    context: Service,
    client: Client,
    image: Annotated[str, Path(pattern=schemas.DIGEST)],
    model: ModelName = None,
    side: Side = 512,
) -> Response:
    """Return a kept image as a JPEG, decoded and encoded anew."""
    served = context.models[model]
    kept = await asyncio.to_thread(context.feedback.kept, image, served.name)
    return await _jpeg(context, served, kept.content if kept else None, side, client)


@router.delete(
    "/v1/images/{image}",
    response_model=schemas.ForgottenAnswer,
    responses=error_responses(401, 403, 404, 422),
)
async def forget(
    context: Service, image: Annotated[str, Path(pattern=schemas.DIGEST)], model: ModelName = None
) -> dict[str, str]:
    """Remove a kept image; answers on it stay, without it."""
    name = context.models[model].name
    if not await asyncio.to_thread(context.feedback.forget, image, name):
        raise ServiceError(404, "no_such_image", "There is no such image at hand.")
    return {"forgotten": image}


@router.get(
    "/v1/examples/{shot}",
    response_class=Response,
    responses={**_JPEG, **error_responses(401, 404, 422, 429)},
)
async def example(
    context: Service,
    client: Client,
    shot: Annotated[int, Path(ge=0, le=2**31)],
    model: ModelName = None,
    side: Side = 192,
) -> Response:
    """Return an example image of the model as a JPEG, if its file is still what it was.

    An answered image that became an example is kept with the answers.
    """
    served = context.models[model]
    content = await asyncio.to_thread(served.examples.content, shot, served.limits)
    if content is None and shot < len(served.model.shots_):
        digest = served.model.shots_[shot]["sha256"]
        kept = await asyncio.to_thread(context.feedback.kept, digest, served.name)
        content = kept.content if kept else None
    return await _jpeg(context, served, content, side, client)


@router.get(
    "/v1/curve", response_model=schemas.CurveAnswer | None, responses=error_responses(401, 404, 422)
)
async def curve(context: Service, model: ModelName = None) -> dict[str, Any] | None:
    """Return risk and coverage on the calibration images; null if there is no calibration."""
    return curve_of(context.models[model].model.calibration_)


@router.post(
    "/v1/reload",
    response_model=schemas.ModelAnswer,
    responses=error_responses(401, 403, 404, 408, 409, 413, 422, 429),
)
async def reload(context: Service, model: ModelName = None) -> dict[str, Any]:
    """Read a model's artefact again, without losing a request.

    If it is damaged, gives no verdict on a picture, or was made with other encoders than those on
    this machine, the answer is 409 and the old one stays in service.
    """
    name = context.models.name_of(model)
    try:
        fresh = await asyncio.to_thread(context.models.reload, name)
    except TrustVLMError as error:
        raise ServiceError(409, "unfit", f"The old model stays in service. {error}") from error
    context.log.event("reloaded", model=name, created_at=fresh.model.provenance_["created_at"])
    return fresh.describe()


async def _submission(
    context: Context, said: schemas.FeedbackRequest, model: str | None
) -> Submission:
    """Return what is to be stored of an answer.

    Raises
    ------
    ServiceError
        If it names a model or class that does not exist, or makes no sense.
    """
    served = context.models[model]
    kept = await asyncio.to_thread(context.feedback.kept, said.image, served.name)
    verdict = kept.verdict if kept else {"label": "", "confidence": None}
    said_label = served.model.classes_.label_of(said.label or "") or said.label
    label = _label(said.action, said_label, str(verdict["label"]))
    confidence = verdict["confidence"]
    answer = Answer(
        image=said.image,
        model=served.name,
        action=said.action,
        label=label,
        folder=_folder(served, label) if label else "",
        predicted=str(verdict["label"]),
        confidence=float("nan") if confidence is None else float(confidence),
    )
    return Submission(answer, key=said.key or "", if_unanswered=said.if_unanswered)


def _answered(recorded: Recorded) -> ServiceError:
    earlier = recorded.earlier or {}
    said = str(earlier.get("label") or earlier.get("action", ""))
    return ServiceError(
        409,
        "answered",
        f"Someone else has answered this image meanwhile ({said}). Yours was not stored.",
    )


def _label(action: str, label: str | None, predicted: str) -> str:
    if action == "skip":
        return ""
    if action == "correct":
        return str(label)
    if predicted and label not in (None, predicted):
        raise ServiceError(
            409, "label", "The label to accept is not the predicted one: correct it instead."
        )
    if not predicted and not label:
        raise ServiceError(
            404, "no_such_image", "The image was not kept, so say which `label` was predicted."
        )
    return predicted or str(label)


def _folder(served: ServedModel, label: str) -> str:
    classes = served.model.classes_
    if label not in classes.labels:
        raise ServiceError(
            404, "no_such_class", "The model has no class of that name; see /v1/model."
        )
    return classes.folders[classes.labels.index(label)]


async def _jpeg(
    context: Context, served: ServedModel, content: bytes | None, side: int, client: str
) -> Response:
    """Return pixels alone: no file is ever sent back as it came."""
    if content is not None:
        task = PreviewTask(content, "the image", served.limits, side)
        with suppress(ImageError):
            try:
                future = context.models.decoders.submit(task, client)
                picture = await asyncio.wrap_future(future)
            except Full:
                raise queue_full(context.models.waiting, context.settings.queue_images) from None
            return Response(picture, media_type="image/jpeg")
    raise ServiceError(404, "no_such_image", "There is no such image at hand.")
