"""Every way in which an image can be unusable ends in an `ImageError` that names it."""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from broken_images import encoded, png, png_chunk, write_broken_images
from hostile import many_scans
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import KINDS, Limits, decode


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("broken")
    return folder, write_broken_images(folder)


def test_there_are_many_kinds_of_broken_files(broken):
    _, expected = broken
    assert len(expected) >= 50
    assert set(expected.values()) >= {
        "missing", "empty", "not_image", "unsupported", "truncated",
        "damaged", "non_finite", "too_small", "too_large",
    }  # fmt: skip


def test_each_broken_file_gives_its_kind_and_a_message_with_name_and_remedy(broken):
    folder, expected = broken
    got = {}
    for name in expected:
        with pytest.raises(ImageError) as caught:
            decode(folder / name)
        got[name] = caught.value.kind
        message = str(caught.value)
        assert message.startswith(f"{folder / name}: ")
        assert message.endswith(".")
        assert message.count(". ") >= 1, "what is wrong, then what to do"
        assert "\n" not in message
    assert got == expected


def test_the_same_from_bytes_names_the_image_as_told(broken):
    folder, expected = broken
    for name, kind in expected.items():
        if kind == "missing":
            continue
        with pytest.raises(ImageError, match=f"^upload {name}: ") as caught:
            decode((folder / name).read_bytes(), name=f"upload {name}")
        assert caught.value.kind == kind


def test_one_broken_file_does_not_disturb_another_thread(broken):
    folder, expected = broken
    good = encoded("PNG")
    reference = decode(good).tobytes()

    def one(name: str) -> tuple[str, bool]:
        try:
            decode(folder / name)
        except ImageError as error:
            return error.kind, decode(good).tobytes() == reference
        return "decoded", False

    names = list(expected) * 3
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, names))
    assert results == [(expected[name], True) for name in names]


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_beginning_of_a_file_is_refused_or_is_the_whole_picture(file_format, options):
    whole = encoded(file_format, size=(24, 16), **options)
    pixels = decode(whole).tobytes()
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 150)):
        kind, got = outcome(whole[:length])
        refused += kind in KINDS
        assert got in (None, pixels)
    assert refused > 100


def outcome(content: bytes) -> tuple[str, bytes | None]:
    """Return ("decoded", pixels), or (kind of the error, None)."""
    try:
        return "decoded", decode(content).tobytes()
    except ImageError as error:
        return error.kind, None


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_flipped_bytes_never_raise_anything_else(file_format, changes):
    content = bytearray(_SMALL[file_format])
    for position, value in changes:
        content[position % len(content)] = value
    assert outcome(bytes(content))[0] in {"decoded", *KINDS}


_SMALL = {name: encoded(name, size=(24, 16)) for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP")}


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=1, max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"II*\0", b"P6 "])
)
def test_arbitrary_bytes_never_raise_anything_else(content, start):
    with pytest.raises(ImageError):
        decode(start + content)


def test_a_folder_a_pipe_and_an_impossible_path(tmp_path):
    with pytest.raises(ImageError, match="folder") as caught:
        decode(tmp_path)
    assert caught.value.kind == "directory"
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="regular file") as caught:
        decode(tmp_path / "pipe.jpg")
    assert caught.value.kind == "unreadable"
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "circle.jpg")
    assert caught.value.kind == "unreadable"
    for impossible in ("a\0b.jpg", "x" * 5000, tmp_path / "pipe.jpg" / "inside.jpg"):
        with pytest.raises(ImageError) as caught:
            decode(impossible)
        assert caught.value.kind == "missing"


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Give up the superuser's right to read everything, for a while."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_file_without_permission(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded("JPEG"))
    secret.chmod(0)
    with as_ordinary_user(), pytest.raises(ImageError, match="permission") as caught:
        decode(secret)
    assert caught.value.kind == "permission"


