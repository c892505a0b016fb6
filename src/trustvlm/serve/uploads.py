"""From the body of a request to images: multipart files, or JSON with base64."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from trustvlm.images import InMemoryImage
from trustvlm.serve.errors import ServiceError
from trustvlm.serve.schemas import PredictRequest

__all__ = ["Upload", "read_uploads"]

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
    """

    image: InMemoryImage
    error: str = ""


async def read_uploads(request: Request, *, max_images: int) -> list[Upload]:
    """Read the images of a request, in order.

    Raises
    ------
    ServiceError
        If the body is of another type (415), is not what it says or holds no image (400, 422), or
        holds too many (413).
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _from_form(request, max_images)
    elif kind == "application/json":
        uploads = _from_json(await request.body())
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


async def _from_form(request: Request, max_images: int) -> list[Upload]:
    try:
        # One more than allowed tells "too many" from a form that is merely odd.
        form = await request.form(max_files=max_images + 1, max_fields=16, max_part_size=2**16)
    except HTTPException as error:
        if "Too many files" in str(error.detail):
            raise too_many(max_images) from error
        raise ServiceError(400, "bad_form", f"The form cannot be read: {error.detail}") from error
    except Exception as error:  # the parser raises much on damaged forms
        raise ServiceError(400, "bad_form", "The form cannot be read.") from error
    try:
        files = [part for part in form.getlist("images") if isinstance(part, UploadFile)]
        return [
            Upload(InMemoryImage(shown_name(file.filename, i), await file.read()))
            for i, file in enumerate(files)
        ]
    finally:
        await form.close()


def _from_json(body: bytes) -> list[Upload]:
    try:
        parsed = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise ServiceError(422, "bad_json", _in_words(error)) from error
    return [_decoded(item.data, shown_name(item.name, i)) for i, item in enumerate(parsed.images)]


def _decoded(data: str, name: str) -> Upload:
    try:
        return Upload(InMemoryImage(name, base64.b64decode(data, validate=True)))
    except (binascii.Error, ValueError):
        message = f"{name}: the data is not base64. Encode the file's bytes, without a prefix."
        return Upload(InMemoryImage(name, b""), message)


def _in_words(error: ValidationError) -> str:
    """Say what is wrong with a JSON body, without repeating any of it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:80]
    return f"The JSON body is not as expected{f' at {where}' if where else ''}: {first['msg']}."
