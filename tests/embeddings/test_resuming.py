"""A run that was killed and continued equals an undisturbed one, to the last bit."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixel_encoder import PixelEncoder
from processes import next_line, running
from trustvlm.embeddings import EmbeddingStore, encode_all
from trustvlm.images import find_images

RUN = """
import sys, time
from pixel_encoder import PixelEncoder
from test_resuming import encoders
from trustvlm.embeddings import EmbeddingStore, encode_images
from trustvlm.images import find_images

class Slow(PixelEncoder):
    def encode_pixels(self, pixels):
        print(self.seed, flush=True)
        time.sleep(0.01)
        return super().encode_pixels(pixels)

store = EmbeddingStore(sys.argv[2])
for chunk in encode_images(find_images(sys.argv[1]), encoders(Slow), store, batch_size=4):
    pass
"""


def encoders(kind=PixelEncoder) -> dict[str, PixelEncoder]:
    # Their last bits depend on the batch, as those of real networks do.
    return {"a": kind(seed=1, batch_noise=True), "b": kind(seed=2, dim=3, batch_noise=True)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(50):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
        if i % 5 == 0:  # copies in later chunks, and a broken one here and there
            Image.fromarray(pixels).save(folder / f"{(i * 7) % 50:02}_copy.png")
        if i % 11 == 0:
            (folder / f"{i:02}_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def result(photos: Path, store: EmbeddingStore, batch_size: int = 4) -> list[bytes]:
    got = encode_all(find_images(photos), encoders(), store, batch_size=batch_size)
    return [rows.tobytes() for rows in got.embeddings.values()]


def test_the_encoders_would_show_a_difference(photos):
    undisturbed = result(photos, EmbeddingStore.memory())
    assert result(photos, EmbeddingStore.memory()) == undisturbed
    assert result(photos, EmbeddingStore.memory(), batch_size=5) != undisturbed


@pytest.mark.parametrize("passes", [1, 2, 7, 12])
def test_an_exception_after_some_passes(photos, tmp_path, passes):
    left = [passes]

    class Stopping(PixelEncoder):
        def encode_pixels(self, pixels):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return super().encode_pixels(pixels)

    path = tmp_path / "e.sqlite"
    with EmbeddingStore(path) as store, pytest.raises(KeyboardInterrupt):
        encode_all(find_images(photos), encoders(Stopping), store, batch_size=4)
    with EmbeddingStore(path) as store:
        assert result(photos, store) == result(photos, EmbeddingStore.memory())


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_again_and_again(photos, tmp_path):
    path = tmp_path / "e.sqlite"
    rng = random.Random(3)
    entries = [0]
    for _ in range(4):
        with running(RUN, photos, path) as process:
            for _ in range(rng.randint(2, 5)):
                next_line(process)
            process.send_signal(signal.SIGKILL)
        with EmbeddingStore(path) as store:
            entries.append(store.stats().entries)
    assert entries == sorted(entries)
    assert 0 < entries[-1] < 100, "killed in the middle"
    with EmbeddingStore(path) as store:
        assert result(photos, store) == result(photos, EmbeddingStore.memory())
