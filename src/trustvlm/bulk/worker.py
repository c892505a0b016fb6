"""From a part to its verdicts: computed in a process that may die, and is started again."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from trustvlm.bulk.journal import identify
from trustvlm.bulk.parts import FinishedPart, Part, finished_part
from trustvlm.embeddings import NullStore, Profile
from trustvlm.embeddings.prefetch import n_hanging
from trustvlm.exceptions import (
    ArtefactError,
    BulkError,
    PluginError,
    TrustVLMError,
    TrustVLMWarning,
)
from trustvlm.files import shown_target
from trustvlm.images.errors import refusal
from trustvlm.images.references import ImageSource, Skipped, UnreadableImage
from trustvlm.images.streams import BrokenShard, StreamShard
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.pipeline.predict import Predictor
from trustvlm.pipeline.verdict import Verdict
from trustvlm.plugins import load_plugin, loaded_plugins

if TYPE_CHECKING:
    from trustvlm.pipeline import TrustVLM


class PartComputer:
    """Computes parts with one model; parts of one archive in order need a single pass over it.

    Parameters
    ----------
    predictor
        With a score that judges each image by itself.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._expected: tuple[int, int] | None = None
        self._images: Iterator[ImageSource] = iter(())
        self._skipped = Skipped()

    def compute(self, part: Part, fatal: Mapping[int, UnreadableImage]) -> FinishedPart:
        """Return the verdicts on a part.

        Parameters
        ----------
        part
            Which images.
        fatal
            What replaces images that must not be read, by position in the part.
        """
        broken = False

        def readable() -> Iterator[ImageSource]:
            nonlocal broken
            for position, image in enumerate(self._from(part)):
                broken = isinstance(image, BrokenShard)
                yield fatal.get(position, image)

        verdicts: list[Verdict] = []
        kinds: list[str] = []
        profile, run = Profile(), self._predictor.run()
        for images, of_chunk in self._predictor.chunks(readable(), profile=profile, run=run):
            verdicts += of_chunk
            kinds += [error.kind for error in images.errors if error is not None]
        self._expected = part.next().key
        end = len(verdicts) < part.size or part.start + len(verdicts) == part.shard.length
        last = end or broken
        # Complete where the archive ends; what was passed over before a restart counts again then.
        return finished_part(
            part,
            verdicts,
            kinds,
            sums=run.sums,
            last=last,
            seconds=profile.seconds,
            skipped=self._skipped if last else Skipped(),
        )

    def probe(self, part: Part, start: int) -> Iterator[tuple[str, str | int]]:
        """Yield what is tried, `("trying", path)`, and what did no harm, `("passed", position)`."""
        self._expected = None
        images = islice(part.shard.images(part.start + start), part.size - start)
        for position, image in enumerate(images, start):
            yield "trying", image.path
            for _ in self._predictor.chunks([image]):
                pass
            yield "passed", position

    def _from(self, part: Part) -> Iterator[ImageSource]:
        if self._expected != part.key:
            shard, self._skipped = part.shard, Skipped()
            if isinstance(shard, StreamShard):
                shard = replace(shard, skipped=self._skipped)
            self._images = shard.images(part.start)
        # Whatever fails from here on leaves the position unknown.
        self._expected = None
        return islice(self._images, part.size)


# The process that computes: it may die of an image, and the one that asked does not.
#
# Requests come as pickles on the standard input of `main`, and responses leave on its standard
# output. Both ends are processes of one user on one machine.

Loader = Callable[[], "TrustVLM"]
# How often a worker gives a sign of life, in seconds. It comes from a thread of its own, so it
# stays out only if the process hangs as a whole, as when a library keeps the interpreter's lock.
_HEARTBEAT = 0.5