def test_limits_on_bytes_pixels_and_side(tmp_path):
    content = encoded("PNG", size=(50, 40))
    file = tmp_path / "a.png"
    file.write_bytes(content)
    for source in (content, file):
        decode(source, Limits(max_bytes=len(content), max_pixels=2000, min_side=40))
        for limits, kind, note in (
            (Limits(max_bytes=len(content) - 1), "too_large", "Or raise `Limits(max_bytes=...)`."),
            (Limits(max_pixels=1999), "too_large", "Or raise `Limits(max_pixels=...)`."),
            (Limits(min_side=41), "too_small", "Or lower `Limits(min_side=...)`."),
        ):
            with pytest.raises(ImageError) as caught:
                decode(source, limits)
            assert caught.value.kind == kind
            # Whoever sent the image cannot change a parameter, so only tracebacks speak of it.
            assert "Limits" not in str(caught.value)
            for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
                assert error.__notes__ == [note]
    assert decode(encoded("PNG", size=(1, 1)), Limits(min_side=1)).size == (1, 1)
    for wrong in ({"max_pixels": 0}, {"max_bytes": -1}, {"min_side": 1.5}, {"min_side": True}):
        with pytest.raises(InputError, match="positive whole number"):
            Limits(**wrong)


def test_pixels_are_counted_before_they_are_decoded(monkeypatch):
    def explode(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", explode)
    bomb = png(20_000, 20_000, png_chunk(b"IDAT", b"x"))
    with pytest.raises(ImageError) as caught:
        decode(bomb)
    assert caught.value.kind == "too_large"


def test_limits_are_ours_and_not_those_of_the_process(monkeypatch):
    content = encoded("JPEG", size=(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert decode(content).size == (60, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="60 x 60"):
        decode(content, Limits(max_pixels=100))
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_truncated_images_are_refused_even_if_the_process_accepts_them(monkeypatch, file_format):
    whole = encoded(file_format)
    half = whole[: len(whole) // 2]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.open(io.BytesIO(half)).load()
    with pytest.raises(ImageError) as caught:
        decode(half)
    assert caught.value.kind in ("truncated", "damaged")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    strict = decode(whole).tobytes()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    assert strict == decode(whole).tobytes()


def test_lack_of_memory_and_surprises_are_errors_of_that_image(monkeypatch):
    content = encoded("PNG")
    for raised, kind in ((MemoryError(), "memory"), (RecursionError("deep"), "damaged")):
        monkeypatch.setattr(ImageFile.ImageFile, "load", _raiser(raised))
        with pytest.raises(ImageError) as caught:
            decode(content)
        assert caught.value.kind == kind
    monkeypatch.setattr(ImageFile.ImageFile, "load", _raiser(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        decode(content)


def _raiser(error: BaseException):
    def load(self):
        raise error

    return load


def test_a_format_that_pillow_lacks_is_named(monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    with pytest.raises(ImageError, match=r"WEBP image.*Install a newer Pillow") as caught:
        decode(encoded("WEBP"))
    assert caught.value.kind == "unsupported"


def test_remarks_of_pillow_do_not_leak():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.warns(UserWarning, match="APNG"), Image.open(io.BytesIO(_odd_png())) as image:
            image.load()
        decode(_odd_png())
    assert [str(w.message) for w in seen] == []


def _odd_png() -> bytes:
    # An animation of zero frames: Pillow warns and takes the still image.
    content = encoded("PNG")
    return content[:33] + png_chunk(b"acTL", bytes(8)) + content[33:]


def test_warning_filters_are_as_before_when_many_threads_are_done():
    before = list(warnings.filters)
    odd = _odd_png()
    start = threading.Barrier(8)

    def work(_: int) -> None:
        start.wait()
        for _ in range(20):
            decode(odd)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="APNG"), Image.open(io.BytesIO(odd)) as image:
        image.load()


def test_a_jpeg_of_far_too_many_scans_is_refused_before_it_is_decoded():
    assert decode(many_scans(8, side=64)).size == (64, 64)
    with pytest.raises(ImageError, match="10,001 scans") as caught:
        decode(many_scans(10_000, side=64))
    assert caught.value.kind == "damaged"
