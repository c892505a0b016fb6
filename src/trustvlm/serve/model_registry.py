"""The models that a service has at hand, each with its own queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from trustvlm.embeddings.decoding_pool import DecodingPool
from trustvlm.exceptions import ArtefactError, InputError, TrustVLMError
from trustvlm.files import shown_target
from trustvlm.images import ImageSource, Limits
from trustvlm.images.formats import SERVED_FORMATS
from trustvlm.serve.batching import Batcher
from trustvlm.serve.feedback import model_name
from trustvlm.serve.responses import ServiceError
from trustvlm.serve.served_model import ServedModel, UploadResult
from trustvlm.serve.settings import Settings
from trustvlm.serve.telemetry import Telemetry

_LOG = logging.getLogger(__name__)


def models_by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Return `.trust` directories by what clients call them: their names without the ending.

    Raises
    ------
    InputError
        If two have the same name.

    Examples
    --------
    >>> list(models_by_name([Path("models/pets.trust")]))
    ['pets']
    """
    named: dict[str, Path] = {}
    for path in paths:
        name = model_name(path)
        if name in named:
            raise InputError(
                f"Expected models to have names of their own, but {shown_target(named[name])} "
                f"and {shown_target(path)} are both called {name!r}. Rename one directory."
            )
        named[name] = path
    return named


class ModelRegistry:
    """Models side by side, the first of which answers where none is named.

    Parameters
    ----------
    paths
        `.trust` directories by name.
    settings
        The configuration.
    telemetry
        Where batches and verdicts are counted.
    folder
        Where the state of drift monitors is kept, `NAME.drift.json`; None keeps it nowhere.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        settings: Settings,
        telemetry: Telemetry,
        folder: Path | None = None,
    ) -> None:
        self._settings, self._folder = settings, folder
        self._telemetry = telemetry
        self.decoders = DecodingPool(capacity=settings.queue_images)
        self._paths = dict(paths)
        self._models: dict[str, ServedModel] = {}
        failures = []
        for name, path in paths.items():
            try:
                self._models[name] = self._load(name, path)
            except TrustVLMError as error:
                _LOG.error("The model %s does not serve: %s", name, error)
                failures.append(error)
        # One that cannot be loaded does no harm to another, and may be loaded again later.
        if not self._models:
            self.decoders.close()
            raise failures[0]
        self._batchers = {name: self._batcher(name) for name in paths}
        # One for each, so that a model that does not come to an end holds up no other.
        self._turns = {name: threading.Lock() for name in paths}

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, the first of which answers where none is named."""
        return tuple(self._paths)

    @property
    def waiting(self) -> int:
        """Images that wait, for all models together."""
        of_models = sum(batcher.waiting for batcher in self._batchers.values())
        return of_models + self.decoders.waiting

    def name_of(self, name: str | None) -> str:
        """Return the name of a model, that of the first one for None.

        Raises
        ------
        ServiceError
            If there is none of that name (404).
        """
        if name is None:
            return self.names[0]
        if name not in self._paths:
            raise ServiceError(
                404, "no_such_model", f"There is no such model; there are {', '.join(self.names)}."
            )
        return name

    def __getitem__(self, name: str | None) -> ServedModel:
        """Return a model by name.

        Raises
        ------
        ServiceError
            If there is none of that name (404), or it could not be loaded (503).
        """
        name = self.name_of(name)
        if name not in self._models:
            raise ServiceError(
                503, "model_failed", f"The model {name} could not be loaded; POST /v1/reload tries."
            )
        return self._models[name]

    def submit(
        self, name: str, images: Sequence[ImageSource], *, timeout: float, client: str = ""
    ) -> Future[list[UploadResult]]:
        """Queue the images of one request, decoded by `decoders`; see `Batcher.submit`."""
        return self._batchers[name].submit(images, timeout=timeout, client=client)

    def reload(self, name: str) -> ServedModel:
        """Read a model's artefact again; requests go to the old one until the new one is ready.

        Raises
        ------
        ArtefactError
            If it is damaged, gives no verdict, or does not fit the models on this machine; the old
            one stays.
        """
        with self._turns[name]:
            old = self._models.get(name)
            if old is not None:
                old.drift.save()
            fresh = self._models[name] = self._load(name, self._paths[name], before=old)
        return fresh

    def close(self) -> None:
        """Finish what was accepted."""
        for batcher in self._batchers.values():
            batcher.close()
        self.decoders.close()
        for model in self._models.values():
            model.drift.save()

    def _load(self, name: str, path: Path, before: ServedModel | None = None) -> ServedModel:
        try:
            model = self._read(name, path, before)
            model.try_out()
        except TrustVLMError:
            raise
        # A panic of a library that is written in Rust is not even an `Exception`.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            _LOG.exception("The model %s was not loaded.", name)
            raise ArtefactError(
                f"{shown_target(path)} cannot be read ({type(error).__name__}: {error}). Fit the "
                "model again."
            ) from error
        return model

    def _read(self, name: str, path: Path, before: ServedModel | None) -> ServedModel:
        settings = self._settings
        return ServedModel(
            name,
            path,
            limits=Limits(
                max_pixels=settings.max_pixels,
                max_bytes=settings.max_body_mib * 2**20,
                seconds=settings.image_seconds,
                formats=SERVED_FORMATS,
            ),
            batch_images=settings.batch_images,
            device=settings.device,
            remember=settings.remember_images,
            shots=Path(settings.shots) if settings.shots else None,
            before=before,
            drift_file=None if self._folder is None else self._folder / f"{name}.drift.json",
            when_invalid=settings.when_invalid,
        )

    def _batcher(self, name: str) -> Batcher[ImageSource, UploadResult]:
        def compute(requests: Sequence[Sequence[ImageSource]]) -> list[list[UploadResult]]:
            self._telemetry.batches.observe(sum(map(len, requests)))
            # Looked up for each batch: a model that was reloaded answers from the next one on.
            model = self[name]
            try:
                results = model.judge(requests)
            except Exception as error:
                _LOG.exception("The model %s failed.", name)
                raise ServiceError(
                    503, "model_failed", f"The model {name} failed; the reason was logged."
                ) from error
            for result in results:
                self._telemetry.results(name, result)
            self._telemetry.drift(name, model.drift.drifted, model.drift.evidence)
            return results

        return Batcher(
            compute,
            size=self._settings.batch_images,
            seconds=self._settings.batch_ms / 1000,
            capacity=self._settings.queue_images,
        )
