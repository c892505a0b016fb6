"""Turn an image the way its camera was held."""

from __future__ import annotations

from PIL import ExifTags, Image

__all__ = ["needed_turn"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def needed_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright by its EXIF or XMP orientation; None for nothing.

    Damaged metadata and orientations outside 1-8 are ignored: the pixels are still good.

    Examples
    --------
    >>> lying = Image.new("RGB", (40, 30))
    >>> lying.getexif()[ExifTags.Base.Orientation] = 6
    >>> lying.transpose(needed_turn(lying)).size
    (30, 40)
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None
