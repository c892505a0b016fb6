"""The ways in which one image can be unusable: one word for tables, one sentence for people."""

from __future__ import annotations

from trustvlm.exceptions import ImageError

__all__ = ["KINDS", "refusal"]

KINDS = {
    "missing": "there is no such file",
    "directory": "it is a folder, not a file",
    "permission": "the file may not be read",
    "unreadable": "the operating system cannot read the file",
    "empty": "the file has no bytes",
    "not_image": "the content is something else than an image",
    "unsupported": "it is an image or a document of a kind that is not opened",
    "truncated": "the file ends too early",
    "damaged": "the content contradicts its own format",
    "non_finite": "pixel values are NaN or infinite",
    "too_small": "the shorter side has too few pixels",
    "too_large": "there are too many pixels or bytes",
    "too_slow": "reading and decoding it did not end in time",
    "not_tried": "too many images before it hang in their decoders",
    "memory": "there was not enough memory to decode it",
    "unexpected": "decoding failed in a way nobody foresaw",
    "fatal": "it stopped the process that read it, again and again",
    "embedding": "an encoder gave NaN or infinity for it",
}


def refusal(kind: str, name: str, what: str, remedy: str, *, note: str = "") -> ImageError:
    """Build the error of one image; the message begins with the image's name.

    Parameters
    ----------
    kind
        A key of `KINDS`.
    name
        The image as the user knows it.
    what, remedy
        What is wrong, and what to do about it, both without a full stop.
    note
        What a programmer could do instead; tracebacks show it, tables and clients do not see it.

    Examples
    --------
    >>> error = refusal("empty", "cat.jpg", "the file is empty", "Copy it again")
    >>> error.kind, str(error)
    ('empty', 'cat.jpg: the file is empty. Copy it again.')
    """
    assert kind in KINDS, kind  # noqa: S101
    error = ImageError(kind, f"{name}: {what}. {remedy}.")
    if note:
        error.add_note(note)
    return error
