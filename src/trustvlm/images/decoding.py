"""Bytes to pixels, with every way to fail turned into an `ImageError`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile

from trustvlm.exceptions import ImageError
from trustvlm.images.colours import to_rgb
from trustvlm.images.foreign import explain_foreign
from trustvlm.images.formats import ImageFormat, recognise
from trustvlm.images.kinds import refusal
from trustvlm.images.limits import DEFAULT_LIMITS, Limits, Stopwatch
from trustvlm.images.quiet import quiet_pillow
from trustvlm.images.reading import check_size, read_bytes
from trustvlm.images.upright import needed_turn

__all__ = ["decode"]

# Images above this many pixels are decoded one at a time, so that a folder of panoramas needs the
# memory of one of them and not of one per thread.
_LARGE = 25_000_000


class _Turn:
    """Lets one at a time have its turn; who keeps it beyond the time limit loses it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: object | None = None
        self._since = 0.0

    @contextmanager
    def taken(self, seconds: float, stopwatch: Stopwatch) -> Iterator[None]:
        me = object()
        with stopwatch.paused(), self._changed:
            while self._holder is not None:
                left = self._since + seconds - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._holder, self._since = me, time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                if self._holder is me:
                    self._holder = None
                    self._changed.notify()


_large_turn = _Turn()


class _Content(BytesIO):
    """A file in memory that remembers whether anyone read on after its end."""

    ran_out = False

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if not piece and size != 0:
            self.ran_out = True
        return piece


def decode(
    source: str | os.PathLike[str] | bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
    enough: int | None = None,
    stopwatch: Stopwatch | None = None,
) -> Image.Image:
    """Decode one image to 8-bit RGB, upright, whatever its format and pixel type.

    The content decides what the file is, not its name: a PNG called `.jpg` is fine. Of animated
    images and documents of several pages the first is taken. EXIF orientation is applied. What
    becomes of grey, palette, alpha, 16-bit, float and CMYK is told in `trustvlm.images.colours`.
    Safe to call from any number of threads; no setting of Pillow is changed.

    Parameters
    ----------
    source
        A file, or the bytes of one.
    limits
        Bounds on bytes, pixels and shorter side, checked before decoding.
        Of the time only one thing is watched: no large image waits for another any longer.
    name
        How to call the image in errors; by default the path, or "the image" for bytes.
    enough
        Let libjpeg decode a JPEG at a half, a quarter or an eighth, the smallest that leaves this
        many pixels to the shorter side: seven times faster for large photographs that are then
        resized, and nearly the same. None decodes every pixel. Other formats ignore it.
    stopwatch
        Stopped while a large image waits for another one.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, loaded, independent of the file.

    Raises
    ------
    ImageError
        For everything that can be wrong with one image; `kind` is a key of `images.KINDS`.

    Examples
    --------
    >>> decode(b"P6 8 8 255 " + bytes(192)).size
    (8, 8)
    >>> decode(b"")
    Traceback (most recent call last):
    trustvlm.exceptions.ImageError: the image: the file is empty. Copy it again from its source.
    """
    if isinstance(source, bytes):
        name = "the image" if name is None else name
        content = source
        check_size(len(content), limits, name)
    else:
        name = os.fspath(source) if name is None else name
        content = read_bytes(Path(source), limits, name=name)
    known = recognise(content)
    if known is None:
        raise explain_foreign(content, name)
    if not known.available():
        raise refusal(
            "unsupported",
            name,
            f"it is a {known.name} image, which this installation of Pillow cannot read",
            "Install a newer Pillow, or convert it to PNG or JPEG",
        )
    stream = _Content(content)
    try:
        with quiet_pillow():
            return _decode(stream, known, limits, name, enough, stopwatch or Stopwatch())
    except ImageError:
        raise
    except MemoryError as error:
        raise refusal(
            "memory", name, "there is not enough memory to decode it", "Make the image smaller"
        ) from error
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise _decoding_failed(error, known, content, stream, name) from error


def _decode(
    stream: _Content,
    known: ImageFormat,
    limits: Limits,
    name: str,
    enough: int | None,
    stopwatch: Stopwatch,
) -> Image.Image:
    image = known.open(stream)
    _check_sides(image.size, limits, name)
    if enough is not None:
        image.draft(None, (enough, enough))
    large = image.width * image.height > _LARGE
    with _large_turn.taken(limits.seconds, stopwatch) if large else nullcontext():
        stream.ran_out = False
        image.load()
        _check_whole(stream, known, name)
        turn = needed_turn(image)
        colours = to_rgb(image, name)
    return colours if turn is None else colours.transpose(turn)


def _check_sides(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise refusal(
            "too_large",
            name,
            f"it has {width} x {height} pixels, and at most {limits.max_pixels:,} are decoded",
            "Make it smaller",
            note="Or raise `Limits(max_pixels=...)`.",
        )
    if min(width, height) < limits.min_side:
        raise refusal(
            "too_small",
            name,
            f"it has {width} x {height} pixels, and the shorter side must have at least "
            f"{limits.min_side}",
            "Use a larger version",
            note="Or lower `Limits(min_side=...)`.",
        )


def _check_whole(stream: _Content, known: ImageFormat, name: str) -> None:
    # Another library may have told Pillow to fill up truncated images with grey
    # (`LOAD_TRUNCATED_IMAGES`). An embedding must not depend on that, so look for ourselves.
    if known.name == "JPEG" and stream.ran_out:
        raise _truncated(name)
    if known.name == "PNG" and ImageFile.LOAD_TRUNCATED_IMAGES:
        stream.seek(0)
        known.open(stream).verify()


def _truncated(name: str) -> ImageError:
    return refusal(
        "truncated", name, "the file ends before the image does", "Copy it again from its source"
    )


def _decoding_failed(
    error: Exception, known: ImageFormat, content: bytes, stream: _Content, name: str
) -> ImageError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    lowered = reason.lower()
    if isinstance(error, Image.DecompressionBombError):
        return refusal("too_large", name, "it claims far too many pixels", "Make it smaller")
    webp_cut = known.name == "WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content)
    if stream.ran_out or webp_cut or "truncat" in lowered or "not enough" in lowered:
        return _truncated(name)
    # Pillow looks pixel types and compressions up in dictionaries.
    unlisted = isinstance(error.__cause__, KeyError) or isinstance(error, ImportError)
    if unlisted or "unsupported" in lowered or "unknown" in lowered:
        return refusal(
            "unsupported",
            name,
            f"it is a {known.name} image of a kind that Pillow cannot read ({reason})",
            "Convert it to PNG or JPEG",
        )
    return refusal(
        "damaged",
        name,
        f"the {known.name} data is damaged ({reason})",
        "Copy it again from its source, or save it anew with an image program",
    )
