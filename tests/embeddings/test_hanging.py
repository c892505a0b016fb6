"""An image whose reading or decoding never ends is an error, and the rest goes on."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from PIL import Image

from hanging import decoders_that_hang_on, wait_until_none_hangs
from pixel_encoder import PixelEncoder
from processes import running
from trustvlm.embeddings import NullStore, encode_all, encode_images
from trustvlm.embeddings.prefetch import MOST_HANGING, n_hanging
from trustvlm.exceptions import InputError
from trustvlm.images import ImageRef, Limits, decoding, find_images

SHORT = Limits(seconds=0.5)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    return tmp_path


def encode(folder, limits=SHORT, **settings):
    return encode_all(
        find_images(folder), {"e": PixelEncoder()}, NullStore(), limits=limits, **settings
    )


def kinds(chunk):
    return {
        ref.path: error.kind for ref, error in zip(chunk.refs, chunk.errors, strict=True) if error
    }


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_a_decoder_that_hangs_costs_its_image_alone(photos, workers, batch_size):
    (photos / "05-hangs.png").write_bytes((photos / "05.png").read_bytes())
    (photos / "29-hangs.png").write_bytes((photos / "29.png").read_bytes() + b"other")
    settings = {"workers": workers, "batch_size": batch_size}
    undisturbed = encode(photos, **settings)
    # Of two equal images in a chunk only one is decoded: which of them is chance.
    for image in ("05.png", "29.png"):
        (photos / image).unlink()
    with decoders_that_hang_on("hangs"):
        got = encode(photos, **settings)
        assert kinds(got) == {"05-hangs.png": "too_slow", "29-hangs.png": "too_slow"}
        assert n_hanging() == 2
    messages = [str(error) for error in got.errors if error]
    assert messages[0] == (
        "05-hangs.png: decoding took longer than 0.5 s. Leave it out, save it anew, or allow "
        "more time with --image-seconds."
    )
    rows = dict(
        zip([ref.path for ref in undisturbed.refs], undisturbed.embeddings["e"], strict=True)
    )
    for ref, error, row in zip(got.refs, got.errors, got.embeddings["e"], strict=True):
        np.testing.assert_array_equal(row, np.full_like(row, np.nan) if error else rows[ref.path])


def test_copies_of_an_image_that_hangs_share_its_error(photos):
    for name in ("a-hangs.png", "b-hangs.png", "c-hangs.png"):
        (photos / name).write_bytes((photos / "00.png").read_bytes() + b"other")
    with decoders_that_hang_on("hangs"):
        got = encode(photos, batch_size=64)
        assert n_hanging() == 1
    assert set(kinds(got).values()) == {"too_slow"}
    for ref, error in zip(got.refs, got.errors, strict=True):
        assert (error is not None) == ("hangs" in ref.path)
        assert error is None or str(error).startswith(f"{ref.path}: decoding took longer")


def test_reading_that_never_ends_is_told_apart(photos, monkeypatch):
    released, read = threading.Event(), ImageRef.read

    def hanging(self, limits):
        if self.path == "03.png":
            released.wait()
        return read(self, limits)

    monkeypatch.setattr(ImageRef, "read", hanging)
    (photos / "03-copy.png").write_bytes((photos / "03.png").read_bytes())
    chunks = encode_images(
        find_images(photos), {"e": PixelEncoder()}, NullStore(), limits=SHORT, workers=1
    )
    first = next(chunks)
    assert kinds(first) == {"03.png": "too_slow"}
    assert "reading took longer than 0.5 s. Check the disk or the network" in str(first.errors[4])
    released.set()
    wait_until_none_hangs()
    assert list(chunks) == []


def test_threads_that_hang_are_bounded_and_the_rest_is_said_not_to_be_tried(photos):
    for i in range(MOST_HANGING + 4):
        (photos / f"hangs-{i:02}.png").write_bytes((photos / "00.png").read_bytes() + bytes([i]))
    (photos / "last.png").write_bytes((photos / "01.png").read_bytes() + b"other")
    with decoders_that_hang_on("hangs"):
        got = encode(photos, limits=Limits(seconds=0.3), workers=2)
        kinds_by_path = kinds(got)
        assert n_hanging() == MOST_HANGING + 1
        assert list(kinds_by_path.values()).count("too_slow") == MOST_HANGING + 1
        assert kinds_by_path["last.png"] == "not_tried"
        assert "not tried, because 17 images before it hang" in str(got.errors[-1])
        assert sum(got.readable) == 30
        # Nor does another run begin threads that it could lose.
        assert set(kinds(encode(photos)).values()) == {"not_tried"}
        assert n_hanging() == MOST_HANGING + 1
    assert kinds(encode(photos)) == {}


def test_a_large_image_that_hangs_does_not_keep_the_others_from_their_turn(photos, monkeypatch):
    released, to_rgb = threading.Event(), decoding.to_rgb

    def hanging(image, name):
        if name == "00.png":
            released.wait()
        return to_rgb(image, name)

    monkeypatch.setattr(decoding, "_LARGE", 0)
    monkeypatch.setattr(decoding, "to_rgb", hanging)
    got = encode(photos, workers=4)
    assert kinds(got) == {"00.png": "too_slow"}
    released.set()
    wait_until_none_hangs()


FOREVER = """
import sys
from hanging import hang_on
from pixel_encoder import PixelEncoder
from trustvlm.embeddings import NullStore, encode_all, encode_images
from trustvlm.images import Limits, find_images

hang_on("07")
given = {"e": PixelEncoder()}, NullStore()
if sys.argv[2] == "whole":
    chunk = encode_all(find_images(sys.argv[1]), *given, limits=Limits(seconds=0.5))
    print([ref.path for ref, error in zip(chunk.refs, chunk.errors, strict=True) if error])
else:
    left_open = encode_images(find_images(sys.argv[1]), *given, batch_size=4)
    print([ref.path for ref in next(left_open).refs if "07" in ref.path])
"""


@pytest.mark.parametrize(("way", "printed"), [("whole", "['07.png']"), ("left open", "[]")])
def test_the_interpreter_ends_although_a_decoder_hangs(photos, way, printed):
    with running(FOREVER, photos, way) as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), error) == (0, printed, "")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "1"])
def test_a_limit_that_is_none_is_refused(seconds):
    with pytest.raises(InputError, match="Expected `seconds` to be a positive number"):
        Limits(seconds=seconds)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_are_refused_at_once(photos):
    os.mkfifo(photos / "05-pipe.png")
    got = encode(photos, limits=Limits(seconds=1e6))
    assert kinds(got) == {"05-pipe.png": "unreadable"}
