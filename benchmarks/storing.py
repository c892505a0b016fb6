"""What the store costs in runs of many small images.

    python benchmarks/storing.py [--images 100000] [--folder /tmp]

Makes twice as many images of 32 x 32 pixels as are asked for and predicts with encoders that cost
next to nothing: half of the images into an empty store, the same again, then the other half into
the store that is filled by now, and these again. The store's share is that of the seconds in which
its file is in use, by the clock and by processor time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bulk_model import Projection
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore, Profile
from trustvlm.exceptions import TrustVLMWarning


class Pixels(Projection):
    """As many of the first pixels as the embedding has room for."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, : self.dim].astype(np.float32)


class TimedStore(EmbeddingStore):
    """Measures how long its file is in use."""

    seconds = processor = 0.0

    def _run(self, work: Callable[[Any], Any]) -> Any:
        with self._lock:
            begun, busy = time.perf_counter(), time.thread_time()
            try:
                return super()._run(work)
            finally:
                self.seconds += time.perf_counter() - begun
                self.processor += time.thread_time() - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", TrustVLMWarning)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        halves = [Path(folder) / name for name in ("first", "second")]
        for seed, half in enumerate(halves):
            write_images(half, options.images, seed)
        vlm, vision = Pixels(1, 512), Pixels(2, 768)
        shots = sorted(halves[0].rglob("*.png"))[:4]
        model = TrustVLM(vlm, vision, ["one", "two"], score="trustvlm")
        model.store = EmbeddingStore.memory()
        model.fit(([str(shot) for shot in shots], ["one", "one", "two", "two"]))
        for half in halves:
            for _ in range(2):
                with TimedStore(Path(folder) / "store.sqlite") as store:
                    measure(model, half, store, Path(folder))


def write_images(folder: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for i in range(n):
        file = folder / f"{i // 1000:03}" / f"{i:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, compress_level=1)


def measure(model: TrustVLM, images: Path, store: TimedStore, folder: Path) -> None:
    """Print what one run took, and the store's share."""
    model.__dict__["embedding_store"] = store
    begun, busy, profile = time.perf_counter(), time.process_time(), Profile()
    model.predict(images, profile=profile).write(folder / "out.csv")
    seconds, processor = time.perf_counter() - begun, time.process_time() - busy
    profile.end()
    print(
        f"{images.name}: {seconds:.1f} s, {processor:.1f} s of processor time; the store has "
        f"{store.seconds / seconds:.1%} of it ({store.processor / processor:.1%}), and the stage "
        f"of storing {profile.seconds.get('storing', 0.0) / seconds:.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
