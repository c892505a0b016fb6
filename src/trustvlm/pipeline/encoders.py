"""The two encoders that look at every image, as the protocol wants them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from trustvlm import models
from trustvlm.exceptions import InputError
from trustvlm.models.base import ImageEncoder, VisionLanguageModel

__all__ = ["PROTOCOLS", "Encoders", "describe"]

Encoder = TypeVar("Encoder", bound=ImageEncoder)

PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Encoders:
    """The VLM that predicts and the vision encoder that verifies."""

    vlm: VisionLanguageModel
    vision: ImageEncoder

    @classmethod
    def load(
        cls,
        vlm: str | VisionLanguageModel,
        vision: str | ImageEncoder,
        *,
        protocol: str = "clean",
        device: str = "auto",
        precision: str = "float32",
        draft: bool = False,
    ) -> Encoders:
        """Load both encoders by name, or take them as they are.

        `protocol="clean"` gives each encoder its own preprocessing. `protocol="paper"` does what
        the released script did: the vision encoder receives the VLM's pixels, normalised with the
        VLM's mean and standard deviation, and SigLIP's logit scale is 100. Crops are placed as
        torchvision places them, which the script is taken to use. `draft=True` lets both decode
        large JPEGs at a reduced size.

        Raises
        ------
        InputError
            For an unknown protocol or model name.
        ModelUnavailableError, MissingExtraError
            If a model cannot be had here.
        """
        if protocol not in PROTOCOLS:
            raise InputError(
                f"Expected `protocol` to be {' or '.join(PROTOCOLS)}, but got {protocol!r}."
            )
        settings = {"device": device, "precision": precision}
        loaded = models.load_vlm(vlm, **settings) if isinstance(vlm, str) else vlm
        verifier = (
            models.load_vision(vision, vlm=loaded, **settings)
            if isinstance(vision, str)
            else vision
        )
        if protocol == "paper":
            loaded, verifier = copy.copy(loaded), copy.copy(verifier)
            loaded.preprocessing = replace(loaded.preprocessing, rounding="even")
            verifier.preprocessing = loaded.preprocessing
            if loaded.identity.settings.get("family") == "siglip":
                loaded.logit_scale = 100.0
        if draft:
            loaded, verifier = _drafting(loaded), _drafting(verifier)
        return cls(loaded, verifier)

    def notes(self) -> list[str]:
        """Warnings to show wherever the models are named."""
        return list(dict.fromkeys(e.note for e in (self.vlm, self.vision) if e.note))


def _drafting(encoder: Encoder) -> Encoder:
    other = copy.copy(encoder)
    other.preprocessing = replace(encoder.preprocessing, draft=True)
    return other


def describe(encoder: ImageEncoder) -> Mapping[str, Any]:
    """Return what an artefact stores about an encoder, as plain JSON values."""
    return {
        **encoder.identity.to_dict(),
        "preprocessing": encoder.preprocessing.to_dict(),
        "fingerprint": encoder.identity.fingerprint(encoder.preprocessing),
        "note": encoder.note,
    }
