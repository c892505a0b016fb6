"""Every good kind of image becomes the RGB picture that it shows."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, features

from broken_images import encoded, grey_tiff, png, png_chunk
from trustvlm.images import Limits, decode
from trustvlm.images.decoding import to_rgb

RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
# Smooth, so that lossy formats stay close.
RAMP = np.stack(np.broadcast_arrays(np.arange(50) * 5, np.arange(40)[:, None] * 6, 90), -1)
RAMP = RAMP.astype(np.uint8)


def save(image: Image.Image, file_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def array(content: bytes, **options) -> np.ndarray:
    image = decode(content, **options)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image)


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}),
    ("WEBP", {"lossless": True, "exact": True}),
    ("JPEG2000", {"irreversible": False}),
]


@pytest.mark.parametrize(("file_format", "options"), LOSSLESS)
def test_lossless_formats_give_the_pixels_back(file_format, options):
    np.testing.assert_array_equal(
        array(save(Image.fromarray(NOISE), file_format, **options)), NOISE
    )


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_come_close(file_format):
    if file_format == "AVIF" and not _has_avif():
        pytest.skip("this Pillow has no AVIF")
    got = array(save(Image.fromarray(RAMP), file_format, quality=95)).astype(int)
    assert np.abs(got - RAMP).mean() < 3


def _has_avif() -> bool:
    return "avif" in features.get_supported_modules()


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a.txt", "a"])
def test_the_content_counts_and_not_the_extension(tmp_path, name):
    (tmp_path / name).write_bytes(encoded("PNG"))
    assert decode(tmp_path / name).size == decode(str(tmp_path / name)).size == (50, 40)


def test_the_result_does_not_depend_on_the_file(tmp_path):
    file = tmp_path / "a.tif"
    file.write_bytes(save(Image.fromarray(NOISE), "TIFF"))
    image = decode(file)
    file.unlink()
    np.testing.assert_array_equal(np.asarray(image), NOISE)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_bilevel_and_palette(mode):
    image = Image.fromarray(NOISE).convert(mode)
    np.testing.assert_array_equal(array(save(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "kind",
    [b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"iCCP", b"tEXt", b"iTXt", b"acTL", b"fcTL", b"tIME"],
)
def test_damage_beside_the_pixels_of_a_png_does_not_cost_the_picture(kind):
    good = encoded("PNG")
    short = png_chunk(kind, b"x")
    for chunk in (short, short[:-4] + b"\0\0\0\0", png_chunk(kind, bytes(2_000_000))):
        np.testing.assert_array_equal(array(good[:33] + chunk + good[33:]), array(good))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_over_white(file_format):
    alpha = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
    alpha[:5] = 0
    alpha[5:10] = 255
    image = Image.fromarray(np.dstack([NOISE, alpha]), "RGBA")
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    got = array(save(image, file_format, **options)).astype(float)
    opacity = alpha[..., None] / 255
    expected = NOISE * opacity + 255 * (1 - opacity)
    assert np.abs(got - expected).max() <= 1
    assert (got[:5] == 255).all()
    np.testing.assert_array_equal(got[5:10], NOISE[5:10])


def test_grey_with_alpha_is_composited_over_white():
    alpha = np.repeat([[0], [255]], 25, axis=1).astype(np.uint8).repeat(20, axis=0).repeat(2, 1)
    image = Image.merge("LA", (Image.new("L", (50, 40), 60), Image.fromarray(alpha)))
    got = array(save(image, "PNG"))
    assert (got[:20] == 255).all()
    assert (got[20:] == 60).all()


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 128, 0])])
def test_palette_with_transparency(transparency):
    image = Image.new("P", (50, 40))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 100, 0, 0, 0, 255])
    image.paste(1, (0, 0, 50, 10))
    image.paste(2, (0, 10, 50, 20))
    image.paste(3, (0, 20, 50, 30))
    got = array(save(image, "PNG", transparency=transparency))
    assert tuple(got[5, 0]) == (255, 0, 0)
    assert tuple(got[15, 0]) == ((0, 100, 0) if transparency == 3 else (127, 177, 127))
    assert tuple(got[25, 0]) == (255, 255, 255)
    assert tuple(got[35, 0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("depth", "colour", "mark", "pixel", "shown"),
    [
        (8, 0, struct.pack(">H", 9), b"\x09", (255, 255, 255)),
        (8, 0, struct.pack(">H", 9), b"\x0a", (10, 10, 10)),
        (8, 2, struct.pack(">HHH", 1, 2, 3), b"\1\2\3", (255, 255, 255)),
        (8, 2, struct.pack(">HHH", 1, 2, 3), b"\1\2\4", (1, 2, 4)),
        (16, 0, struct.pack(">H", 2570), b"\x0a\x0a", (255, 255, 255)),
        (16, 0, struct.pack(">H", 2570), b"\x14\x14", (20, 20, 20)),
        (1, 0, struct.pack(">H", 0), b"\x00", (255, 255, 255)),
    ],
)
def test_a_png_colour_marked_as_transparent(depth, colour, mark, pixel, shown):
    import zlib

    row = b"\0" + (pixel * 16 if depth >= 8 else pixel * 2)
    content = png(
        16, 16, png_chunk(b"tRNS", mark), png_chunk(b"IDAT", zlib.compress(row * 16)),
        depth=depth, colour=colour,
    )  # fmt: skip
    assert {tuple(p) for p in array(content).reshape(-1, 3)} == {shown}


def test_sixteen_bit_grey_is_scaled_by_its_full_range():
    values = RNG.integers(0, 2**16, (40, 50), dtype=np.uint16)
    values[0, :3] = (0, 65535, 255)
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    assert list(expected[0, :3]) == [0, 255, 1]
    contents = {name: save(Image.fromarray(values), name) for name in ("PNG", "TIFF", "JPEG2000")}
    contents["PPM"] = b"P5 50 40 65535\n" + values.astype(">u2").tobytes()
    for file_format, content in contents.items():
        got = array(content)
        np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, 2), file_format)


@given(st.integers(0, 255))
def test_eight_bits_widened_to_sixteen_come_back(value):
    wide = Image.new("I;16", (8, 8), value * 257)
    assert to_rgb(wide).getpixel((0, 0)) == (value, value, value)


def test_sixteen_bit_grey_of_other_byte_order_and_polarity():
    values = np.arange(2500, dtype=np.uint16).reshape(50, 50) * 26
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    big_endian = Image.frombytes("I;16B", (50, 50), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(array(save(big_endian, "TIFF"))[..., 0], expected)
    inverted = grey_tiff(50, 16, values.astype("<u2").tobytes(), photometric=0)
    np.testing.assert_array_equal(array(inverted)[..., 0], 255 - expected)


def test_twelve_bit_grey_is_scaled_by_its_own_range():
    values = np.arange(2500).reshape(50, 50) % 4096
    values[0, :2] = (4095, 2048)
    pairs = values.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    got = array(grey_tiff(50, 12, packed.astype(np.uint8).tobytes()))[..., 0]
    np.testing.assert_array_equal(got, np.floor(values / 4095 * 255 + 0.5))
    assert list(got[0, :2]) == [255, 128]


@pytest.mark.parametrize(
    ("dtype", "bits", "sample"), [("<f4", 32, 3), ("<i4", 32, 2), ("<i2", 16, 2)]
)
def test_values_without_a_range_of_their_own_are_stretched(dtype, bits, sample):
    values = np.linspace(-1000, 3000, 2500).astype(dtype).reshape(50, 50)
    got = array(grey_tiff(50, bits, values.tobytes(), sample=sample))[..., 0]
    expected = np.rint((values.astype(float) + 1000) / 4000 * 255)
    np.testing.assert_array_equal(got, expected)
    assert (got[0, 0], got[-1, -1]) == (0, 255)


def test_float_grey_in_which_zero_is_white():
    values = np.linspace(0, 1, 2500).astype("<f4")
    plain = array(grey_tiff(50, 32, values.tobytes(), sample=3))
    inverted = array(grey_tiff(50, 32, values.tobytes(), sample=3, photometric=0))
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_premultiplied_alpha():
    # Half-transparent red over white is pink, however the red is stored.
    pink = to_rgb(Image.new("RGBa", (8, 8), (128, 0, 0, 128))).getpixel((0, 0))
    assert np.abs(np.subtract(pink, (255, 127, 127))).max() <= 1
    grey = to_rgb(Image.new("LA", (8, 8), (0, 128)).convert("La")).getpixel((0, 0))
    assert grey == (127, 127, 127)


def test_a_float_image_of_one_value_is_black():
    assert not array(grey_tiff(50, 32, np.full(2500, 7, "<f4").tobytes(), sample=3)).any()


def test_extreme_floats_do_not_overflow():
    values = np.zeros(2500, "<f4")
    values[:2] = (-3e38, 3e38)
    got = array(grey_tiff(50, 32, values.tobytes(), sample=3))[..., 0].ravel()
    assert list(got[:3]) == [0, 255, 128]


def test_cmyk_jpeg_is_inverted_as_adobe_writes_it():
    colours = {
        (255, 0, 0): (0, 255, 255, 0),
        (255, 255, 255): (0, 0, 0, 0),
        (0, 0, 0): (0, 0, 0, 255),
    }
    for rgb, cmyk in colours.items():
        got = array(save(Image.new("CMYK", (50, 40), cmyk), "JPEG", quality=100))
        assert np.abs(got.astype(int) - rgb).max() <= 2


def test_cmyk_and_ycbcr_tiff():
    cmyk = Image.fromarray(NOISE).convert("CMYK")
    np.testing.assert_array_equal(array(save(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))
    ycbcr = Image.fromarray(RAMP).convert("YCbCr")
    content = save(ycbcr, "TIFF", compression="tiff_lzw")
    difference = array(content).astype(int) - np.asarray(ycbcr.convert("RGB"))
    assert np.abs(difference).max() <= 1  # libtiff and Pillow round differently


def test_lab_tiff():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(RAMP), srgb, lab, outputMode="LAB")
    got = array(save(image, "TIFF")).astype(int)
    assert np.abs(got - RAMP).mean() < 6


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_or_page_is_taken(file_format):
    first, second = Image.new("RGB", (50, 40), (200, 0, 0)), Image.new("RGB", (50, 40), (0, 0, 200))
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = save(first, file_format, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as check:
        assert check.n_frames == 2
    assert {tuple(p) for p in array(content).reshape(-1, 3)} == {(200, 0, 0)}


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(file_format, orientation):
    content = save(Image.fromarray(RAMP), file_format, exif=with_orientation(orientation))
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(array(content), np.asarray(expected))
    assert decode(content).size == ((50, 40) if orientation < 5 else (40, 50))


def test_exif_orientation_of_sixteen_bits_and_alpha():
    values = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    got = array(save(Image.fromarray(values), "PNG", exif=with_orientation(6)))
    np.testing.assert_array_equal(got[..., 0], np.rot90(np.rint(values / 257), -1))
    clear = save(Image.new("RGBA", (50, 40)), "PNG", exif=with_orientation(8))
    assert decode(clear).size == (40, 50)


@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("I;16", "PNG", {}),
        ("F", "TIFF", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"exif": 6}),
    ],
)
def test_plain_rgb_is_what_pillow_converts_and_nothing_else(mode, file_format, options):
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA").convert("L" if mode in ("I;16", "F") else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    elif mode == "F":
        image = Image.fromarray(np.asarray(image).astype(np.float32) * 2 - 100)
    if "exif" in options:
        options = {"exif": with_orientation(options["exif"])}
    content = save(image, file_format, **options)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(array(content, plain_rgb=True), expected)
    if mode not in ("CMYK",):
        assert not np.array_equal(array(content), expected)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_impossible_orientations_are_ignored(orientation):
    content = save(Image.fromarray(NOISE), "PNG", exif=with_orientation(orientation))
    np.testing.assert_array_equal(array(content), NOISE)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.booleans())
def test_damaged_exif_does_not_cost_the_image(damage, file_format, with_header):
    header = b"Exif\0\0" + (b"MM\0*\0\0\0\x08" if with_header else b"")
    content = save(Image.fromarray(RAMP), file_format, exif=header + damage)
    assert sorted(decode(content).size) == [40, 50]


def test_metadata_of_a_phone(tmp_path):
    exif = with_orientation(6)
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    content = save(Image.fromarray(RAMP), "JPEG", exif=exif, dpi=(72, 72), icc_profile=b"broken")
    image = decode(content)
    assert image.size == (40, 50)


def test_very_long_images_pass_if_they_are_wide_enough():
    assert decode(save(Image.new("L", (20_000, 8)), "PNG")).size == (20_000, 8)


def test_large_images_decode_in_parallel_threads():
    content = save(Image.new("1", (5200, 5000), 1), "PNG")
    with ThreadPoolExecutor(3) as pool:
        sizes = {image.size for image in pool.map(decode, [content] * 3)}
    assert sizes == {(5200, 5000)}
    assert decode(content, Limits(max_pixels=26_000_000)).getpixel((9, 9)) == (255, 255, 255)


def test_threads_agree_with_a_single_thread():
    contents = [
        save(Image.fromarray(NOISE).convert(mode), fmt, **options)
        for mode in ("RGB", "L", "P")
        for fmt, options in LOSSLESS
        if not (mode == "P" and fmt in ("WEBP", "JPEG2000", "PPM"))
    ]
    alone = [decode(content).tobytes() for content in contents]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert [image.tobytes() for image in pool.map(decode, contents)] == alone
