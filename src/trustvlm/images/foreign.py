"""Say what a file is that is not an image we open: most often the name of the cure."""

from __future__ import annotations

import re

from trustvlm.exceptions import ImageError
from trustvlm.images.kinds import refusal

__all__ = ["explain_foreign"]

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
    (b"Rar!", "a RAR archive", "not_image", "Unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "not_image", "Unpack it first"),
    (b"\x1aE\xdf\xa3", "a video", "not_image", "Extract its frames first"),
    (b"\x7fELF", "a program", "not_image", "Leave it out"),
    (b"version https://git-lfs", "a Git LFS pointer", "not_image", "Run `git lfs pull`"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def explain_foreign(content: bytes, name: str) -> ImageError:
    """Build the error for content that is in none of the formats that are opened.

    Examples
    --------
    >>> explain_foreign(b"<html>404 Not Found</html>", "cat.jpg").kind
    'not_image'
    >>> print(explain_foreign(b"%PDF-1.7", "scan.jpg"))
    scan.jpg: the content is a PDF document. Render its pages to PNG or JPEG.
    """
    for prefix, thing, kind, remedy in _SIGNATURES:
        if content.startswith(prefix):
            return _error(kind, name, thing, remedy)
    if content[4:8] == b"ftyp":
        return _container(content, name)
    if content[:4] == b"RIFF":
        return _error("not_image", name, "a sound or video file", "Extract its frames first")
    if not any(content[:4096]):
        return _error("not_image", name, "nothing but zero bytes", "Copy it again from its source")
    text = _as_text(content)
    if text is not None:
        return _text(text, name)
    beginning = content[:8].hex(" ")
    return _error("not_image", name, f"of no known format (it begins with {beginning})", _FETCH)


def _error(kind: str, name: str, thing: str, remedy: str) -> ImageError:
    return refusal(kind, name, f"the content is {thing}", remedy)


def _container(content: bytes, name: str) -> ImageError:
    if content[8:12] in _HEIF_BRANDS:
        return _error("unsupported", name, "a HEIC image", _CONVERT)
    if content[8:11] == b"crx":
        return _error("unsupported", name, "a camera's raw file", _CONVERT)
    return _error("not_image", name, "a video", "Extract its frames first")


def _as_text(content: bytes) -> str | None:
    start = content[:4096]
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        # The cut may split a character; that alone does not make it binary.
        text = start.decode(encoding, errors="strict" if len(content) <= 4096 else "ignore")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text


def _text(text: str, name: str) -> ImageError:
    lowered = text.lower()
    if "<svg" in lowered:
        return _error("unsupported", name, "an SVG drawing", "Render it to PNG")
    if "<html" in lowered or "<!doctype html" in lowered:
        return _error("not_image", name, "a web page", _FETCH)
    beginning = " ".join(text.split())[:40]
    return _error("not_image", name, f"text ({beginning!r})", _FETCH)
