"""What all image encoders that torch runs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.models.base import ModelIdentity
from trustvlm.models.inputs import check_pixels
from trustvlm.models.preprocessing import Preprocessing
from trustvlm.models.torch_device import inference, place, to_tensor, to_vectors

__all__ = ["TorchImageEncoder"]


class TorchImageEncoder(ABC):
    """Pixels to a tensor, through a network, and back to vectors.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.
    """

    note = ""

    def __init__(
        self,
        model: Any,
        *,
        identity: ModelIdentity,
        preprocessing: Preprocessing,
        dim: int,
        device: str,
        precision: str,
    ) -> None:
        self._model, self._device, self._dtype = place(model, device, precision)
        self.identity = identity
        self.preprocessing = preprocessing
        self.dim = dim

    @abstractmethod
    def _features(self, tensor: Any) -> Any:
        """Turn normalised `(n, 3, height, width)` into `(n, dim)`, both on the device."""

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, height, width, 3)` uint8 RGB to `(n, dim)` float32, not L2-normalised.

        Raises
        ------
        InputError
            If the pixels have another type or shape, or a size that the network cannot read.
        """
        check_pixels(pixels)
        if not len(pixels):
            return np.empty((0, self.dim), dtype=np.float32)
        with inference(self._device, self._dtype):
            tensor = to_tensor(pixels, self.preprocessing, self._device)
            try:
                return to_vectors(self._features(tensor))
            except (ValueError, AssertionError) as error:
                raise InputError(
                    f"{self.identity.spec} cannot read images of {pixels.shape[1]} x "
                    f"{pixels.shape[2]} pixels: {error}"
                ) from error
