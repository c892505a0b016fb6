"""Large JPEGs decoded at a reduced size: only where asked for, only as far as allowed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, decode
from trustvlm.models import Preprocessing

# Smooth and large; a photograph of many pixels is smooth, too.
Y, X = np.mgrid[0:1200, 0:1600]
SMOOTH = np.stack([127 + 120 * np.sin(X / 90), 127 + 120 * np.cos(Y / 70), X / 7], -1)
PHOTO = Image.fromarray(SMOOTH.astype(np.uint8))


def saved(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("enough", "size"),
    [
        (None, (1600, 1200)),
        (1200, (1600, 1200)),
        (601, (1600, 1200)),
        (600, (800, 600)),
        (512, (800, 600)),
        (300, (400, 300)),
        (10, (200, 150)),
    ],
)
def test_the_smallest_scale_that_leaves_enough(enough: int | None, size: tuple[int, int]) -> None:
    assert decode(saved(PHOTO), enough=enough).size == size


def test_other_formats_and_small_images_are_decoded_whole() -> None:
    assert decode(saved(PHOTO, "PNG"), enough=10).size == (1600, 1200)
    assert decode(saved(PHOTO.resize((300, 200))), enough=256).size == (300, 200)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_kinds_of_jpeg_become_rgb_as_well(mode: str) -> None:
    image = decode(saved(PHOTO.convert(mode)), enough=512)
    assert (image.mode, image.size) == ("RGB", (800, 600))


def test_it_is_turned_upright_and_a_cut_file_is_still_an_error() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(PHOTO, exif=exif)
    assert decode(content, enough=512).size == (600, 800)
    with pytest.raises(ImageError) as caught:
        decode(content[: len(content) // 2], enough=512)
    assert caught.value.kind == "truncated"


def test_after_the_resize_the_pixels_are_nearly_the_same() -> None:
    exact, fast = Preprocessing(), Preprocessing(draft=True)
    assert (exact.enough, fast.enough) == (None, 512)
    assert Preprocessing(size=(384, 384), resize=None, draft=True).enough == 768
    content = saved(PHOTO, quality=95)
    whole = exact.pixels(decode(content, enough=exact.enough)).astype(int)
    reduced = fast.pixels(decode(content, enough=fast.enough)).astype(int)
    assert np.abs(whole - reduced).mean() < 1
    assert not np.array_equal(whole, reduced)


def test_settings_from_before_it_mean_the_same_as_ever() -> None:
    assert "draft" not in Preprocessing().to_dict()
    for preprocessing in (Preprocessing(), Preprocessing(draft=True)):
        assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


def test_the_limit_on_pixels_is_for_what_is_decoded() -> None:
    content, limits = saved(PHOTO), Limits(max_pixels=800 * 600)
    assert decode(content, limits, enough=512).size == (800, 600)
    for more in (content, saved(PHOTO.convert("L")), saved(PHOTO, "PNG")):
        with pytest.raises(ImageError, match=r"1600 x 1200 pixels.*--max-pixels"):
            decode(more, limits, enough=512 if more[:4] == b"\x89PNG" else None)
    assert decode(saved(PHOTO.convert("L")), limits, enough=512).size == (800, 600)


def test_a_jpeg_of_several_scans_is_held_whole_and_counts_so() -> None:
    progressive = saved(PHOTO, progressive=True)
    with pytest.raises(ImageError, match="1600 x 1200 pixels"):
        decode(progressive, Limits(max_pixels=800 * 600), enough=512)
    assert decode(progressive, Limits(max_pixels=1600 * 1200), enough=512).size == (800, 600)
    # One scan for each colour: the first names one component of three.
    content = saved(PHOTO)
    at = content.index(b"\xff\xda")
    alone = content[:at] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + content[at + 14 :]
    with pytest.raises(ImageError, match="1600 x 1200 pixels"):
        decode(alone, Limits(max_pixels=800 * 600), enough=512)
