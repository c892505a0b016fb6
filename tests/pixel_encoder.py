"""A small deterministic encoder that is a real function of the pixels, and counts its calls."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trustvlm.models.base import ModelIdentity, Preprocessing


@dataclass
class PixelEncoder:
    """Random projection of a thumbnail, followed by a tanh; one row never depends on another.

    It implements `ImageEncoder` and `VisionLanguageModel`. `seed` stands for the weights. With
    `batch_noise` a row also depends, in its last bits, on the batch it was computed in, as it
    does in real networks.
    """

    seed: int = 0
    dim: int = 6
    preprocessing: Preprocessing = field(
        default_factory=lambda: Preprocessing(size=(8, 8), resize=8, interpolation="bilinear")
    )
    note: str = ""
    logit_scale: float = 100.0
    prompt: str = "a photo of a {}."
    batch_noise: bool = False
    batches: list[int] = field(default_factory=list)
    text_batches: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.identity = ModelIdentity(
            spec=f"pixels-{self.seed}",
            source="tests",
            revision="",
            weights=f"{self.seed:064d}",
            settings={"dim": self.dim, "batch_noise": self.batch_noise},
        )
        height, width = self.preprocessing.size
        shape = (height * width * 3, self.dim)
        self._weights = np.random.default_rng(self.seed).normal(size=shape) / 20

    @property
    def n_encoded(self) -> int:
        """How many images went through the encoder."""
        return sum(self.batches)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` uint8 to `(n, dim)` float32."""
        self.batches.append(len(pixels))
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (*self.preprocessing.size, 3)
        flat = pixels.reshape(len(pixels), -1) / 255.0
        rows = [np.tanh((row[:, None] * self._weights).sum(axis=0)) for row in flat]
        vectors = np.array(rows, dtype=np.float32)
        if self.batch_noise:
            vectors *= np.float32(1 + zlib.crc32(pixels.tobytes()) % 97 * 1e-6)
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)` float32."""
        self.text_batches.append(len(texts))
        seeds = [zlib.crc32(f"{self.seed}{text}".encode()) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]
        return np.array(rows, dtype=np.float32)
