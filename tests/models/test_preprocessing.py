"""Pixels as Pillow, transformers and torchvision make them, without ever making a huge image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trustvlm.exceptions import InputError
from trustvlm.models.base import CLIP_MEAN, CLIP_STD, Preprocessing

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def noise(width: int, height: int, *, seed: int = 0, harsh: bool = False) -> Image.Image:
    """Noise shows every misplaced weight; black and white noise overshoots and is clipped."""
    levels = 2 if harsh else 256
    values = np.random.default_rng(seed).integers(0, levels, (height, width, 3))
    return Image.fromarray((values * (255 // (levels - 1))).astype(np.uint8))


def resize_then_crop(
    image: Image.Image, shorter: int, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    width, height = image.size
    if width <= height:
        full = (shorter, int(shorter * height / width))
    else:
        full = (int(shorter * width / height), shorter)
    left, top = (full[0] - size[1]) // 2, (full[1] - size[0]) // 2
    resized = np.asarray(image.resize(full, FILTERS[interpolation]))
    return resized[top : top + size[0], left : left + size[1]]


sides = st.integers(1, 300)


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.sampled_from([32, 36, 41]), st.sampled_from(sorted(FILTERS)), st.booleans())
def test_the_crop_equals_that_of_the_whole_resized_image(width, height, shorter, name, harsh):
    image = noise(width, height, harsh=harsh)
    actual = Preprocessing(size=(32, 30), resize=shorter, interpolation=name).pixels(image)
    np.testing.assert_array_equal(actual, resize_then_crop(image, shorter, (32, 30), name))


@pytest.mark.parametrize("size", [(640, 480), (481, 333), (1, 1), (7, 500), (224, 224), (225, 224)])
def test_clip_at_its_real_size(size):
    image = noise(*size)
    actual = Preprocessing().pixels(image)
    assert actual.shape == (224, 224, 3)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, resize_then_crop(image, 224, (224, 224), "bicubic"))


@pytest.mark.parametrize("size", [(640, 480), (3, 5), (1, 900), (224, 224)])
def test_squashing_ignores_the_aspect_ratio(size):
    image = noise(*size)
    actual = Preprocessing(size=(24, 40), resize=None).pixels(image)
    whole = np.asarray(image.resize((40, 24), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(actual, whole)


def test_a_crop_beyond_the_image_is_black():
    actual = Preprocessing(size=(9, 8), resize=4).pixels(Image.new("RGB", (6, 6), (10, 20, 30)))
    inside = np.zeros((9, 8), dtype=bool)
    inside[3:7, 2:6] = True
    np.testing.assert_array_equal(actual[inside], np.full((16, 3), (10, 20, 30)))
    assert not actual[~inside].any()


# Margins of 1, 3, 5 and 7 pixels: torchvision rounds half of them to even.
@pytest.mark.parametrize(("spare", "down", "even"), [(1, 0, 0), (3, 1, 2), (5, 2, 2), (7, 3, 4)])
def test_rounding_places_the_crop(spare, down, even):
    columns = np.arange(32 + spare, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (32, 32 + spare, 3)).copy())
    for rounding, first in (("down", down), ("even", even)):
        actual = Preprocessing(size=(32, 32), resize=32, rounding=rounding).pixels(image)
        assert actual[0, 0, 0] == first


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(
    ("short", "name"), [(1, "bicubic"), (60, "bicubic"), (60, "bilinear"), (60, "lanczos")]
)
def test_long_strips_equal_the_window_of_the_whole(short, name, tall):
    # 320 times as long as broad: the last shape that is resized whole, and the first that is not.
    for long in (318 * short, 320 * short):
        image = noise(short, long) if tall else noise(long, short)
        actual = Preprocessing(interpolation=name).pixels(image)
        np.testing.assert_array_equal(actual, resize_then_crop(image, 224, (224, 224), name))


@pytest.mark.parametrize("tall", [False, True])
def test_long_strips_that_shrink_differ_from_the_whole_by_rounding_alone(tall):
    size = (300, 96_000) if tall else (96_000, 300)
    # Without black and white, where overshoots are cut off: Pillow before 13 resizes a tall strip
    # in another order than a crop of it.
    image = Image.effect_noise(size, 30).convert("RGB")
    for name in ("bilinear", "bicubic", "lanczos"):
        actual = Preprocessing(interpolation=name).pixels(image).astype(int)
        whole = resize_then_crop(image, 224, (224, 224), name)
        assert np.abs(actual - whole).max() <= 2


def test_the_nearest_pixels_of_a_strip_are_at_most_one_off():
    ramp = np.broadcast_to(np.arange(19_200)[None, :, None] % 251, (60, 19_200, 3))
    image = Image.fromarray(ramp.astype(np.uint8))
    actual = Preprocessing(interpolation="nearest").pixels(image).astype(int)
    whole = resize_then_crop(image, 224, (224, 224), "nearest")
    # Where a sample falls between two pixels, rounding decides which is nearer.
    assert set(np.unique((actual - whole) % 251)) <= {0, 1, 250}


@pytest.mark.parametrize("tall", [False, True])
def test_extreme_strips_are_never_resized_whole(tall, monkeypatch):
    image = Image.new("RGB", (2, 300_000) if tall else (300_000, 2), (1, 2, 3))
    made = []
    resize = Image.Image.resize

    def spy(self, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", spy)
    actual = Preprocessing().pixels(image)
    # Whole it would have 224 x 33.6 million pixels.
    assert max(made) <= 224 * 224
    np.testing.assert_array_equal(actual, np.full((224, 224, 3), (1, 2, 3)))


def test_a_strip_keeps_its_margin_black():
    image = noise(400_000, 1)
    actual = Preprocessing(size=(30, 20), resize=24).pixels(image)
    assert not actual[:3].any()
    assert not actual[-3:].any()
    assert actual[3:-3].any(axis=(0, 2)).all()


def test_normalisation():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    actual = Preprocessing().normalise(pixels)
    assert actual.dtype == np.float32
    expected = (pixels / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    np.testing.assert_allclose(actual, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_it_survives_json():
    import json

    original = Preprocessing(
        size=(8, 9), resize=None, interpolation="lanczos", mean=(0.1, 0.2, 0.3), rounding="even"
    )
    assert Preprocessing.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert hash(Preprocessing.from_dict(original.to_dict())) == hash(original)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"interpolation": "cubic"}, "Expected `interpolation` to be one of nearest, bilinear"),
        ({"rounding": "up"}, "Expected `rounding` to be one of down, even"),
        ({"size": (8, 0)}, "at least one pixel"),
        ({"size": (8, 8, 3)}, "a height and a width"),
        ({"resize": 0}, "at least one pixel"),
        ({"mean": (0.5, 0.5)}, "a value per colour"),
        ({"std": (1.0, 0.0, 1.0)}, "above zero"),
    ],
)
def test_unusable_settings_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        Preprocessing(**setting)


def test_a_crop_beyond_the_image_is_padded_as_torchvision_pads():
    white = Image.new("RGB", (389, 389), "white")
    for rounding, before in (("even", 29), ("down", 30)):
        pixels = Preprocessing((448, 448), 389, rounding=rounding).pixels(white)
        row = pixels[224, :, 0]
        assert row.sum() == 389 * 255
        assert row.argmax() == before
