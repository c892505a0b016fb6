"""Read and decode images in threads, before the encoders need them.

A thread whose image takes longer than the time limit is given up and replaced.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustvlm.embeddings.store import EmbeddingStore
from trustvlm.environment import usable_cores
from trustvlm.exceptions import ImageError, TrustVLMError
from trustvlm.images import (
    ImageSource,
    InMemoryImage,
    LabelledImage,
    Limits,
    content_hash,
    decode,
)
from trustvlm.images.errors import Stopwatch, refusal
from trustvlm.models.base import ImageEncoder, Preprocessing

T = TypeVar("T")

# Where the time of a run went.

# Stages that run in threads, while the encoders work; all others follow one another.
_THREADED = ("reading", "looking up", "decoding", "resizing", "committing")
# How the stages of forward passes begin, before the encoder's name.
FORWARD = "encoder "


class Profile:
    """Seconds by stage, summed over images; any number of threads may add to it.

    Attributes
    ----------
    n_images
        Images that the run has gone through.

    Examples
    --------
    >>> profile = Profile()
    >>> with profile.stage("encoder vlm"):
    ...     pass
    >>> list(profile.seconds)
    ['encoder vlm']
    """

    def __init__(self) -> None:
        self.n_images = 0
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._begun = time.perf_counter()
        self._total: float | None = None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage, in the order in which the stages were first left."""
        return dict(self._seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def end(self) -> None:
        """Stop the clock that the making of this object started."""
        self._total = time.perf_counter() - self._begun

    def lines(self) -> list[str]:
        """Say in words and numbers where the time went, until `end` was called, or until now."""
        total = time.perf_counter() - self._begun if self._total is None else self._total
        seconds = self.seconds
        threaded = {name: seconds[name] for name in _THREADED if name in seconds}
        steps = {name: spent for name, spent in seconds.items() if name not in threaded}
        steps["all else"] = total - sum(steps.values())
        forward = sum(spent for name, spent in steps.items() if name.startswith(FORWARD))
        rate = self.n_images / total
        return [
            f"profile: {self.n_images} images in {total:.2f} s, {rate:.1f} images/s",
            *(_line(name, spent, total) for name, spent in steps.items()),
            *(["in threads, meanwhile, seconds summed over them:"] if threaded else []),
            *(_line(name, spent, None) for name, spent in threaded.items()),
            f"the encoders' forward passes took {forward / total:.1%} of the time",
        ]


def _line(name: str, spent: float, total: float | None) -> str:
    share = "" if total is None else f"{spent / total:8.1%}"
    return f"  {name:<20}{spent:9.2f} s{share}"


# Threads, and what becomes of those that hang.

# No thread can be stopped from outside, so each that hangs is memory, and perhaps a core, until the
# process ends. Beyond these, those that hang are not replaced, and no new pool begins.
MOST_HANGING = 16
# How long closing waits for threads that are in the middle of an image, in seconds.
_PATIENCE = 5.0
_THREADS = "trustvlm-decode"

_hanging = 0
_lock = threading.Lock()


def n_hanging() -> int:
    """Return how many threads of this process were given up and have not come back."""
    return _hanging


class GivenUpError(Exception):
    """Raised in a thread whose task was given up, to end it."""


@dataclass(frozen=True, eq=False)
class Task:
    """The work on one image, its future, and how long it has been worked on."""

    work: Preparation
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    future: Future[PreparedImage] = field(default_factory=Future)


class ThreadPool:
    """Threads that work through tasks in order and do not keep the interpreter from ending.

    `concurrent.futures` would wait for its threads when the interpreter ends, and has no
    replacement for one that hangs. The thread that waits for a result watches the time, so that
    tasks which end cost nothing more.

    Parameters
    ----------
    workers
        Threads, at most.
    seconds
        Time limit of one task, by its stopwatch.
    """

    def __init__(self, workers: int, seconds: float) -> None:
        self._workers = workers
        self._seconds = seconds
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: dict[threading.Thread, Task | None] = {}
        self._n_started = 0
        atexit.register(self.close)

    def submit(self, work: Preparation) -> Task:
        """Queue the work on an image."""
        if len(self._threads) < self._workers:
            self._start()
        task = Task(work)
        self._tasks.put(task)
        return task

    def results(self, tasks: Sequence[Task | PreparedImage]) -> list[PreparedImage]:
        """Wait for tasks; what is prepared already stays as it is."""
        waited_for = [item for item in tasks if isinstance(item, Task)]
        if self._threads and waited_for:
            # Mostly the last one ends last: to wake up once is cheaper than for each of them.
            with suppress(TimeoutError):
                waited_for[-1].future.exception(self._seconds)
        results = []
        for task in tasks:
            if not isinstance(task, Task):
                results.append(task)
                continue
            while not task.future.done():
                left = self._seconds - task.stopwatch.seconds
                if left <= 0:
                    self._give_up(task)
                elif not self._threads:
                    results.append(task.work.not_tried())
                    break
                else:
                    with suppress(TimeoutError):
                        task.future.exception(left + 0.001)
            else:
                results.append(task.future.result())
        return results

    def close(self) -> None:
        """Forget what was not begun, wait a little for what was, and end the threads."""
        atexit.unregister(self.close)
        with suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
        threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        # The garbage collector may close a run in one of these threads, which cannot wait for
        # itself.
        if threading.current_thread().name.startswith(_THREADS):
            return
        deadline = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            task = self._threads.get(thread)
            if thread.is_alive() and task is not None:
                self._give_up(task)

    def _start(self) -> None:
        if _hanging >= MOST_HANGING:
            return
        name = f"{_THREADS}_{self._n_started}"
        self._n_started += 1
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads[thread] = None
        thread.start()

    def _give_up(self, task: Task) -> None:
        _count(1)
        try:
            task.future.set_result(task.work.given_up())
        except InvalidStateError:  # it has ended after all
            _count(-1)
            return
        for thread, current in list(self._threads.items()):
            if current is task:
                del self._threads[thread]
        self._start()

    def _run(self) -> None:
        thread = threading.current_thread()
        while (task := self._tasks.get()) is not None:
            self._threads[thread] = task
            if not _settle(task):
                # Another thread has replaced this one.
                _count(-1)
                return
            self._threads[thread] = None
            # Else the pixels would live on until the next task.
            del task


def _settle(task: Task) -> bool:
    """Do a task; False if it had been given up meanwhile."""
    try:
        try:
            result = task.work.run(task.stopwatch)
        except GivenUpError:
            return False
        except BaseException as error:
            task.future.set_exception(error)
        else:
            task.future.set_result(result)
    except InvalidStateError:
        return False
    return True


def _count(change: int) -> None:
    global _hanging
    with _lock:
        _hanging += change


# From images to pixels for the encoders that have no stored vector of them.

S = TypeVar("S", bound=ImageSource)
# Bytes up to which the content of an image waits in memory until the others of its chunk are read,
# so that the store is asked for all at once. For larger ones, decoding costs far more than asking.
_SMALL = 2**17


@dataclass(frozen=True)
class PreparedImage:
    """One image, read and, where an encoder has to see it, decoded.

    Attributes
    ----------
    path
        Its name.
    digest
        SHA-256 of its bytes; "" if it could not be read.
    owner
        False if another image of the chunk has the same bytes and was prepared for both.
    unfinished
        The work on an image that was read, until the store was asked for it.
    error
        Why it cannot be encoded.
    stored
        Stored vectors by fingerprint.
    pixels
        `(height, width, 3)` by the fingerprint of each encoder whose vector is missing.
    """

    path: str
    digest: str = ""
    owner: bool = True
    unfinished: Preparation | None = None
    error: ImageError | None = None
    stored: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    pixels: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class PrefetchSettings:
    """What to look up and to prepare for: the encoders by fingerprint, the store, the limits.

    `profile` measures where the time goes.
    """

    encoders: Mapping[str, ImageEncoder]
    store: EmbeddingStore
    limits: Limits
    profile: Profile = field(default_factory=Profile)


def prefetch_chunks(
    chunks: Iterable[Sequence[S]],
    settings: PrefetchSettings,
    workers: int | None,
    *,
    chunk_size: int,
) -> Generator[tuple[Sequence[S], list[PreparedImage]], None, None]:
    """Yield each chunk and its images prepared, in order, while threads prepare the next few.

    `workers` is the number of threads; None for one per core that this process may use, at most 8.

    An image that takes longer than `limits.seconds` is prepared as one with an error, and its
    thread is replaced. The pool is shut down when the generator ends, is closed, or is left by an
    exception.
    """
    n_ahead = chunks_ahead(workers, chunk_size)
    pool = ThreadPool(_n_threads(workers), settings.limits.seconds)
    # Small images wait here until all of their chunk are read, to be looked up in one go.
    reading: deque[tuple[Sequence[S], list[Task]]] = deque()
    decoding: deque[tuple[Sequence[S], list[PreparedImage | Task]]] = deque()

    def look_up(*, wait: bool) -> None:
        while reading and (wait or all(task.future.done() for task in reading[0][1])):
            chunk, tasks = reading.popleft()
            decoding.append((chunk, _look_up(pool.results(tasks), settings, pool)))
            wait = False

    todo = iter(chunks)
    try:
        while True:
            while (
                len(reading) + len(decoding) < n_ahead and (chunk := next(todo, None)) is not None
            ):
                claims = _Claims()
                tasks = (pool.submit(Preparation(ref, claims, settings)) for ref in chunk)
                reading.append((chunk, list(tasks)))
            look_up(wait=not decoding)
            if not decoding:
                return
            pool.results([task for task in decoding[0][1] if isinstance(task, Task)])
            # So that the threads are busy while the encoders are.
            look_up(wait=False)
            # No name may keep the tasks, and with them the pixels, until the next chunk is due.
            yield decoding[0][0], pool.results(decoding.popleft()[1])
    finally:
        pool.close()


def chunks_ahead(workers: int | None, chunk_size: int) -> int:
    """Return how many chunks are prepared at a time, that whose turn it is included.

    Enough to keep every thread busy while an encoder runs, and no more: this bounds the memory.
    """
    return 2 + max(1, -(-2 * _n_threads(workers) // max(chunk_size, 1)))


def _n_threads(workers: int | None) -> int:
    return workers or min(8, usable_cores())


def _look_up(
    images: Sequence[PreparedImage], settings: PrefetchSettings, pool: ThreadPool
) -> list[PreparedImage | Task]:
    """Ask the store for the images of a chunk, and have those decoded that it lacks."""
    works = [image.unfinished for image in images if image.unfinished is not None]
    look_up(works, settings)
    return [
        image
        if (work := image.unfinished) is None
        else (pool.submit(work) if work.missing else work.prepared())
        for image in images
    ]


def look_up(works: Sequence[Preparation], settings: PrefetchSettings) -> None:
    """Ask the store for images that were read."""
    if not works:
        return
    digests = [work.digest for work in works]
    for fingerprint, encoder in settings.encoders.items():
        with settings.profile.stage("looking up"):
            vectors = settings.store.get_many(fingerprint, digests)
        for work in works:
            vector = vectors.get(work.digest)
            if vector is not None and vector.shape == (encoder.dim,):
                work.stored[fingerprint] = vector
            else:
                work.missing[fingerprint] = encoder.preprocessing


@dataclass(frozen=True)
class _Claims:
    """Lets one of several images with the same bytes be decoded for all of them."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _owners: dict[str, Preparation] = field(default_factory=dict)
    _given_up: set[Preparation] = field(default_factory=set)

    def take(self, digest: str, image: Preparation) -> bool:
        """Whether this image is to be decoded; GivenUpError if nobody waits for it any more."""
        with self._lock:
            if image in self._given_up:
                raise GivenUpError
            return self._owners.setdefault(digest, image) is image

    def give_up(self, image: Preparation) -> str:
        """Note that nobody waits for an image; return the digest for which others rely on it."""
        with self._lock:
            self._given_up.add(image)
            return next((d for d, owner in self._owners.items() if owner is image), "")


@dataclass(eq=False)
class Preparation:
    """The work on one image; a stopwatch runs while the time limit applies."""

    _ref: ImageSource
    _claims: _Claims
    _settings: PrefetchSettings
    digest: str = ""
    stored: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    missing: dict[str, Preprocessing] = field(default_factory=dict)
    _content: bytes | None = None

    def run(self, stopwatch: Stopwatch) -> PreparedImage:
        """Read the image, look it up, and decode it for the encoders that lack it.

        A small image is left unfinished when it was read; once looked up, this goes on with it.
        """
        if self._content is None:
            ref, settings = self._ref, self._settings
            with settings.profile.stage("reading"), stopwatch:
                content = guarded(ref.path, lambda: ref.read(settings.limits))
                if isinstance(content, ImageError):
                    return PreparedImage(ref.path, error=content)
                digest = content_hash(content)
            self.digest, self._content = digest, content
            if not self._claims.take(digest, self):
                return PreparedImage(ref.path, digest, owner=False)
            if len(content) <= _SMALL:
                return PreparedImage(ref.path, digest, unfinished=self)
            look_up([self], settings)
        return self._decode(stopwatch) if self.missing else self.prepared()

    def prepared(self, **parts: Any) -> PreparedImage:
        """Return the image with what the store has of it, and with an error or pixels."""
        return PreparedImage(self._ref.path, self.digest, stored=self.stored, **parts)

    def _decode(self, stopwatch: Stopwatch) -> PreparedImage:
        ref, settings = self._ref, self._settings
        content, self._content = self._content or b"", b""
        with stopwatch:
            pixels = guarded(
                ref.path, lambda: _pixels(content, ref, self.missing, settings, stopwatch)
            )
        if isinstance(pixels, ImageError):
            return self.prepared(error=pixels)
        return self.prepared(pixels=pixels)

    def given_up(self) -> PreparedImage:
        """Say that the image takes too long."""
        digest, path = self._claims.give_up(self), self._ref.path
        doing = "decoding"
        remedy = "Leave it out, save it anew, or allow more time with --image-seconds"
        if not self.digest:
            doing, remedy = "reading", "Check the disk or the network"
        what = f"{doing} took longer than {self._settings.limits.seconds:g} s"
        note = "Or raise `Limits(seconds=...)`."
        return PreparedImage(path, digest, error=refusal("too_slow", path, what, remedy, note=note))

    def not_tried(self) -> PreparedImage:
        """Say that other images left no thread for this one."""
        what = f"it was not tried, because {n_hanging()} images before it hang in their decoders"
        remedy = "Leave those out, and start the program again"
        error = refusal("not_tried", self._ref.path, what, remedy)
        return PreparedImage(self._ref.path, self._claims.give_up(self), error=error)


def _pixels(
    content: bytes,
    ref: ImageSource,
    needed: Mapping[str, Preprocessing],
    settings: PrefetchSettings,
    stopwatch: Stopwatch,
) -> dict[str, NDArray[Any]]:
    same = {key: without_normalisation(preprocessing) for key, preprocessing in needed.items()}
    image = ref.source if isinstance(ref, LabelledImage) else ref
    pixels = dict(image.pixels) if isinstance(image, DecodedImage) else {}
    missing = set(same.values()) - pixels.keys()
    pixels |= decode_pixels(
        content, ref.path, missing, settings.limits, stopwatch, settings.profile
    )
    return {key: pixels[wished] for key, wished in same.items()}


@dataclass(frozen=True)
class DecodedImage(InMemoryImage):
    """An image that was decoded elsewhere, by preprocessings `without_normalisation`."""

    pixels: Mapping[Preprocessing, NDArray[Any]] = field(default_factory=dict, repr=False)


def without_normalisation(preprocessing: Preprocessing) -> Preprocessing:
    """Return what decides on the pixels: those that differ in mean and deviation alone share."""
    return replace(preprocessing, mean=(0, 0, 0), std=(1, 1, 1))


def decode_pixels(
    content: bytes,
    name: str,
    wanted: Collection[Preprocessing],
    limits: Limits,
    stopwatch: Stopwatch | None = None,
    profile: Profile | None = None,
) -> dict[Preprocessing, NDArray[Any]]:
    """Decode an image once for all encoders, as far as that is possible.

    Parameters
    ----------
    content, name
        The bytes of the file, and what to call it.
    wanted
        What the encoders need.
    limits, stopwatch
        As in `decode`.
    profile
        Measures where the time goes.

    Returns
    -------
    dict
        `(height, width, 3)` by preprocessing.

    Raises
    ------
    ImageError
        If it cannot be decoded.
    """
    profile = profile or Profile()
    images: dict[tuple[int | None, bool], Image.Image] = {}
    for enough, plain_rgb in {(p.enough, p.plain_rgb) for p in wanted}:
        with profile.stage("decoding"):
            images[enough, plain_rgb] = decode(
                content,
                limits,
                name=name,
                enough=enough,
                plain_rgb=plain_rgb,
                stopwatch=stopwatch,
            )
    with profile.stage("resizing"):
        return {p: p.pixels(images[p.enough, p.plain_rgb]) for p in wanted}


def guarded(name: str, work: Callable[[], T]) -> T | ImageError:
    """Turn whatever goes wrong with one image into that image's error."""
    try:
        return work()
    except ImageError as error:
        return error
    except TrustVLMError as error:  # a package is missing, or a URL's scheme is none
        return ImageError("unreadable", f"{name}: {error}")
    except MemoryError:
        what, remedy = "there is not enough memory to decode it", "Make the image smaller"
        return refusal("memory", name, what, remedy)
    except Exception as error:
        what = f"it failed with {type(error).__name__} ({error})"
        return refusal("unexpected", name, what, "Leave it out, and report this as a bug")
