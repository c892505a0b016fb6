"""Which image formats are opened, told by their first bytes and never by the file's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import cast

from PIL import Image, features

__all__ = ["FORMATS", "IMAGE_EXTENSIONS", "ImageFormat", "recognise"]


@dataclass(frozen=True)
class ImageFormat:
    """A format that is opened: its name, Pillow's class for it, and how its files begin.

    `needs` is the optional part of Pillow that decodes it; "" where it is always there.
    """

    name: str
    module: str
    class_name: str
    matches: Callable[[bytes], bool]
    needs: str = ""

    def available(self) -> bool:
        """Whether this installation of Pillow can decode the format."""
        if not self.needs:
            return True
        try:
            return bool(features.check(self.needs))
        except ValueError:  # a Pillow that has never heard of it
            return False

    def open(self, stream: BytesIO) -> Image.Image:
        """Read the header.

        Pillow's class is called directly: `Image.open` would also apply the process-wide
        `MAX_IMAGE_PIXELS`, which belongs to the application and not to this package.
        """
        plugin = importlib.import_module(f"PIL.{self.module}")
        return cast("Image.Image", getattr(plugin, self.class_name)(stream, ""))


def _begins(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_avif(head: bytes) -> bool:
    # The brand may be a general one of the container; then AVIF stands among the compatible ones.
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return any(brands[i : i + 4] in (b"avif", b"avis") for i in range(0, len(brands), 4))


def _is_bmp(head: bytes) -> bool:
    # Two letters alone would make a bitmap of every text that begins with "BMW".
    header_size = int.from_bytes(head[14:18], "little")
    return head[:2] == b"BM" and header_size in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_ppm(head: bytes) -> bool:
    known = head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf")
    return known and head[2:3].isspace() and (head[3:4].isdigit() or head[3:4] in b"# \t\r\n")


FORMATS = (
    ImageFormat("JPEG", "JpegImagePlugin", "JpegImageFile", _begins(b"\xff\xd8\xff"), "jpg"),
    ImageFormat("PNG", "PngImagePlugin", "PngImageFile", _begins(b"\x89PNG\r\n\x1a\n"), "zlib"),
    ImageFormat("WEBP", "WebPImagePlugin", "WebPImageFile", _is_webp, "webp"),
    ImageFormat("GIF", "GifImagePlugin", "GifImageFile", _begins(b"GIF87a", b"GIF89a")),
    ImageFormat(
        "TIFF",
        "TiffImagePlugin",
        "TiffImageFile",
        _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    ImageFormat("BMP", "BmpImagePlugin", "BmpImageFile", _is_bmp),
    ImageFormat("AVIF", "AvifImagePlugin", "AvifImageFile", _is_avif, "avif"),
    ImageFormat(
        "JPEG2000",
        "Jpeg2KImagePlugin",
        "Jpeg2KImageFile",
        _begins(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
        "jpg_2000",
    ),
    ImageFormat("PPM", "PpmImagePlugin", "PpmImageFile", _is_ppm),
)

_OPENED = (
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .tif .tiff .bmp .dib .avif "
    ".jp2 .j2k .jpc .jpx .jpf .j2c .pbm .pgm .ppm .pnm .pfm"
)
# Formats that are not opened stand here too where cameras and design programs write them: such a
# file in a folder becomes a row that says so, rather than a picture that nobody missed.
_OTHERS = ".heic .heif .jxl .psd .svg .ico .tga .cr2 .cr3 .nef .arw .dng .orf .raf .rw2"
IMAGE_EXTENSIONS = frozenset(_OPENED.split() + _OTHERS.split())


def recognise(head: bytes) -> ImageFormat | None:
    """Return the format of a file from its first 64 bytes or more; None if it is not opened.

    Examples
    --------
    >>> recognise(b"GIF89a" + bytes(58)).name
    'GIF'
    >>> recognise(b"%PDF-1.7") is None
    True
    """
    return next((known for known in FORMATS if known.matches(head[:256])), None)
