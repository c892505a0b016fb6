"""Small pictures as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from trustvlm.exceptions import ImageError

__all__ = ["thumbnail"]


def thumbnail(source: Path, side: int = 128) -> str:
    """Return an upright JPEG of at most `side` pixels as a data URI; "" if the file is unusable.

    A report is made some time after the evaluation, and files move: a missing one is no reason to
    fail.

    Examples
    --------
    >>> thumbnail(Path("no such file.png"))
    ''
    """
    from PIL import Image

    from trustvlm.images.decoding import decode

    try:
        picture = decode(source)
    except ImageError:
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