@dataclass(frozen=True)
class LoadModel:
    """How a worker comes by its model.

    Parameters
    ----------
    path
        A `.trust` directory.
    settings
        Of `TrustVLM.load`.
    keep_embeddings
        Use the store of embeddings; otherwise nothing is looked up or kept.
    risk, prediction_sets, set_method
        As in `predict_in_bulk`.
    plugins
        Files that register scores or encoder backends, to be executed in the worker; those that
        this process has loaded.
    identity
        Of the model that the job was begun with, where another may lie under the same path, as on
        another machine; None does not look.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep_embeddings: bool = False
    risk: float | None = None
    prediction_sets: float | None = None
    set_method: str = "lac"
    plugins: tuple[Path, ...] = field(default_factory=loaded_plugins)
    identity: Mapping[str, str] | None = None

    def __call__(self) -> TrustVLM:
        """Load the model."""
        from trustvlm.pipeline import TrustVLM

        for plugin in self.plugins:
            load_plugin(plugin)
        if self.identity is not None and identify(read_artefact(self.path)[0]) != self.identity:
            raise ArtefactError(
                f"{shown_target(self.path)} is another model on this machine "
                f"({socket.gethostname()}) than where the job was started. Copy the same there."
            )
        store = None if self.keep_embeddings else NullStore()
        model = TrustVLM.load(self.path, store=store, **self.settings)
        return model if self.risk is None else model.use_risk(self.risk)

    def predictor(self, model: TrustVLM) -> Predictor:
        """Make the model ready for what is asked of it."""
        return Predictor(model, self.prediction_sets, self.set_method)


@dataclass(frozen=True)
class Compute:
    """Ask for the verdicts on a part."""

    part: Part
    fatal: Mapping[int, UnreadableImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """Ask for the images of a part, one by one, to see which of them does harm."""

    part: Part
    start: int


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    content = pickle.dumps(message)
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; EOFError if the other side is gone."""
    head = stream.read(8)
    content = stream.read(int.from_bytes(head, "big")) if len(head) == 8 else b""
    if not content:
        raise EOFError
    return pickle.loads(content)  # noqa: S301  # from the process on the other end of the pipe


def main() -> None:
    """Serve requests until there are no more."""
    # The parent decides what Control-C means; whatever a library prints must not be taken for a
    # response.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    lock = threading.Lock()

    def respond(kind: str, content: Any = None) -> None:
        try:
            with lock:
                send(responses, (kind, content))
        except BrokenPipeError:
            # The parent is gone: nobody is left to read a complaint.
            os._exit(0)

    def warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, TrustVLMWarning):
            respond("warning", str(message))

    def beat() -> None:
        while True:
            time.sleep(_HEARTBEAT)
            respond("alive")

    warnings.showwarning = warn
    threading.Thread(target=beat, daemon=True).start()
    try:
        load = requests.get()
        model = load()
        ready = load.predictor(model) if isinstance(load, LoadModel) else Predictor(model)
        computer = PartComputer(ready)
        respond("ready", model.encoders.notes())
        while True:
            request = requests.get()
            if isinstance(request, Probe):
                for kind, content in computer.probe(request.part, request.start):
                    respond(kind, content)
                respond("probed")
            else:
                finished = computer.compute(request.part, request.fatal)
                respond("done", (finished, n_hanging()))
    except BaseException as error:
        if isinstance(error, TrustVLMError) and not isinstance(error, PluginError):
            respond("refused", error)
            os._exit(70)
        # A part that makes the program fail is treated as one that kills it.
        respond("dying", f"{type(error).__name__}: {error}")
    os._exit(70)


