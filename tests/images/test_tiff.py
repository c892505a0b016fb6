"""TIFFs of any number of bands, as satellites send them, and those that Pillow takes for others."""

from __future__ import annotations

import numpy as np
import pytest

from broken_images import grey_tiff, multiband_tiff
from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, decode
from trustvlm.images.tiff import read_layout


def made(n_bands: int, dtype: str) -> np.ndarray:
    """Values over most of the range of a type, of every sign that it has."""
    kind = np.dtype(dtype)
    values = np.random.default_rng(n_bands).random((37, 53, n_bands))
    if kind.kind == "f":
        return (values * 3 - 1).astype(dtype)
    info = np.iinfo(kind)
    return (values * (info.max - 1.0 * info.min) * 0.9 + info.min).astype(dtype)


WAYS = [
    {},
    {"planar": True},
    {"tile": (16, 32)},
    {"compress": True, "predictor": 2},
    {"compress": True, "predictor": 2, "tile": (16, 32), "big": True},
    {"compress": True, "planar": True, "tile": (16, 16)},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", ">i2", "<u4", "<f4", ">f4", "<f8"])
def test_values_come_back_from_every_layout(dtype, way):
    for n_bands in (1, 2, 3, 5, 13):
        values = made(n_bands, dtype)
        content = multiband_tiff(values, photometric=1, **way)
        n_used = 3 if n_bands >= 3 else 1
        np.testing.assert_array_equal(
            read_layout(content).read(content)[..., :n_used], values[..., :n_used]
        )


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("way", [{}, {"tile": (16, 32)}, {"planar": True}], ids=str)
def test_floats_whose_bytes_were_put_apart_come_back(dtype, way):
    values = made(6, dtype)
    content = multiband_tiff(values, photometric=1, compress=True, predictor=3, **way)
    np.testing.assert_array_equal(read_layout(content).read(content)[..., :3], values[..., :3])


def test_the_first_three_of_many_bands_are_the_colours():
    values = made(8, "u1")
    np.testing.assert_array_equal(decode(multiband_tiff(values)), values[..., :3])
    two = multiband_tiff(values[..., :2], photometric=1)
    np.testing.assert_array_equal(decode(two), np.repeat(values[..., :1], 3, axis=2))


@pytest.mark.parametrize("dtype", ["<u2", "<i2", "<f4"])
def test_deep_bands_of_a_satellite_are_stretched_together(dtype):
    values = (np.random.default_rng(1).random((37, 53, 8)) * 3000 + 500).astype(dtype)
    values[..., 3:] *= 4
    shown = values[..., :3].astype(float)
    expected = np.rint((shown - shown.min()) * 255 / (shown.max() - shown.min()))
    np.testing.assert_array_equal(decode(multiband_tiff(values)), expected)


@pytest.mark.parametrize("planar", [False, True])
def test_colours_of_16_bits_do_not_depend_on_where_their_bands_lie(planar):
    values = made(3, "<u2")
    got = np.asarray(decode(multiband_tiff(values, planar=planar)), int)
    assert np.abs(got - values / 257.0).max() <= 1


def test_alpha_of_separate_bands_is_composited():
    values = made(4, "u1")
    values[..., 3] = 0
    assert np.asarray(decode(multiband_tiff(values, planar=True, alpha=True))).min() == 255


@pytest.mark.parametrize("dtype", [">i2", ">i4", ">f4", "<u4", ">u4"])
def test_compressed_numbers_of_either_byte_order_are_read_as_they_are(dtype):
    values = made(1, dtype)
    grey = values.astype(float)
    expected = np.rint((grey - grey.min()) * (255 / (grey.max() - grey.min())))
    got = decode(multiband_tiff(values, photometric=1, compress=True))
    np.testing.assert_array_equal(np.asarray(got)[..., :1], expected)


@pytest.mark.parametrize("n_bands", [1, 6])
def test_white_may_be_zero(n_bands):
    values = made(n_bands, "u1")
    n_used = 3 if n_bands == 6 else 1
    got = np.asarray(decode(multiband_tiff(values, photometric=0)))
    np.testing.assert_array_equal(got[..., :n_used], 255 - values[..., :n_used])


def kind(content: bytes, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content, Limits(**limits))
    return caught.value.kind


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_cut_file_is_an_error_and_reads_nothing_else_as_pixels(way):
    values = made(8, "<u2")
    content = multiband_tiff(values, **way)
    # The directory is whole; of the pixels behind it, the last ones are missing.
    assert kind(content[: len(content) // 2]) in {"truncated", "damaged"}


def test_many_bands_count_as_many_pixels_before_any_is_decoded():
    content = multiband_tiff(made(8, "u1"))
    assert kind(content, max_pixels=37 * 53) == "too_large"
    assert decode(content, Limits(max_pixels=2 * 37 * 53)).size == (53, 37)
    # Of separate bands only the first three are read.
    apart = multiband_tiff(made(8, "u1"), planar=True)
    assert decode(apart, Limits(max_pixels=37 * 53)).size == (53, 37)


def test_a_directory_that_claims_the_impossible_is_an_error():
    content = bytearray(multiband_tiff(made(8, "u1"), tile=(16, 32)))
    at = content.index(b"\x42\x01\x04\x00")  # width of a tile
    content[at + 8 : at + 12] = (1 << 31).to_bytes(4, "little")
    assert kind(bytes(content)) == "too_large"
    content[at + 8 : at + 12] = bytes(4)
    assert kind(bytes(content)) in {"damaged", "unsupported"}
    assert kind(grey_tiff(50, 24, bytes(7500), sample=3)) == "unsupported"
