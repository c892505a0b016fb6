"""A fitted model of pixel encoders for bulk jobs, and images that kill whoever encodes them."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hanging import hang_on
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.bulk.job import LocalEngine, remaining
from trustvlm.bulk.worker import PartComputer
from trustvlm.embeddings import NullStore
from trustvlm.exceptions import ModelUnavailableError
from trustvlm.images import Limits
from trustvlm.pipeline.predict import Predictor

DEADLY, FAILING, STOPPING = (255, 0, 255), (0, 255, 255), (255, 255, 0)
IDENTITY = {"VLM": "a" * 64, "score": "b" * 64}


class TouchyEncoder(PixelEncoder):
    """Dies of magenta images, fails with cyan ones and never comes back from yellow ones.

    Each time it leaves a line in a file.
    """

    deaths: str = ""
    spare_after: int = 10**9
    pause: float = 0.0

    def encode_pixels(self, pixels):
        time.sleep(self.pause)
        for colour in (DEADLY, FAILING, STOPPING) if self.deaths else ():
            if (pixels == np.array(colour)).all(axis=(1, 2, 3)).any() and self._may_die():
                if colour == DEADLY:
                    os.kill(os.getpid(), signal.SIGKILL)
                if colour == STOPPING:
                    # Until a signal comes, and with the interpreter's lock in hand.
                    ctypes.PyDLL(None).pause()
                raise RuntimeError("CUDA error: an illegal memory access")
        return super().encode_pixels(pixels)

    def _may_die(self) -> bool:
        with Path(self.deaths).open("a+") as file:
            file.seek(0)
            if len(file.readlines()) >= self.spare_after:
                return False
            file.write("died\n")
            return True


@dataclass(frozen=True)
class LoadTiny:
    """Fits on class folders in the worker; see `TouchyEncoder` for the rest."""

    shots: Path
    deaths: str = ""
    spare_after: int = 10**9
    pause: float = 0.0
    batch_size: int = 4
    started: str = ""
    hanging: str = ""
    seconds: float = 60.0
    without_weights: str = ""

    def __call__(self) -> TrustVLM:
        if self.without_weights and os.environ.get("TRUSTVLM_TEST_NODE") == self.without_weights:
            raise ModelUnavailableError("no weights here")
        if self.started:
            with Path(self.started).open("a") as file:
                file.write(f"{os.getpid()}\n")
        if self.hanging:
            hang_on(self.hanging)
        vlm = TouchyEncoder(seed=1, batch_noise=True)
        vlm.deaths, vlm.spare_after, vlm.pause = self.deaths, self.spare_after, self.pause
        vision = PixelEncoder(seed=2, dim=5, batch_noise=True)
        return TrustVLM(
            vlm=vlm,
            vision=vision,
            store=NullStore(),
            batch_size=self.batch_size,
            workers=2,
            limits=Limits(seconds=self.seconds),
        ).fit(self.shots)


class OwnProcess(LocalEngine):
    """Computes in the process that asks, which costs no time to start."""

    def run(self, work):
        computer = cache(lambda: PartComputer(Predictor(self.loader())))
        for shard in work:
            yield from remaining(shard, lambda part: computer().compute(part, {}))


def n_killed_before_the_end(work: Callable[[], None], n_kills: int) -> int:
    """Do work in children that are killed at random moments, then to its end; return how many were.

    Children of one process that has imported all start at once.
    """
    rng, n_killed = random.Random(0), 0
    for kill in range(n_kills + 1):
        child = os.fork()
        if not child:
            work()
            os._exit(0)
        if kill < n_kills:
            time.sleep(rng.uniform(0.0, 0.25))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        n_killed += os.WIFSIGNALED(status)
    assert status == 0
    return n_killed


def write_poison(file: Path, colour: tuple[int, int, int] = DEADLY) -> None:
    """Write an image that `TouchyEncoder` cannot stand."""
    Image.new("RGB", (16, 16), colour).save(file)


def files(output: Path) -> dict[str, bytes]:
    """Return the content of every file of verdicts."""
    return {file.name: file.read_bytes() for file in sorted(output.glob("*.parquet"))}


def rows(output: Path) -> list[dict]:
    """Return all rows of a folder of verdicts, in input order."""
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(output).to_pylist()
