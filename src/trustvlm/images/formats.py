"""Which image formats are opened; the first bytes decide, never the file's name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import PurePosixPath
from typing import cast

import PIL
from PIL import Image, features

from trustvlm.exceptions import ImageError
from trustvlm.images.errors import refusal


@dataclass(frozen=True)
class ImageFormat:
    """A format that is opened: its name, Pillow's plugin for it, and how its files begin.

    `needs` is the optional part of Pillow that decodes it; "" where it is always there. `extra` is
    the extra that brings the plugin, where it is none of Pillow's.
    """

    name: str
    plugin: str
    matches: Callable[[bytes], bool]
    needs: str = ""
    extra: str = ""

    def available(self) -> bool:
        """Whether this installation can decode the format."""
        if self.extra:
            try:
                importlib.import_module(self.plugin)
            except ImportError:
                return False
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
        if self.extra:
            return cast("Image.Image", importlib.import_module(self.plugin).HeifImageFile(stream))
        module = importlib.import_module(f"PIL.{self.plugin}ImagePlugin")
        return cast("Image.Image", getattr(module, f"{self.plugin}ImageFile")(stream, ""))


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


_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _is_bmp(head: bytes) -> bool:
    # Two letters alone would make a bitmap of every text that begins with "BMW".
    header_size = int.from_bytes(head[14:18], "little")
    return head[:2] == b"BM" and header_size in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_run_length_bmp(head: bytes) -> bool:
    # Pillow decodes these in Python, at the speed of a claim that a few bytes can make.
    return _is_bmp(head) and int.from_bytes(head[30:34], "little") in (1, 2) and head[14] >= 40


def _is_ppm(head: bytes) -> bool:
    is_type = head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf")
    return is_type and head[2:3].isspace() and (head[3:4].isdigit() or head[3:4] in b"# \t\r\n")


FORMATS = (
    ImageFormat("JPEG", "Jpeg", _begins(b"\xff\xd8\xff"), "jpg"),
    ImageFormat("PNG", "Png", _begins(b"\x89PNG\r\n\x1a\n"), "zlib"),
    ImageFormat("WEBP", "WebP", _is_webp, "webp"),
    ImageFormat("GIF", "Gif", _begins(b"GIF87a", b"GIF89a")),
    ImageFormat("TIFF", "Tiff", _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ImageFormat("run-length encoded BMP", "Bmp", _is_run_length_bmp),
    ImageFormat("BMP", "Bmp", _is_bmp),
    ImageFormat("AVIF", "Avif", _is_avif, "avif"),
    ImageFormat(
        "JPEG2000",
        "Jpeg2K",
        _begins(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
        "jpg_2000",
    ),
    ImageFormat("PPM", "Ppm", _is_ppm),
    ImageFormat("HEIC", "pillow_heif", _is_heif, extra="heic"),
)

# What a service opens that anyone may send to: the formats that people have pictures in, and of
# which no decoder is written in Python.
SERVED_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "HEIC"})

# Raised when this package's own decoding, or `Preprocessing.pixels`, gives other pixels: the tests
# compare them with some that were recorded.
PIXELS_REVISION = 1
# The parts of Pillow, by its names for them, that turn bytes into pixels, but for zlib, which loses
# nothing.
_DECODERS = ("jpg", "libjpeg_turbo", "webp", "jpg_2000", "libtiff", "avif")


@cache
def pixel_versions() -> str:
    """Say which versions make the pixels of an image here: of Pillow, its decoders, this package.

    Pillow resizes, too, and not all of its versions alike: 13 shrinks tall images along their
    height first.

    Examples
    --------
    >>> pixel_versions().startswith("trustvlm 1, Pillow ")
    True
    """
    versions = {"trustvlm": str(PIXELS_REVISION), "Pillow": PIL.__version__}
    for name in _DECODERS:
        with suppress(ValueError):  # a Pillow that has never heard of it
            versions[name] = str(features.version(name))
    with suppress(PackageNotFoundError):
        versions["pillow-heif"] = version("pillow-heif")
    return ", ".join(f"{name} {number}" for name, number in versions.items())


_OPENED = (
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .tif .tiff .bmp .dib .avif "
    ".jp2 .j2k .jpc .jpx .jpf .j2c .pbm .pgm .ppm .pnm .pfm .heic .heif .hif"
)
# Formats that are not opened stand here too where cameras and design programs write them: such a
# file in a folder becomes a row that says so, rather than a picture that nobody missed.
_OTHERS = ".jxl .psd .svg .ico .tga .cr2 .cr3 .nef .arw .dng .orf .raf .rw2"
IMAGE_EXTENSIONS = frozenset(_OPENED.split() + _OTHERS.split())
"""The endings of names that make a file in a folder an image."""


def looks_like_image(name: str) -> bool:
    """Whether a file name has the extension of an image, in any case.

    Examples
    --------
    >>> looks_like_image("IMG_0001.JPG"), looks_like_image("notes.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS


def recognise(head: bytes) -> ImageFormat | None:
    """Return the format of a file from its first 64 bytes or more; None if it is not opened.

    Examples
    --------
    >>> recognise(b"GIF89a" + bytes(58)).name
    'GIF'
    >>> recognise(b"%PDF-1.7") is None
    True
    """
    return next(
        (image_format for image_format in FORMATS if image_format.matches(head[:256])), None
    )


def is_image_content(head: bytes) -> bool:
    r"""Whether a file begins as an image does, of a format that is opened or of one that is not.

    Documents, archives and videos are no images.

    Examples
    --------
    >>> is_image_content(b"GIF89a"), is_image_content(b"8BPS\0\1"), is_image_content(b"%PDF-1.7")
    (True, True, False)
    """
    if recognise(head) is not None:
        return True
    return any(
        head.startswith(prefix) and kind == "unsupported" and thing not in _DOCUMENTS
        for prefix, thing, kind, _ in _SIGNATURES
    )


def is_other_content(head: bytes) -> bool:
    r"""Whether a file begins as something that is surely no image, such as an archive.

    Examples
    --------
    >>> is_other_content(b"Rar!"), is_other_content(b"GIF89a"), is_other_content(b"path,label")
    (True, False, False)
    """
    return any(head.startswith(s) and kind == "not_image" for s, _, kind, _ in _SIGNATURES)


# What a file is that is in no supported format: most often that names the remedy.

_CONVERT = "Convert it to PNG or JPEG"
_FETCH = "Fetch the image again; a server may have sent this in its place"

# Beginning of the file, what it is, kind, remedy.
_SIGNATURES: tuple[tuple[bytes, str, str, str], ...] = (
    (b"%PDF", "a PDF document", "unsupported", "Render its pages to PNG or JPEG"),
    (b"8BPS", "a Photoshop document", "unsupported", _CONVERT),
    (b"\xff\x0a", "a JPEG XL image", "unsupported", _CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image", "unsupported", _CONVERT),
    (b"\0\0\x01\0", "a Windows icon", "unsupported", _CONVERT),
    (b"%!PS", "a PostScript file", "unsupported", _CONVERT),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file", "unsupported", _CONVERT),
    (b"gimp xcf", "a GIMP document", "unsupported", _CONVERT),
    (b"v/1\x01", "an OpenEXR image", "unsupported", _CONVERT),
    (b"#?RADIANCE", "a Radiance image", "unsupported", _CONVERT),
    (b"DDS ", "a DDS texture", "unsupported", _CONVERT),
    (b"FUJIFILMCCD-RAW", "a camera's raw file", "unsupported", _CONVERT),
    (b"IIRO", "a camera's raw file", "unsupported", _CONVERT),
    (b"IIU\0", "a camera's raw file", "unsupported", _CONVERT),
    (b"SIMPLE  =", "a FITS file", "unsupported", _CONVERT),
    (b"PK\x03\x04", "a zip archive or an office document", "not_image", "Unpack it first"),
    (b"\x1f\x8b", "a gzip archive", "not_image", "Unpack it first"),
    (b"BZh", "a bzip2 archive", "not_image", "Unpack it first"),
    (b"\xfd7zXZ\0", "an xz archive", "not_image", "Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "not_image", "Unpack it first"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", "not_image", "Unpack it first"),
    (b"\x1f\x9d", "an archive of compress", "not_image", "Unpack it first"),
    (b"LZIP", "an lzip archive", "not_image", "Unpack it first"),
    (b"MSCF", "a cabinet archive", "not_image", "Unpack it first"),
    (b"!<arch>\n", "an ar archive", "not_image", "Unpack it first"),
    (b"070701", "a cpio archive", "not_image", "Unpack it first"),
    (b"PAR1", "a Parquet file", "not_image", "Name it with the ending .parquet"),
    (b"ARROW1", "an Arrow or Feather file", "not_image", "Write it as Parquet"),
    (b"\x93NUMPY", "a NumPy array", "not_image", "Save its images as PNG"),
    (b"\x89HDF", "an HDF5 file", "not_image", "Save its images as PNG"),
    (b"SQLite format 3", "a database", "not_image", "Save its images as files"),
    (b"Rar!", "a RAR archive", "not_image", "Unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "not_image", "Unpack it first"),
    (b"\x1aE\xdf\xa3", "a video", "not_image", "Extract its frames first"),
    (b"\x7fELF", "a program", "not_image", "Leave it out"),
    (b"version https://git-lfs", "a Git LFS pointer", "not_image", "Run `git lfs pull`"),
)
_DOCUMENTS = frozenset({"a PDF document", "a PostScript file", "a FITS file"})


def unsupported_format(content: bytes, name: str) -> ImageError:
    """Build the error for content that is in none of the formats that are opened.

    Examples
    --------
    >>> unsupported_format(b"<html>404 Not Found</html>", "cat.jpg").kind
    'not_image'
    >>> print(unsupported_format(b"%PDF-1.7", "scan.jpg"))
    scan.jpg: the content is a PDF document. Render its pages to PNG or JPEG.
    """
    for prefix, thing, kind, remedy in _SIGNATURES:
        if content.startswith(prefix):
            return _error(kind, name, thing, remedy)
    if content[257:262] == b"ustar":
        return _error("not_image", name, "a tar archive", "Name it with the ending .tar")
    if content[4:8] == b"ftyp":
        if content[8:11] == b"crx":
            return _error("unsupported", name, "a camera's raw file", _CONVERT)
        return _error("not_image", name, "a video", "Extract its frames first")
    if content[:4] == b"RIFF":
        return _error("not_image", name, "a sound or video file", "Extract its frames first")
    if not any(content[:4096]):
        return _error("not_image", name, "nothing but zero bytes", "Copy it again from its source")
    text = _as_text(content)
    if text is not None:
        lowered = text.lower()
        if "<svg" in lowered:
            return _error("unsupported", name, "an SVG drawing", "Render it to PNG")
        if "<html" in lowered or "<!doctype html" in lowered:
            return _error("not_image", name, "a web page", _FETCH)
        beginning = " ".join(text.split())[:40]
        return _error("not_image", name, f"text ({beginning!r})", _FETCH)
    beginning = content[:8].hex(" ")
    return _error("not_image", name, f"of no known format (it begins with {beginning})", _FETCH)


def _error(kind: str, name: str, thing: str, remedy: str) -> ImageError:
    return refusal(kind, name, f"the content is {thing}", remedy)


def _as_text(content: bytes) -> str | None:
    start = content[:4096]
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        # The cut may split a character; that alone does not make it binary.
        text = start.decode(encoding, errors="strict" if len(content) <= 4096 else "ignore")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text
