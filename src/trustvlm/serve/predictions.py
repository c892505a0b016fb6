"""Label images: from the body of a request to verdicts; and whether the service is ready."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import queue
import re
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from trustvlm.embeddings.decoding_pool import PixelsTask
from trustvlm.embeddings.prefetch import DecodedImage
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import ImageSource, InMemoryImage, LabelledImage, content_hash
from trustvlm.images.references import UnreadableImage, read_probability
from trustvlm.models.base import Preprocessing
from trustvlm.pipeline.verdict import error_verdict
from trustvlm.serialization import first_invalid
from trustvlm.serve import schemas
from trustvlm.serve.batching import queue_full
from trustvlm.serve.context import Context, client_of, context_of
from trustvlm.serve.feedback import KeptImage, StorageError
from trustvlm.serve.responses import ServiceError, error_responses, out_of_time
from trustvlm.serve.served_model import ServedModel, UploadResult, probe

# From the body of a request to images: multipart files, or JSON with base64.

_LONGEST_NAME = 255
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Upload:
    """One image of a request, or what keeps it from being one.

    Attributes
    ----------
    image
        Its name and bytes.
    error
        Why it could not even be read; "" if it could.
    label, confidence
        That came with it, and the probability of that label; "" and NaN without.
    """

    image: InMemoryImage
    error: str = ""
    label: str = ""
    confidence: float = math.nan


async def read_uploads(request: Request, *, max_images: int) -> list[Upload]:
    """Read the images of a request, in order.

    Raises
    ------
    ServiceError
        If the body is of another type (415), is not what it says or holds no image (400, 422), or
        holds too many (413).
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    # Off the thread that serves all connections, which a large body would hold up.
    body = await request.body()
    if kind == "multipart/form-data":
        uploads = await asyncio.to_thread(_from_form, request.headers, body, max_images)
    elif kind == "application/json":
        uploads = await asyncio.to_thread(_from_json, body, max_images)
    else:
        raise ServiceError(
            415,
            "content_type",
            "Send images as multipart/form-data under the name `images`, or as application/json "
            f"with base64, but not as {kind or 'nothing in particular'!r}.",
        )
    if not uploads:
        raise ServiceError(
            422, "no_images", "There is no image in the request: send files under `images`."
        )
    if len(uploads) > max_images:
        raise too_many(max_images)
    for upload in uploads:
        # The answer would be about the model's own label, and look as if it were about another.
        if not upload.label and not math.isnan(upload.confidence):
            raise ServiceError(
                422,
                "labels",
                f"Expected a `label` with the `label_confidence` of {upload.image.path}, but there "
                "is none.",
            )
    return uploads


def too_many(max_images: int) -> ServiceError:
    """Return the refusal of a request with more images than one may have."""
    return ServiceError(
        413, "too_many_images", f"A request may have at most {max_images} images: send several."
    )


def shown_name(name: str | None, position: int) -> str:
    r"""Return a client's name for an image as text that is safe to show; it is never a path.

    Examples
    --------
    >>> shown_name("a\n.png", 0), shown_name("", 3)
    ('a .png', 'image-4')
    """
    return _UNSHOWABLE.sub(" ", name or "")[:_LONGEST_NAME].strip() or f"image-{position + 1}"


def _from_form(headers: Headers, body: bytes, max_images: int) -> list[Upload]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    async def parse() -> list[Upload]:
        # One more than allowed tells "too many" from a form that is merely odd.
        parser = MultiPartParser(
            headers,
            whole(),
            max_files=max_images + 1,
            max_fields=16 + 2 * max_images,
            max_part_size=2**16,
        )
        # The body is in memory already: a file on a disk that may be full gains nothing.
        parser.spool_max_size = len(body) + 1
        form = await parser.parse()
        try:
            if fault := schemas.misspelt_label(form):
                raise ServiceError(422, "labels", f"In the form {fault}")
            files = [part for part in form.getlist("images") if isinstance(part, UploadFile)]
            labels, probabilities = (
                _of_each(form.getlist(name), name, len(files))
                for name in ("label", "label_confidence")
            )
            return [
                Upload(
                    InMemoryImage(shown_name(file.filename, i), await file.read()),
                    label=label,
                    confidence=_probability(p),
                )
                for i, (file, label, p) in enumerate(zip(files, labels, probabilities, strict=True))
            ]
        finally:
            await form.close()

    try:
        return asyncio.run(parse())
    except ServiceError:
        raise
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise too_many(max_images) from error
        raise ServiceError(400, "bad_form", f"The form cannot be read: {error.message}") from error
    except Exception as error:  # the parser raises much on damaged forms
        raise ServiceError(400, "bad_form", "The form cannot be read.") from error


