"""Bytes to pixels, with every way to fail turned into an `ImageError`."""

from __future__ import annotations

import base64
import importlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from trustvlm.environment import pip_install
from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, Stopwatch, describe_exception, refusal
from trustvlm.images.formats import ImageFormat, recognise, unsupported_format
from trustvlm.images.references import check_size, read_bytes
from trustvlm.images.tiff import BandLayout, read_layout

# Images above this many pixels are decoded one at a time, so that a folder of panoramas needs the
# memory of one of them and not of one per thread.
_LARGE = 25_000_000


# Scans of a JPEG. Programs write ten or so; the standard would allow some hundred.
MOST_SCANS = 500


class _OneAtATime:
    """A lock that is lost by a holder that keeps it beyond the time limit."""

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


_large_images = _OneAtATime()


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
    plain_rgb: bool = False,
    stopwatch: Stopwatch | None = None,
) -> Image.Image:
    """Decode one image to 8-bit RGB, upright, whatever its format and pixel type.

    The content decides what the file is, not its name: a PNG called `.jpg` is fine. Of animated
    images and documents of several pages the first is taken. EXIF orientation is applied; `to_rgb`
    says what becomes of grey, palette, alpha, 16-bit, float and CMYK. Safe to call from any number
    of threads; no setting of Pillow is changed.

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
        resized, and nearly the same. None decodes every pixel. Other formats ignore it. The limit
        on pixels is for what is decoded, which of a progressive JPEG is all of it.
    plain_rgb
        Take Pillow's `convert("RGB")` for all of what is said above: alpha is dropped, what has
        more than 8 bits is cut off, and no EXIF orientation is applied. So did the script that the
        paper's authors released. What Pillow does not open is read as ever.
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
    image_format = recognise(content)
    if image_format is None:
        raise unsupported_format(content, name)
    if image_format.extra and not image_format.available():
        raise refusal(
            "unsupported",
            name,
            f"it is a {image_format.name} image, and the extra `{image_format.extra}` that reads "
            "them is not installed",
            f"Install it with: {pip_install(image_format.extra)}, or convert it to PNG or JPEG",
        )
    if not image_format.available():
        raise refusal(
            "unsupported",
            name,
            f"it is a {image_format.name} image, which this installation of Pillow cannot read",
            "Install a newer Pillow, or convert it to PNG or JPEG",
        )
    if limits.formats is not None and image_format.name not in limits.formats:
        raise refusal(
            "unsupported",
            name,
            f"it is a {image_format.name} image, which is not opened here",
            "Convert it to PNG or JPEG",
        )
    # Each scan of a progressive JPEG goes over all of its pixels, however few bytes it has.
    n_scans = content.count(b"\xff\xda") if image_format.name == "JPEG" else 0
    if n_scans > MOST_SCANS:
        raise refusal(
            "damaged",
            name,
            f"it has {n_scans:,} scans, and no camera or program writes more than a few",
            "Save it anew with an image program",
        )
    if image_format.name == "PNG":
        content = _without_ancillary(content)
    stream = _Content(content)
    try:
        with quiet_pillow():
            return _decode(
                stream,
                image_format,
                limits,
                name,
                enough,
                stopwatch or Stopwatch(),
                plain_rgb=plain_rgb,
            )
    except ImageError:
        raise
    except MemoryError as error:
        raise refusal(
            "memory", name, "there is not enough memory to decode it", "Make the image smaller"
        ) from error
    except Exception as error:  # Pillow's plugins raise nearly everything on damaged files
        raise _decoding_failed(error, image_format, content, stream, name) from error


# Of the chunks of a PNG that may be there or not, those that change pixels. Pillow refuses a
# picture for damage in any other: texts or profiles larger than it thinks sound, a wrong checksum
# of a gamma value. None of them is applied here, and of the texts only XMP may tell how to turn.
_OF_PIXELS = frozenset({b"tRNS", b"eXIf"})
_XMP = b"XML:com.adobe.xmp\0"
_LARGEST_XMP = 1 << 19


def _without_ancillary(content: bytes) -> bytes:
    """Return a PNG without chunks that say nothing of its pixels; as it is if it is damaged."""
    # Views, since the pixels may be many: they are copied once.
    view, kept, start, position = memoryview(content), [], 0, 8
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 12 + size
        if end > len(content):
            break
        is_xmp = content.startswith(_XMP, position + 8) and size <= _LARGEST_XMP
        # As the specification has it, and Pillow would expand it however large it becomes.
        is_xmp = is_xmp and content[position + 8 + len(_XMP)] == 0
        # The first letter is small in names of chunks that a reader may pass over.
        if kind[:1].islower() and kind not in _OF_PIXELS and not is_xmp:
            kept.append(view[start:position])
            start = end
        if kind == b"IEND":
            break
        position = end
    return b"".join((*kept, view[start:])) if kept else content


def _decode(
    stream: _Content,
    image_format: ImageFormat,
    limits: Limits,
    name: str,
    enough: int | None,
    stopwatch: Stopwatch,
    *,
    plain_rgb: bool,
) -> Image.Image:
    layout = read_layout(stream.getvalue()) if image_format.name == "TIFF" else None
    try:
        image = image_format.open(stream)
    except Exception:
        if layout is None:
            raise
        return _decode_bands(layout, stream, limits, name, stopwatch)
    if layout is not None and layout.is_misread and not plain_rgb:
        return _decode_bands(layout, stream, limits, name, stopwatch)
    size, n_pixels = image.size, image.width * image.height
    if enough is not None:
        image.draft(None, (enough, enough))
        if _is_in_one_scan(image, stream):
            n_pixels = image.width * image.height
    check_sides(size, n_pixels, limits, name)
    with _turn(n_pixels, limits, stopwatch):
        stream.ran_out = False
        image.load()
        _check_whole(stream, image_format, name)
        if plain_rgb:
            return image.convert("RGB")
        orientation = exif_orientation(image)
        rgb = to_rgb(image, name)
    return rgb if orientation is None else rgb.transpose(orientation)


def _decode_bands(
    layout: BandLayout, stream: _Content, limits: Limits, name: str, stopwatch: Stopwatch
) -> Image.Image:
    check_sides((layout.width, layout.height), layout.n_pixels, limits, name)
    with _turn(layout.n_pixels, limits, stopwatch):
        rgb = bands_to_rgb(layout.read(stream.getvalue()), layout, name)
    orientation = _TRANSPOSES.get(layout.orientation)
    return rgb if orientation is None else rgb.transpose(orientation)


def _turn(n_pixels: float, limits: Limits, stopwatch: Stopwatch) -> AbstractContextManager[None]:
    large = n_pixels > _LARGE
    return _large_images.taken(limits.seconds, stopwatch) if large else nullcontext()


def _is_in_one_scan(image: Image.Image, stream: _Content) -> bool:
    """Whether a JPEG can be decoded at a reduced size in the memory of that size.

    One of several scans, as progressive ones are, is held whole. The header of the first scan has
    just been read; it names all components if there is no other.
    """
    if image.format != "JPEG" or "progressive" in image.info:
        return False
    n = len(image.getbands())
    header = b"\xff\xda" + (6 + 2 * n).to_bytes(2, "big") + bytes([n])
    return stream.getvalue().startswith(header, stream.tell() - (8 + 2 * n))


def check_sides(size: tuple[int, int], n_pixels: float, limits: Limits, name: str) -> None:
    """Refuse a picture by its sides, and by how many pixels of it would be decoded."""
    width, height = size
    if n_pixels > limits.max_pixels:
        more = f" and many bands, as much as {n_pixels:,.0f} pixels"
        raise refusal(
            "too_large",
            name,
            f"it has {width} x {height} pixels{more if n_pixels > width * height else ''}, and at "
            f"most {limits.max_pixels:,} are decoded",
            "Make it smaller, or allow more with --max-pixels",
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


def _check_whole(stream: _Content, image_format: ImageFormat, name: str) -> None:
    # Another library may have set Pillow to fill up truncated images with grey
    # (`LOAD_TRUNCATED_IMAGES`). An embedding must not depend on that, so look for ourselves.
    if image_format.name == "JPEG" and stream.ran_out:
        raise _truncated(name)
    if image_format.name == "PNG" and ImageFile.LOAD_TRUNCATED_IMAGES:
        stream.seek(0)
        image_format.open(stream).verify()
    if image_format.name == "HEIC" and ImageFile.LOAD_TRUNCATED_IMAGES:
        stream.seek(0)
        importlib.import_module(image_format.plugin).read_heif(stream)


def _truncated(name: str) -> ImageError:
    return refusal(
        "truncated", name, "the file ends before the image does", "Copy it again from its source"
    )


def _decoding_failed(
    error: Exception, image_format: ImageFormat, content: bytes, stream: _Content, name: str
) -> ImageError:
    reason = describe_exception(error)
    lowered = reason.lower()
    if isinstance(error, Image.DecompressionBombError):
        return refusal("too_large", name, "it claims far too many pixels", "Make it smaller")
    webp_cut = image_format.name == "WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(
        content
    )
    if stream.ran_out or webp_cut or "truncat" in lowered or "not enough" in lowered:
        return _truncated(name)
    # Pillow looks pixel types and compressions up in dictionaries.
    unlisted = isinstance(error.__cause__, KeyError) or isinstance(error, ImportError)
    if unlisted or "unsupported" in lowered or "unknown" in lowered:
        return refusal(
            "unsupported",
            name,
            f"it is a {image_format.name} image of a kind that Pillow cannot read ({reason})",
            "Convert it to PNG or JPEG",
        )
    return refusal(
        "damaged",
        name,
        f"the {image_format.name} data is damaged ({reason})",
        "Copy it again from its source, or save it anew with an image program",
    )


# Keep Pillow's remarks about odd metadata away from the user, in any number of threads.

# Without a handler of its own, Pillow's logger would print errors of single files on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_lock = threading.Lock()
_users = 0
_entry: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's modules raise, for as long as any thread is inside.

    `warnings.catch_warnings` swaps the whole list of filters of the process, which goes wrong
    when threads overlap. This adds one entry when the first thread enters and takes the same
    entry out when the last one leaves.

    Examples
    --------
    >>> with quiet_pillow():
    ...     warnings.warn_explicit("odd tag", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
    """
    global _users, _entry
    with _lock:
        _users += 1
        if _users == 1:
            warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
            _entry = warnings.filters[0]
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            # The list may meanwhile be another one: someone entered or left `catch_warnings`.
            filters = cast("list[Any]", warnings.filters)
            if _users == 0 and _entry in filters:
                filters.remove(_entry)


