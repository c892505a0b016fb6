"""Pictures as bytes, to be sent."""

from __future__ import annotations

import io

from pictures import COLOURS, picture


def png(name: str, seed: int, size: int = 32) -> bytes:
    """The bytes of one picture."""
    content = io.BytesIO()
    picture(COLOURS[name], seed, size).save(content, "PNG")
    return content.getvalue()
