"""HEIC images, as phones write them: read with the extra, named without it."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile

from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, decode
from trustvlm.images.formats import is_image_content, looks_like_image

HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
Y, X = np.mgrid[0:40, 0:60]
SMOOTH = np.stack([X * 4, Y * 6, 255 - X * 4], axis=-1).astype(np.uint8)


def heic(image: Image.Image, **options: object) -> bytes:
    """The bytes of a HEIC image; the test is skipped without the extra."""
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra heic")
    stream = io.BytesIO()
    heif.from_pillow(image).save(stream, format="HEIF", quality=95, **options)
    return stream.getvalue()


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"HEIC image.*`heic`.*trustvlm\[heic\].*PNG or JPEG"
    ) as caught:
        decode(HEAD, name="IMG_1.HEIC")
    assert caught.value.kind == "unsupported"


def test_it_is_an_image_by_name_and_by_content():
    assert looks_like_image("IMG_1.HEIC")
    assert looks_like_image("a.hif")
    assert is_image_content(HEAD)


def test_a_picture_comes_back():
    got = np.asarray(decode(heic(Image.fromarray(SMOOTH))), int)
    assert got.shape == SMOOTH.shape
    assert np.abs(got - SMOOTH).mean() < 4


def test_alpha_is_composited_over_white_and_orientation_applied_once():
    clear = Image.fromarray(np.dstack([SMOOTH, np.zeros((40, 60), np.uint8)]), "RGBA")
    assert np.asarray(decode(heic(clear))).min() > 250
    assert np.asarray(decode(heic(clear), plain_rgb=True)).min() < 200
    turned = Image.fromarray(SMOOTH)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(heic(turned, exif=exif.tobytes())).size == (40, 60)


def test_limits_hold_before_and_damage_is_an_error(monkeypatch):
    content = heic(Image.fromarray(SMOOTH))
    with pytest.raises(ImageError) as large:
        decode(content, Limits(max_pixels=1000))
    assert large.value.kind == "too_large"
    # Another library may let Pillow fill up what is missing.
    for tolerant in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
        for cut in (len(content) - 200, len(content) // 2, 40):
            with pytest.raises(ImageError) as caught:
                decode(content[:cut])
            assert caught.value.kind in {"truncated", "damaged"}
