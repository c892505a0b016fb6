"""What every encoder offers to the rest of the house, whatever library runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights compute an embedding, exactly: all that can change a number.

    Parameters
    ----------
    spec
        What the user named: a preset (`clip-vit-b16`) or `hf:...`, `onnx:...` and so on.
    source
        Repository id, directory or file that the weights came from.
    revision
        Commit of the hub repository, version of the package, or "" where there is none.
    weights
        SHA-256 of the weights, in hex.
    settings
        Whatever else changes the numbers: pooling, precision, a fixed logit scale, ...
    """

    spec: str
    source: str
    revision: str
    weights: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self, preprocessing: Preprocessing) -> str:
        """Return a SHA-256 in hex over weights, settings and preprocessing.

        What only names them is left out, `spec`, `source` and `revision`: the same weights in
        another folder, or in a repository whose description was edited, give the same embeddings.
        """
        content = {
            "weights": self.weights,
            "settings": dict(self.settings),
            "preprocessing": preprocessing.to_dict(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as plain JSON values."""
        return {**asdict(self), "settings": dict(self.settings)}


@runtime_checkable
class ImageEncoder(Protocol):
    """Images in, feature vectors out.

    Attributes
    ----------
    identity
        Which weights these are.
    preprocessing
        How an image becomes pixels. The paper's protocol replaces the vision encoder's by the
        VLM's, hence it is a plain attribute that may be assigned.
    dim
        Length of a feature vector.
    note
        One sentence of warning to show wherever the model is named; "" for none.
    """

    identity: ModelIdentity
    preprocessing: Preprocessing
    dim: int
    note: str

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` uint8 RGB of `preprocessing.size` to `(n, dim)`.

        Normalisation (mean, std) happens inside. The vectors are not L2-normalised.
        """
        ...


@runtime_checkable
class VisionLanguageModel(ImageEncoder, Protocol):
    """An image encoder with a text encoder in the same space.

    Attributes
    ----------
    logit_scale
        Factor s of z = s * cos(image, text).
    prompt
        The default template, with `{}` for the class name.
    """

    logit_scale: float
    prompt: str

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, dim)`, not L2-normalised."""
        ...


# Check what callers hand to an encoder.


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Refuse what is not `(n, height, width, 3)` uint8.

    Raises
    ------
    InputError
        For another type or shape.

    Examples
    --------
    >>> check_pixels(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    """
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 4
        or pixels.shape[3] != 3
    ):
        shape = getattr(pixels, "shape", None)
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise InputError(
            "Expected `pixels` to be uint8 of shape (n, height, width, 3), "
            f"but got {kind} of shape {shape}."
        )


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; refuse one string in place of several.

    Raises
    ------
    InputError
        If `texts` is one string, or holds something else than strings.

    Examples
    --------
    >>> check_texts(("a cat", "a dog"))
    ['a cat', 'a dog']
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Expected `texts` to be a sequence of strings, but got {texts!r}.")
    return list(texts)
