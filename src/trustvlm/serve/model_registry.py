"""The models that a service has at hand, each with its own queue."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from trustvlm.exceptions import InputError
from trustvlm.images import InMemoryImage, Limits
from trustvlm.serve.batching import Batcher
from trustvlm.serve.responses import ServiceError
from trustvlm.serve.served_model import Judged, ServedModel
from trustvlm.serve.settings import Settings
from trustvlm.serve.telemetry import Telemetry


def name_of(path: Path) -> str:
    """Return what clients call a model: the name of its directory.

    Examples
    --------
    >>> name_of(Path("models/pets.trust"))
    'pets'
    """
    return path.absolute().name.removesuffix(".trust") or "model"


def names_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return models by name.

    Raises
    ------
    InputError
        If two have the same name.
    """
    named: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in named:
            raise InputError(
                f"Expected models to have names of their own, but {named[name]} and {path} are "
                f"both called {name!r}. Rename one directory."
            )
        named[name] = path
    return named


class Shelf:
    """Models side by side, the first of which answers where none is named.

    Parameters
    ----------
    models
        `.trust` directories by name.
    settings
        The configuration.
    telemetry
        Where batches and verdicts are counted.
    """

    def __init__(
        self, models: Mapping[str, Path], settings: Settings, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._served = {name: self._load(name, path) for name, path in models.items()}
        self._batchers = {name: self._batcher(name) for name in models}
        self._turn = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, the first of which answers where none is named."""
        return tuple(self._served)

    @property
    def waiting(self) -> int:
        """Images that wait, for all models together."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    def __getitem__(self, name: str | None) -> ServedModel:
        """Return a model by name.

        Raises
        ------
        ServiceError
            If there is none of that name (404).
        """
        name = self.names[0] if name is None else name
        try:
            return self._served[name]
        except KeyError:
            raise ServiceError(
                404, "no_such_model", f"There is no such model; there are {', '.join(self.names)}."
            ) from None

    def submit(
        self, name: str, images: Sequence[InMemoryImage], *, timeout: float
    ) -> Future[list[Judged]]:
        """Queue the images of one request; see `Batcher.submit`."""
        return self._batchers[name].submit(images, timeout=timeout)

    def reload(self, name: str) -> ServedModel:
        """Read a model's artefact again; requests go to the old one until the new one is ready.

        Raises
        ------
        ArtefactError
            If it is damaged or does not fit the models on this machine; the old one stays.
        """
        with self._turn:
            fresh = self._load(name, self[name].path, before=self[name])
            self._served[name] = fresh
        return fresh

    def close(self) -> None:
        """Finish what was accepted."""
        for batcher in self._batchers.values():
            batcher.close()

    def _load(self, name: str, path: Path, before: ServedModel | None = None) -> ServedModel:
        return ServedModel(
            name,
            path,
            limits=Limits(
                max_pixels=self._settings.max_pixels,
                max_bytes=self._settings.max_body_mib * 2**20,
                seconds=self._settings.image_seconds,
            ),
            batch_images=self._settings.batch_images,
            remember=self._settings.remember_images,
            shots=Path(self._settings.shots) if self._settings.shots else None,
            before=before,
        )

    def _batcher(self, name: str) -> Batcher[InMemoryImage, Judged]:
        def compute(requests: Sequence[Sequence[InMemoryImage]]) -> list[list[Judged]]:
            self._telemetry.batch(sum(map(len, requests)))
            # Looked up for each batch: a model that was reloaded answers from the next one on.
            results = self._served[name].judge(requests)
            for result in results:
                self._telemetry.judged(name, result)
            drift = self._served[name].drift
            self._telemetry.drift(name, drift.drifted, drift.evidence)
            return results

        return Batcher(
            compute,
            size=self._settings.batch_images,
            seconds=self._settings.batch_ms / 1000,
            capacity=self._settings.queue_images,
        )