# EXIF orientation: turn an image the way its camera was held.

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright by its EXIF or XMP orientation; None for nothing.

    Damaged metadata and orientations outside 1-8 are ignored: the pixels are still good.

    Examples
    --------
    >>> lying = Image.new("RGB", (40, 30))
    >>> lying.getexif()[ExifTags.Base.Orientation] = 6
    >>> lying.transpose(exif_orientation(lying)).size
    (30, 40)
    """
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


# Bring every pixel format to 8-bit RGB by stated rules.
#
# =====================================  =========================================================
# source                                 rule
# =====================================  =========================================================
# 1 bit, 8-bit grey, palette, YCbCr,     Pillow's conversion; embedded colour profiles are not
# LAB, CMYK                              applied, as in the training of CLIP and its kin
# alpha, or a colour marked transparent  composited over white, as on a page
# grey of up to 16 bits                  full range: 0 is black, the largest value that the depth
#                                        can hold is white, rounded
# grey of 32 bits, signed, or float      these have no range of their own: the least value of the
#                                        image is black, its largest white; NaN or infinity is an
#                                        error; an image of one value is black
# colours of 16 bits                     the upper 8 bits
# two bands, or more than four           the first, or the first three as red, green, blue. 8 bits
#                                        stay as they are; others, of more than four bands, have no
#                                        range of their own: the least value of the three bands is
#                                        black, their largest white
# =====================================  =========================================================
#
# The full-range rule does not look at the other pixels, so that an 8-bit image widened to 16 bits
# (each value times 257) comes out as it was.

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# Formats in which Pillow holds unsigned 16-bit grey in 32-bit integers.
_SIXTEEN_IN_32 = {"PNG", "PPM", "JPEG2000"}


def to_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Convert a loaded image of any mode to RGB by the table above.

    Raises
    ------
    ImageError
        Of kind `non_finite` for a float image with NaN or infinity.

    Examples
    --------
    >>> to_rgb(Image.new("LA", (8, 8), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.new("I;16", (8, 8), 128 * 257)).getpixel((0, 0))
    (128, 128, 128)
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_IN_32):
        return _from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        white_is_zero = image.mode == "F" and _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
        return _stretched(np.asarray(image), name, white_is_zero=white_is_zero)
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    bits = _tag(image, _BITS_PER_SAMPLE, (16,))[0]
    white = (1 << bits) - 1
    grey = np.clip((values * 255 + white // 2) // white, 0, 255).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def bands_to_rgb(values: NDArray[Any], layout: BandLayout, name: str) -> Image.Image:
    """Convert the values of one band, or of three, by the table above."""
    if values.shape[2] == 1:
        values = values[..., 0]
    dtype = layout.dtype
    if dtype.kind == "u" and dtype.itemsize == 1:
        eight = values.astype(np.uint8)
    elif dtype.kind == "u" and dtype.itemsize == 2 and layout.n_bands <= 4:
        eight = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    else:
        return _stretched(values, name, white_is_zero=layout.white_is_zero)
    return Image.fromarray(255 - eight if layout.white_is_zero else eight).convert("RGB")


def _stretched(values: NDArray[Any], name: str, *, white_is_zero: bool) -> Image.Image:
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise refusal(
            "non_finite",
            name,
            "some of its pixel values are NaN or infinite",
            "Fill them in and save it again",
        )
    low, high = values.min(), values.max()
    span = high - low
    scaled = (values - low) * (255.0 / span) if span > 0 else np.zeros_like(values)
    grey = np.rint(scaled).astype(np.uint8)
    if white_is_zero:
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow divides only into the same family
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


# Small pictures as data URIs, so that a page needs no other file.


def thumbnail(source: Path | None, side: int = 128) -> str:
    """Return an upright JPEG of at most `side` pixels as a data URI; "" if the file is unusable.

    A report is made some time after the evaluation, and files move: a missing one is no reason to
    fail, nor is an image that is no file on this machine (None).

    Examples
    --------
    >>> thumbnail(Path("no such file.png"))
    ''
    """
    if source is None:
        return ""
    try:
        picture = small_jpeg(source, side, quality=82, optimize=True)
    except ImageError:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"


def small_jpeg(
    source: Path | bytes, side: int, limits: Limits = DEFAULT_LIMITS, **options: Any
) -> bytes:
    """Return an upright JPEG of at most `side` pixels; `options` are Pillow's for writing it.

    Raises
    ------
    ImageError
        If the image cannot be decoded.
    """
    picture = decode(source, limits)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = BytesIO()
    picture.save(stream, format="JPEG", **options)
    return stream.getvalue()
