"""Pictures as bytes, to be sent."""

from __future__ import annotations

import base64
import io

from pictures import COLOURS, picture


def png(name: str, seed: int, size: int = 32) -> bytes:
    """The bytes of one picture."""
    content = io.BytesIO()
    picture(COLOURS[name], seed, size).save(content, "PNG")
    return content.getvalue()


def as_files(images):
    """Images by name, as a form has them."""
    return [("images", (name, content)) for name, content in images]


def as_json(images):
    """The same as JSON."""
    return {
        "images": [
            {"name": name, "data": base64.b64encode(content).decode()} for name, content in images
        ]
    }
