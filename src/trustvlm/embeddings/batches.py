"""One chunk on its way through the encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.chunks import Chunk
from trustvlm.embeddings.preparing import Prepared, pixels_key
from trustvlm.embeddings.profile import Profile
from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import ImageSource
from trustvlm.images.kinds import refusal
from trustvlm.models.base import ImageEncoder

__all__ = ["Batch"]

S = TypeVar("S", bound=ImageSource)


class Batch(Generic[S]):
    """The prepared images of a chunk; images with the same bytes are encoded once.

    Parameters
    ----------
    refs, prepared
        The n images, and what became of each.
    store
        Where computed vectors are kept.
    profile
        Learns where the time goes.
    """

    def __init__(
        self,
        refs: Sequence[S],
        prepared: Sequence[Prepared],
        store: EmbeddingStore,
        profile: Profile,
    ) -> None:
        self._refs = refs
        self._prepared = prepared
        self._store = store
        self._profile = profile
        owners = {item.digest: item for item in prepared if item.digest and item.owner}
        # The order must not depend on which of two equal images a thread came to first.
        order = dict.fromkeys(item.digest for item in prepared if item.digest)
        self._images = {digest: owners[digest] for digest in order}
        self._errors = {d: item.error for d, item in self._images.items() if item.error}
        self._vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._computed: set[str] = set()

    @property
    def n_cached(self) -> int:
        """How many images needed no forward pass and have no error."""
        spared = self._images.keys() - self._computed - self._errors.keys()
        return sum(item.digest in spared for item in self._prepared)

    def complete(self, fingerprint: str, encoder: ImageEncoder, name: str) -> None:
        """Compute and store what this encoder lacks, in one batch; `name` is for the profile."""
        vectors = self._vectors[fingerprint] = {
            digest: item.found[fingerprint]
            for digest, item in self._images.items()
            if fingerprint in item.found
        }
        missing = [d for d in self._images if d not in vectors and d not in self._errors]
        if missing:
            # A chunk before this one may have stored some of them after they were looked up.
            with self._profile.stage("storing"):
                late = self._store.get_many(fingerprint, missing)
            vectors.update((d, v) for d, v in late.items() if v.shape == (encoder.dim,))
            missing = [digest for digest in missing if digest not in vectors]
        if not missing:
            return
        self._computed.update(missing)
        key = pixels_key(encoder.preprocessing)
        pixels = np.stack([self._images[digest].pixels[key] for digest in missing])
        with self._profile.forward(name):
            computed = _forward(encoder, pixels)
        finite = np.asarray(np.isfinite(computed).all(axis=1))
        fresh = {digest: computed[i] for i, digest in enumerate(missing) if finite[i]}
        with self._profile.stage("storing"):
            self._store.put_many(fingerprint, fresh, spec=encoder.identity.spec)
        vectors.update(fresh)
        for digest in missing:
            if digest not in fresh:
                self._errors[digest] = refusal(
                    "embedding",
                    self._images[digest].path,
                    f"the encoder {encoder.identity.spec!r} gives NaN or infinity for it",
                    "Leave it out, or run the encoder in float32",
                )

    def chunk(
        self, encoders: Mapping[str, ImageEncoder], fingerprints: Mapping[str, str]
    ) -> Chunk[S]:
        """Put errors and vectors back into input order."""
        pairs = list(zip(self._refs, self._prepared, strict=True))
        errors = tuple(self._error(ref.path, item) for ref, item in pairs)
        embeddings = {}
        for name, encoder in encoders.items():
            rows = np.full((len(pairs), encoder.dim), np.nan, dtype=np.float32)
            vectors = self._vectors[fingerprints[name]]
            for row, item, error in zip(rows, self._prepared, errors, strict=True):
                if error is None:
                    row[:] = vectors[item.digest]
            embeddings[name] = rows
        hashes = tuple(item.digest for item in self._prepared)
        return Chunk(tuple(self._refs), hashes, errors, embeddings)

    def _error(self, path: str, item: Prepared) -> ImageError | None:
        error = item.error or self._errors.get(item.digest)
        if error is None or item.owner:
            return error
        # The message begins with the name of the image that was decoded in this one's place.
        message = str(error).removeprefix(self._images[item.digest].path)
        return ImageError(error.kind, f"{path}{message}")


def _forward(encoder: ImageEncoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    computed = np.asarray(encoder.encode_pixels(pixels), dtype=np.float32)
    if computed.shape != (len(pixels), encoder.dim):
        raise InputError(
            f"Expected the encoder {encoder.identity.spec!r} to return shape "
            f"{(len(pixels), encoder.dim)}, but got {computed.shape}."
        )
    return computed
