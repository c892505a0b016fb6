"""Updating a served model with people's answers: a job, its progress, and the switch."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trustvlm.embeddings.store import NullStore
from trustvlm.exceptions import TrustVLMError
from trustvlm.files import url_of
from trustvlm.images import LabelledImage
from trustvlm.pipeline.artefact import (
    copy_artefact,
    read_artefact,
    remove_artefact,
    write_artefact,
)
from trustvlm.pipeline.model import TrustVLM
from trustvlm.serve.feedback import FeedbackStore, StorageError, labelled_answers
from trustvlm.serve.responses import ServiceError
from trustvlm.serve.served_model import ServedModel
from trustvlm.text import without_credentials

if TYPE_CHECKING:
    from trustvlm.pipeline.update import Update

_LOG = logging.getLogger(__name__)

# More answers are for the command line, on a machine that serves nobody meanwhile.
_MOST_ANSWERS = 20_000
# As `trustvlm update` encodes, so that the vectors are the same to the last bit.
_BATCH = 32


class _CancelledError(Exception):
    """The job was asked to end."""


@dataclass(frozen=True)
class UpdateStatus:
    """How far the update of a model is.

    Attributes
    ----------
    state
        `none`, `running`, `ready`, `worse`, `failed`, `cancelled` or `switched`.
    done, total
        Steps; the total is 0 as long as it is unknown.
    started, ended
        `time.monotonic()`; None before.
    message
        Why it failed.
    kept
        Name of the folder with the model before the switch.
    report, model
        The result, and the new model as long as nobody has decided about it.
    stamp
        Of the model that it began with.
    """

    state: str = "none"
    done: int = 0
    total: int = 0
    started: float | None = None
    ended: float | None = None
    message: str = ""
    kept: str = ""
    report: Update | None = field(default=None, repr=False)
    model: TrustVLM | None = field(default=None, repr=False)
    stamp: str = ""

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        if self.started is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.started


class Updates:
    """The updates of all models of a service, of which one runs at a time, in a thread of its own.

    A result is held in memory until someone switches to it or discards it.
    """

    def __init__(self) -> None:
        # Of what `status` reads, which is never held for long; and of who may change models.
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._status: dict[str, UpdateStatus] = {}
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()

    def status(self, name: str) -> UpdateStatus:
        """Return how far the update of a model is."""
        with self._turn:
            return self._status.get(name, UpdateStatus())

    def start(self, served: ServedModel, feedback: FeedbackStore) -> UpdateStatus:
        """Begin to learn from the answers on the images of a model.

        Raises
        ------
        ServiceError
            If an update runs already, there are no answers to learn from, or the model lies at a
            URL (409).
        """
        if url_of(served.path):
            raise ServiceError(
                409,
                "remote_model",
                "The model lies at a URL, where it cannot be replaced in one step and a copy kept. "
                f"Run: {command_of(served, feedback)} -- and then serve the new model, or put it "
                "in the place of the old one and POST v1/reload.",
            )
        with self._changing:
            if self._thread is not None and self._thread.is_alive():
                raise ServiceError(
                    409, "update_running", "An update is running: wait for its end, or cancel it."
                )
            try:
                images, left_out = labelled_answers(
                    feedback, served.name, served.model.classes_, at_most=_MOST_ANSWERS
                )
            except StorageError:
                raise
            except TrustVLMError as error:
                raise ServiceError(409, "no_answers", str(error)) from error
            self._cancel = threading.Event()
            status = UpdateStatus("running", started=time.monotonic(), stamp=_stamp(served.path))
            self._put(served.name, status)
            self._thread = threading.Thread(
                target=self._run,
                args=(served, images, left_out, self._cancel),
                name="trustvlm-update",
                daemon=True,
            )
            self._thread.start()
            return self.status(served.name)

    def _run(
        self,
        served: ServedModel,
        images: list[LabelledImage],
        left_out: str,
        cancel: threading.Event,
    ) -> None:
        name = served.name

        def steps(done: int, total: int) -> None:
            if cancel.is_set():
                raise _CancelledError
            self._put(name, replace(self.status(name), done=done, total=total))

        try:
            model = served.read(NullStore(), _BATCH)
            updated, report = model.update(images, even_if_worse=True, steps=steps)
            if cancel.is_set():
                raise _CancelledError
            report = replace(report, notes=tuple(filter(None, (*report.notes, left_out))))
            state = "worse" if report.worse else "ready"
            ended = replace(self.status(name), state=state, report=report, model=updated)
        except _CancelledError:
            ended = replace(self.status(name), state="cancelled")
        except TrustVLMError as error:
            ended = replace(self.status(name), state="failed", message=str(error))
        # Whatever goes wrong, nobody shall wait for ever.
        except BaseException as error:
            _LOG.exception("The update of %s failed.", name)
            message = f"Something unexpected went wrong ({type(error).__name__}); see the log."
            ended = replace(self.status(name), state="failed", message=message)
        self._put(name, replace(ended, ended=time.monotonic()))

    def _put(self, name: str, status: UpdateStatus) -> None:
        with self._turn:
            self._status[name] = status

    def end(self, name: str) -> UpdateStatus:
        """Cancel what runs for a model, or discard its result."""
        with self._changing:
            if self.status(name).state != "running":
                self._put(name, UpdateStatus())
            elif self._thread is not None:
                # It ends with the step that it is at; until then the state says that it runs.
                self._cancel.set()
                self._thread.join(_STEP_SECONDS)
        return self.status(name)

    def switch(
        self, served: ServedModel, reload: Callable[[str], object], *, even_if_worse: bool
    ) -> UpdateStatus:
        """Put the new model in the place of the served one, and serve it.

        The old one is copied beside it first, and the new one replaces it in one step.

        Raises
        ------
        ServiceError
            If there is no new model, it is worse, or cannot be written or loaded (409).
        """
        with self._changing:
            status = self.status(served.name)
            if status.model is None:
                raise ServiceError(
                    409, "no_update", "There is no new model: start an update first."
                )
            if status.state == "worse" and not even_if_worse:
                raise ServiceError(
                    409, "worse", "The new model is significantly worse: discard it, or insist."
                )
            if _stamp(served.path) != status.stamp:
                raise ServiceError(
                    409,
                    "model_changed",
                    "The model was replaced since the update began: update that one.",
                )
            unfit = "The old model stays in service."
            try:
                kept = copy_artefact(served.path, _beside(served.path))
            except (OSError, TrustVLMError) as error:
                raise ServiceError(409, "unfit", f"{unfit} {error}") from error
            try:
                status.model.save(served.path, overwrite=True)
            except (OSError, TrustVLMError) as error:
                # It is written whole or not at all, so that the old one is where it was.
                remove_artefact(kept)
                raise ServiceError(409, "unfit", f"{unfit} {error}") from error
            try:
                reload(served.name)
            except TrustVLMError as error:
                _put_back(kept, served.path)
                self._put(served.name, replace(status, stamp=_stamp(served.path)))
                raise ServiceError(409, "unfit", f"{unfit} {error}") from error
            self._put(served.name, replace(status, state="switched", kept=kept.name, model=None))
            return self.status(served.name)

    def close(self) -> None:
        """Cancel what runs, and wait for a moment until it has ended."""
        self._cancel.set()
        if self._thread is not None:
            self._thread.join(_STEP_SECONDS)


# Learning from thousands of examples is one step.
_STEP_SECONDS = 5.0


def _stamp(path: Path) -> str:
    """Tell the model at a path from others, by all that its manifest says; "" without one."""
    with suppress(TrustVLMError):
        return str(read_artefact(path)[0].get("manifest_sha256", ""))
    return ""


def _put_back(kept: Path, path: Path) -> None:
    """Write a kept model where it was, and remove the copy.

    Raises
    ------
    ServiceError
        If it cannot be written; it says where the copy is (409).
    """
    try:
        write_artefact(path, *read_artefact(kept), overwrite=True)
    except (OSError, TrustVLMError) as error:
        raise ServiceError(
            409,
            "unfit",
            "The old model stays in service, but could not be put back for the next start: a copy "
            f"of it is {kept.name}. {error}",
        ) from error
    remove_artefact(kept)


def _beside(path: Path) -> Path:
    """Return a name for an old model: that of the new one, and when it was replaced."""
    # With microseconds: after a refusal, the next attempt may follow within the second.
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    name = path.absolute().name.removesuffix(".trust")
    return path.with_name(f"{name}-before-{moment}.trust")


def command_of(served: ServedModel, feedback: FeedbackStore) -> str:
    """Return the command that does the same, for the folder of the model.

    Its files are named without their folders, which are nobody's business. A model at a URL has no
    folder to go to, and is named whole.
    """
    url = url_of(served.path)
    if url is not None:
        url = without_credentials(url).rstrip("/")
        target = f"{url.removesuffix('.trust')}-updated.trust"
        return shlex.join(["trustvlm", "update", url, feedback.path.name, "-o", target])
    stem = served.path.absolute().name.removesuffix(".trust")
    words = ["trustvlm", "update", served.path.absolute().name, feedback.path.name]
    return shlex.join([*words, "-o", f"{stem}-updated.trust"])