def _read(stream: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            requests.put(receive(stream))
        except EOFError:
            # The parent is gone: nobody waits for what is being computed.
            os._exit(0)


# The other end: the process is started again when it dies or hangs, and the image that it died of
# is searched for.

SILENCE = 120.0


class _DiedError(Exception):
    """The worker is gone; the message says how."""


class _WorkerProcess:
    """A process that runs `main`, until it is closed or dies."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from trustvlm.bulk.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._requests = self._process.stdin
        self._responses: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        threading.Thread(
            target=_receive_all, args=(self._process.stdout, self._responses), daemon=True
        ).start()

    def send(self, message: Any) -> None:
        """Send the loader of the model, or a request."""
        try:
            send(self._requests, message)
        except BrokenPipeError:
            self._died()

    def response(self, silence: float | None = None) -> tuple[str, Any]:
        """Return the next response; raise what the worker raised, or say how it died."""
        how = ""
        while True:
            try:
                kind, content = self._responses.get(timeout=silence)
            except queue.Empty:
                self._process.kill()
                self._died(f"no sign of life for {silence:g} s")
            if kind == "alive":
                continue
            if kind == "gone":
                self._died(how)
            elif kind == "warning":
                warnings.warn(content, TrustVLMWarning, stacklevel=2)
            elif kind == "refused":
                raise content
            elif kind == "dying":
                how = content
            else:
                return kind, content

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._requests.close()

    def _died(self, how: str = "") -> NoReturn:
        code = self._process.wait()
        raise _DiedError(how or (f"exit code {code}" if code >= 0 else signal.Signals(-code).name))


class GuardedWorker:
    """Computes parts in a process of its own, until it is closed.

    A part whose process dies is tried again. If it dies again and again, its images are tried one
    by one, and those that kill the process each time become rows with an error, of kind `fatal`. A
    process that gives no sign of life is killed; one in which decoders hang ends after its part.

    Parameters
    ----------
    loader
        Makes the model in the worker; must be picklable.
    retries
        How often a part, and then an image, is tried after the first time.
    silence
        Seconds without a sign of life after which the process is killed.
    """

    def __init__(self, loader: Loader, retries: int = 2, silence: float = SILENCE) -> None:
        self._loader = loader
        self._retries = retries
        self._silence = silence
        self._process: _WorkerProcess | None = None
        self.notes: list[str] = []

    def load(self) -> None:
        """Start the process and load the model, if that is not done.

        Raises
        ------
        TrustVLMError
            If the model cannot be loaded.
        """
        with self._running():
            pass

    def compute(self, part: Part) -> FinishedPart:
        """Return the verdicts on a part.

        Raises
        ------
        TrustVLMError
            If the model cannot be loaded or the input makes no sense.
        BulkError
            If the worker dies of this part, but of none of its images alone.
        """
        fatal: dict[int, UnreadableImage] = {}
        for _ in range(2):
            for attempt in range(self._retries + 1):
                try:
                    with self._running() as worker:
                        worker.send(Compute(part, fatal))
                        finished, n_hanging = worker.response(self._silence)[1]
                except _DiedError as death:
                    how = str(death)
                    warnings.warn(
                        f"a worker died in {part.shard.name} ({how}); attempt {attempt + 1} of "
                        f"{self._retries + 1}",
                        TrustVLMWarning,
                        stacklevel=2,
                    )
                    continue
                if n_hanging:
                    # Its threads may keep a core busy for ever, and it has only so many to lose.
                    self.close()
                assert isinstance(finished, FinishedPart)  # noqa: S101
                return finished
            if fatal:
                break
            fatal = self._find_fatal(part)
            if not fatal:
                break
        raise BulkError(
            f"Images {part.start + 1} to {part.start + part.size} of {part.shard.name!r} stop the "
            f"worker each time ({how}), but none of them does so alone. It may lack memory: use a "
            "smaller --batch-size in a new folder. What is done so far is kept."
        )

    def close(self) -> None:
        """Stop the worker."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _find_fatal(self, part: Part) -> dict[int, UnreadableImage]:
        fatal: dict[int, UnreadableImage] = {}
        position, deaths = 0, 0
        # What was tried last: an archive that stops the process is not read here as well.
        path = ""
        while position < part.size:
            try:
                with self._running() as worker:
                    worker.send(Probe(part, position))
                    while True:
                        kind, content = worker.response(self._silence)
                        if kind == "probed":
                            return fatal
                        if kind == "trying":
                            path = content
                        else:
                            position, deaths, path = content + 1, 0, ""
            except _DiedError as death:
                deaths += 1
                if deaths > self._retries:
                    path = path or f"{part.shard.name}#{part.start + position}"
                    what = f"it stopped the process that read it {deaths} times ({death})"
                    error = refusal("fatal", path, what, "Leave it out")
                    fatal[position] = UnreadableImage.of(path, error)
                    position, deaths, path = position + 1, 0, ""
        return fatal

    @contextmanager
    def _running(self) -> Iterator[_WorkerProcess]:
        """Yield a process that has its model; whatever goes wrong with it ends it."""
        try:
            if self._process is None:
                self._process = _WorkerProcess()
                try:
                    self._process.send(self._loader)
                    self.notes = self._process.response()[1]
                except _DiedError as death:
                    raise BulkError(
                        f"The worker died while it loaded the model ({death}). It may lack memory."
                    ) from death
            yield self._process
        except BaseException:
            self.close()
            raise


def _receive_all(stream: IO[bytes], responses: queue.SimpleQueue[tuple[str, Any]]) -> None:
    with stream:
        while True:
            try:
                responses.put(receive(stream))
            except (EOFError, pickle.UnpicklingError):
                responses.put(("gone", None))
                return