_LONGEST_LABEL = 1000


def _of_each(values: Sequence[Any], name: str, images: int) -> list[str]:
    """Return a field of a form that is there once for each image, or not at all."""
    if not values:
        return [""] * images
    if len(values) != images or not all(isinstance(value, str) for value in values):
        raise ServiceError(
            422,
            "labels",
            f"Expected a text `{name}` for each of {images} images, in their order (empty for "
            f"none), but got {len(values)}.",
        )
    texts = [value.strip() for value in values]
    if max(map(len, texts)) > _LONGEST_LABEL:
        raise ServiceError(
            422, "labels", f"Expected `{name}` to have at most {_LONGEST_LABEL} characters."
        )
    return texts


def _probability(text: str) -> float:
    try:
        return read_probability(text, "an image")
    except InputError:
        raise ServiceError(
            422,
            "labels",
            "Expected every `label_confidence` to be a probability from 0 to 1, or empty, but got "
            f"{shown_name(text, 0)!r}.",
        ) from None


# Bytes that are looked at in one go, so that other threads have their turn.
_PIECE = 2**18


def _from_json(body: bytes, max_images: int) -> list[Upload]:
    _bound_values(body, max_images)
    try:
        parsed = schemas.PredictRequest.model_validate_json(body)
    except ValidationError as error:
        field, fault = first_invalid(error)
        where = f" at {field}" if field else ""
        message = f"The JSON body is not as expected{where}: {fault}."
        raise ServiceError(422, "bad_json", message) from error
    return [
        replace(
            _decoded(item.data, shown_name(item.name, i)),
            label=(item.label or "").strip(),
            confidence=math.nan if item.label_confidence is None else item.label_confidence,
        )
        for i, item in enumerate(parsed.images)
    ]


def _bound_values(body: bytes, max_images: int) -> None:
    """Refuse JSON of more values than so many images need, before anything is made of them.

    A value takes a byte or two as JSON and hundreds once it is parsed, and whatever is wrong with
    it as much again. Every value but the first follows one of four characters, none of which is in
    base64.
    """
    left = 32 * max_images + 1024
    for start in range(0, len(body), _PIECE):
        left -= sum(body.count(mark, start, start + _PIECE) for mark in (b"{", b"[", b",", b":"))
        if left < 0:
            if body.count(b'"data"', 0, start + _PIECE) > max_images:
                raise too_many(max_images)
            message = f"The JSON body has far more values than {max_images} images need."
            raise ServiceError(422, "bad_json", message)


