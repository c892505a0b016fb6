"""ConSE: a zero-shot model of images and texts made of a classifier and a text encoder.

Source: M. Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings,
ICLR 2014 (arXiv 1312.5650). An image becomes the mean of the text vectors of all classes that a
classifier knows, weighted by their probability. Centring the text vectors, and taking all classes
rather than the T most probable ones, are this project's choices.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.models.offline.derived import derived

__all__ = ["ClassBank", "image_vectors", "imagenet_names", "load_bank", "names_hash", "unit"]

_Float = NDArray[np.float32]


@dataclass(frozen=True)
class ClassBank:
    """Text vectors of the classes that the classifier knows.

    Parameters
    ----------
    vectors
        `(K, d)` float32: a text vector per class, minus `mean`, of unit length.
    mean
        `(d,)` float32: what is subtracted from every text vector. Without it all sentences
        resemble each other.
    """

    vectors: _Float
    mean: _Float

    @classmethod
    def of(cls, texts: _Float) -> ClassBank:
        """Centre and normalise the text vectors `(K, d)` of the class names.

        Examples
        --------
        >>> bank = ClassBank.of(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
        >>> bank.mean
        array([0.5, 0.5], dtype=float32)
        >>> bank.vectors.round(3)
        array([[ 0.707, -0.707],
               [-0.707,  0.707]], dtype=float32)
        """
        mean = texts.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(unit(texts - mean), mean)

    def centred(self, texts: _Float) -> _Float:
        """Bring text vectors `(m, d)` into the joint space: minus the mean, of unit length."""
        return unit(texts - self.mean)


def image_vectors(logits: _Float, bank: ClassBank) -> _Float:
    """Turn the classifier's logits `(n, K)` into image vectors `(n, d)` of unit length.

    Examples
    --------
    >>> bank = ClassBank.of(np.eye(2, dtype=np.float32))
    >>> image_vectors(np.array([[9.0, 1.0]], dtype=np.float32), bank).round(3)
    array([[ 0.707, -0.707]], dtype=float32)
    """
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = exponential / exponential.sum(axis=1, keepdims=True)
    mixed = np.zeros((len(logits), bank.vectors.shape[1]), dtype=np.float32)
    # Row by row, so that the last digit of a row does not depend on how many rows there are.
    for row, weights in zip(mixed, probability, strict=True):
        row[:] = weights @ bank.vectors
    return unit(mixed)


def unit(vectors: _Float) -> _Float:
    """Divide each row by its L2 norm; a row of zeros stays as it is.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    result: _Float = (vectors / norms).astype(np.float32)
    return result


def imagenet_names() -> tuple[str, ...]:
    """Return the names of the 1000 classes of ImageNet (ILSVRC 2012), in the order of the classes.

    Each is the first lemma of the class's synset in WordNet 3.0. Some names stand for two classes,
    for instance the crane that flies and the one that lifts.

    Examples
    --------
    >>> imagenet_names()[:2], len(imagenet_names())
    (('tench', 'goldfish'), 1000)
    """
    file = resources.files("trustvlm.models.offline") / "imagenet_names.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def load_bank(
    names: Sequence[str], encode: Callable[[Sequence[str]], Any], *, weights: str
) -> ClassBank:
    """Return the bank of the class names, encoded once and kept in the cache.

    Parameters
    ----------
    names
        Class names, in the order of the classifier's outputs.
    encode
        Turns K texts into `(K, d)` float32.
    weights
        Identifies what `encode` computes.
    """

    def compute() -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, encode(names), allow_pickle=False)
        return buffer.getvalue()

    key = f"{weights} {names_hash(names)}"
    content = derived("class-names", key, ".npy", compute)
    return ClassBank.of(np.load(io.BytesIO(content), allow_pickle=False))


def names_hash(names: Sequence[str]) -> str:
    """Return the SHA-256 in hex of the class names."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
