"""Encoders that cost next to nothing, so that a bulk job shows what it adds to them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm import TrustVLM
from trustvlm.embeddings import NullStore
from trustvlm.models.base import ModelIdentity, Preprocessing

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200)}


class Projection:
    """A random projection of the pixels; satisfies `VisionLanguageModel`."""

    note = ""
    logit_scale = 100.0
    prompt = "a photo of a {}."

    def __init__(self, seed: int, dim: int) -> None:
        self.dim = dim
        self.preprocessing = Preprocessing(size=(16, 16), resize=16, interpolation="bilinear")
        self.identity = ModelIdentity(f"projection-{seed}", "benchmarks", "", f"{seed:064d}")
        weights = np.random.default_rng(seed).normal(size=(16 * 16 * 3, dim)) / 400
        self._weights = weights.astype(np.float32)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = pixels.reshape(len(pixels), -1).astype(np.float32)
        return np.tanh(flat @ self._weights)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.array(
            [np.random.default_rng(seed).normal(size=self.dim) for seed in seeds], np.float32
        )


@dataclass(frozen=True)
class LoadProjections:
    """Fits on class folders, in the worker."""

    shots: str
    batch_size: int = 256

    def __call__(self) -> TrustVLM:
        model = TrustVLM(
            vlm=Projection(1, 64),
            vision=Projection(2, 48),
            score="trustvlm",
            store=NullStore(),
            batch_size=self.batch_size,
        )
        return model.fit(self.shots)
