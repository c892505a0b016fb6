"""Why one image may be unusable, and how large or small it may be before it is refused."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trustvlm.exceptions import ImageError, InputError
from trustvlm.text import printable

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
    "not_tried": "no thread or process was left to decode it",
    "memory": "there was not enough memory to decode it",
    "unexpected": "decoding failed in a way nobody foresaw",
    "fatal": "it stopped the process that read it, again and again",
    "embedding": "an encoder gave NaN or infinity for it",
}
"""The ways in which one image can be unusable: one word for tables, one sentence for people."""


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
    error = ImageError(kind, f"{printable(name)}: {what}. {remedy}.")
    if note:
        error.add_note(note)
    return error


def describe_exception(error: Exception) -> str:
    """Return what another library says of an error, on one line; its type if it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# How large or small an image may be before it is refused, and how long it may take.


# Scans of text are compressed by 100; what is made to do harm, by 1000 and more.
_EXPANSION, _LEAST_EXPANSION = 100, 4 * 2**30


@dataclass(frozen=True)
class Limits:
    """Bounds that an image must keep; all but the time are checked before any pixel is decoded.

    Parameters
    ----------
    max_pixels
        Width times height as the file's header states them. A few hundred bytes can claim
        gigapixels (a decompression bomb), so the claim is checked, not the outcome.
    max_bytes
        Size of the file.
    min_side
        Shorter side in pixels. Below 8 pixels, one block of a JPEG, there is nothing to
        recognise: such files are tracking pixels, spacers and failed thumbnails, and a model
        would nevertheless give them a confident label. CIFAR's 32 and the 8 of scikit-learn's
        digits pass.
    max_archive_bytes, max_archive_members
        What an archive may expand to, and how many members it may have: a few kilobytes can
        expand to terabytes. None for 100 times the size of the archive, and at least 4 GiB.
    seconds
        Time for reading and decoding one image. Whoever runs images through encoders watches it
        (`embeddings`); `decode` alone does not. A decoder that hangs cannot be stopped, so its
        thread is left behind and the rest goes on without it.
    formats
        Names of the formats that are decoded, as `images.formats.FORMATS` has them; None for all.
        A service decodes only those whose decoders are written in C and widely attacked.

    Raises
    ------
    InputError
        If `seconds` is not a positive number, or another bound not a positive whole number.

    Examples
    --------
    >>> Limits(max_pixels=1_000_000).min_side
    8
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 2**20
    min_side: int = 8
    max_archive_bytes: int | None = None
    max_archive_members: int = 2_000_000
    seconds: float = 60.0
    formats: frozenset[str] | None = None

    def __post_init__(self) -> None:
        names = ["max_pixels", "max_bytes", "min_side", "max_archive_members"]
        for name in [*names, "max_archive_bytes"] if self.max_archive_bytes is not None else names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"Expected `{name}` to be a positive whole number, but got {value!r}."
                )
        seconds = self.seconds
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (number and 0 < seconds < math.inf):
            raise InputError(f"Expected `seconds` to be a positive number, but got {seconds!r}.")

    def archive_bytes(self, size: int) -> int:
        """Return how many bytes an archive of a size in bytes may expand to.

        Examples
        --------
        >>> Limits().archive_bytes(1000) == 4 * 2**30, Limits().archive_bytes(10**9)
        (True, 100000000000)
        """
        most = self.max_archive_bytes
        return max(_LEAST_EXPANSION, _EXPANSION * size) if most is None else most


DEFAULT_LIMITS = Limits()
"""The bounds that hold where none are given."""


@dataclass(eq=False)
class Stopwatch:
    """How long one image has been worked on; one thread runs it, and any may read it.

    Examples
    --------
    >>> stopwatch = Stopwatch()
    >>> with stopwatch:
    ...     stopwatch.seconds >= 0
    True
    """

    _spent: float = 0.0
    _since: float | None = None

    @property
    def seconds(self) -> float:
        """The time while it ran."""
        since = self._since
        return self._spent + (0.0 if since is None else time.monotonic() - since)

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = self.seconds
        self._since = None
        self._spent = spent

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it while the block waits for others, if it runs."""
        if self._since is None:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