_DATA_URI = re.compile(rb"\s*data:[^,]{0,255};\s*base64\s*,", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _decoded(data: str, name: str) -> Upload:
    try:
        return Upload(InMemoryImage(name, _bytes_of(data)))
    except ValueError:
        message = f"{name}: the data is not base64. Encode the file's bytes."
        return Upload(InMemoryImage(name, b""), message)


def _bytes_of(data: str) -> bytes:
    """Read base64 as it comes out of browsers (a data URI), e-mails (in lines) and tokens."""
    text = data.encode("ascii")
    with suppress(binascii.Error):
        return base64.b64decode(text, validate=True)
    prefix = _DATA_URI.match(text)
    text = text[prefix.end() if prefix else 0 :].translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


# `/v1/predict` and `/v1/model`.

router = APIRouter(responses=error_responses(421))
ModelName = Annotated[
    str | None, Query(description="Which model; the first one by default.", max_length=255)
]


@router.post(
    "/v1/predict",
    response_model=schemas.PredictAnswer,
    responses=error_responses(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": schemas.predict_body()},
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

    An image that comes with a `label` from elsewhere keeps it, and the verdict is that of `trustvlm
    verify`. A model without a vision-language model, or calibrated for labels from elsewhere, wants
    a label with each.
    """
    context = context_of(request)
    name = context.models[model].name
    if lost := [name for name in schemas.LABEL_FIELDS if name in request.query_params]:
        raise ServiceError(
            422, "labels", f"Send `{lost[0]}` in the body, beside each image, not in the address."
        )
    uploads = await read_uploads(request, max_images=context.settings.max_images)
    problem = context.models[model].check_labels([bool(upload.label) for upload in uploads])
    if problem:
        raise ServiceError(422, "labels", problem)
    results = await judge_uploads(context, name, uploads, client=client_of(request))
    verdicts = [verdict_answer(result, explain=explain or keep) for result in results]
    if keep:
        await asyncio.to_thread(_keep, context, name, uploads, verdicts)
    return {"model": name, "verdicts": verdicts}


@router.get(
    "/v1/model", response_model=schemas.ModelAnswer, responses=error_responses(401, 404, 422, 503)
)
async def model_facts(request: Request, model: ModelName = None) -> dict[str, Any]:
    """Describe a model: its classes, encoders, and what its decisions rest on."""
    return context_of(request).models[model].describe()


@router.get("/v1/models", response_model=list[str], responses=error_responses(401))
async def model_names(request: Request) -> list[str]:
    """List the models; the first one answers where none is named."""
    return list(context_of(request).models.names)


async def judge_uploads(
    context: Context, name: str, uploads: Sequence[Upload], *, client: str = ""
) -> list[UploadResult]:
    """Judge uploads in one batch with those of others; what could not be read has its error.

    They are decoded before they join a batch, so that an image that takes its time delays nobody
    else's. Where images wait, clients take turns.

    Raises
    ------
    ServiceError
        If the queue is full (429) or the time is over (503).
    """
    sent = [upload for upload in uploads if not upload.error]
    images = [upload.image for upload in sent]
    seconds = context.settings.request_seconds
    results: list[UploadResult] = []
    if images:
        end = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                decoded = await _decode(context, name, images, client=client, seconds=seconds)
                decoded = [
                    LabelledImage(image, upload.label, upload.confidence) if upload.label else image
                    for image, upload in zip(decoded, sent, strict=True)
                ]
                future = context.models.submit(
                    name, decoded, client=client, timeout=end - time.monotonic()
                )
                results = await asyncio.wrap_future(future)
        except TimeoutError:
            raise out_of_time() from None
    of_images = iter(results)
    return [_not_base64(context, upload) if upload.error else next(of_images) for upload in uploads]


async def _decode(
    context: Context, name: str, images: Sequence[InMemoryImage], *, client: str, seconds: float
) -> list[ImageSource]:
    model = context.models[name]
    wanted = await asyncio.to_thread(_wanted, model, images)
    tasks = {
        digest: PixelsTask(image.content, image.path, model.limits, preprocessings)
        for image, (digest, preprocessings) in zip(images, wanted, strict=True)
        if preprocessings
    }
    outcomes: dict[str, Any] = {}
    futures: dict[str, Future[Any]] = {}
    try:
        for digest, task in tasks.items():
            futures[digest] = context.models.decoders.submit(task, client, seconds)
        for digest, future in futures.items():
            try:
                outcomes[digest] = await asyncio.wrap_future(future)
            except ImageError as error:
                outcomes[digest] = error
    except queue.Full:
        raise queue_full(context.models.waiting, context.settings.queue_images) from None
    finally:
        for future in futures.values():
            future.cancel()
    decoded: list[ImageSource] = []
    for image, (digest, _) in zip(images, wanted, strict=True):
        outcome = outcomes.get(digest, {})
        if isinstance(outcome, ImageError):
            # The message begins with the name of the one image of several with the same bytes.
            message = str(outcome).removeprefix(tasks[digest].name)
            decoded.append(UnreadableImage(image.path, outcome.kind, f"{image.path}{message}"))
        else:
            decoded.append(DecodedImage(image.path, image.content, outcome))
    return decoded


def _wanted(
    model: ServedModel, images: Sequence[InMemoryImage]
) -> list[tuple[str, tuple[Preprocessing, ...]]]:
    digests = [content_hash(image.content) for image in images]
    return [(digest, model.wanted(digest)) for digest in digests]


def _not_base64(context: Context, upload: Upload) -> UploadResult:
    context.telemetry.failed("not_base64")
    verdict = error_verdict(upload.image.path, ValueError(upload.error))
    return UploadResult(verdict, kind="not_base64")


def verdict_answer(result: UploadResult, *, explain: bool = False) -> dict[str, Any]:
    """Return a verdict as it goes over the wire, with its most similar examples if asked for."""
    verdict = result.verdict
    answer: dict[str, Any] = {**verdict.to_row(), "image": result.digest, "kind": result.kind}
    if explain:
        answer["candidates"] = result.candidates
        for role, label in (("label", verdict.label), ("runner_up", verdict.runner_up)):
            if label in result.nearest:
                answer[f"{role}_example"] = asdict(result.nearest[label])
    return schemas.VerdictAnswer.model_validate(answer).model_dump()


def _keep(
    context: Context, name: str, uploads: Sequence[Upload], verdicts: Sequence[dict[str, Any]]
) -> None:
    for upload, verdict in zip(uploads, verdicts, strict=True):
        if not verdict["kind"]:
            stored = {**verdict, "kept": True}
            kept = KeptImage(
                verdict["image"], name, upload.image.path, stored, upload.image.content
            )
            try:
                verdict["kept"] = context.feedback.keep(kept)
            except StorageError as error:
                verdict["kept"] = False
                context.telemetry.failed("storage")
                context.log.event("storage", detail=str(error))


# Whether the process lives, whether it can judge an image, and what it has counted.

health_router = APIRouter()
# A client that asks more often than this gets the last answer, so that asking costs nothing.
_FRESH_SECONDS = 1.0


@health_router.get("/healthz")
async def alive() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@health_router.get("/readyz", responses=error_responses(503))
async def ready(request: Request) -> dict[str, Any]:
    """Send a picture through every model, as a request would go, and say how long it took."""
    state = request.app.state
    async with state.ready_turn:
        # When it was tried last, and what came of it.
        last: tuple[float, dict[str, Any]] | None = state.ready
        if last is None or time.monotonic() - last[0] > _FRESH_SECONDS:
            last = state.ready = (time.monotonic(), await check_ready(context_of(request)))
    return last[1]


@health_router.get("/metrics", response_class=Response, responses=error_responses(401, 421))
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    context = context_of(request)
    context.telemetry.waiting.set(context.models.waiting)
    return Response(context.telemetry.exposition(), media_type="text/plain; version=0.0.4")


async def check_ready(context: Context) -> dict[str, Any]:
    """Judge one picture with every model; those that fail do not keep the others from answering.

    Raises
    ------
    ServiceError
        If no model gives a verdict on it (503).
    """
    seconds, failed = {}, {}
    for name in context.models.names:
        begin = time.monotonic()
        try:
            upload = Upload(
                InMemoryImage("ready.png", probe(time.time_ns())),
                label=context.models[name].probe_label,
            )
            (result,) = await judge_uploads(context, name, [upload])
        except ServiceError as error:
            failed[name] = error.message
            continue
        if result.kind:
            failed[name] = result.verdict.error
        else:
            seconds[name] = round(time.monotonic() - begin, 4)
    if not seconds:
        raise ServiceError(503, "not_ready", "; ".join(f"{n}: {e}" for n, e in failed.items()))
    if failed:
        return {"status": "partly ready", "seconds": seconds, "failed": failed}
    return {"status": "ready", "seconds": seconds}
