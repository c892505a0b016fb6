"""Decode images in processes of their own, which are ended when they take too long or too much.

A decoder that hangs or fills the memory cannot be stopped within a process. Where anyone may send
images, they are decoded in processes that do nothing else and that another takes the place of.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.embeddings.prefetch import decode_pixels, guarded
from trustvlm.environment import usable_cores
from trustvlm.exceptions import ImageError
from trustvlm.images import Limits
from trustvlm.images.decoding import MOST_SCANS, small_jpeg
from trustvlm.images.errors import refusal
from trustvlm.images.formats import recognise
from trustvlm.models.base import Preprocessing

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

# What can be asked of a process. It decodes what anyone may have made, so it sends back plain bytes
# and no pickles: nothing in them is ever executed.


class DecodingTask(Protocol[R_co]):
    """Work on one image: `run` in the process, and `result` of the bytes that it sends back."""

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        ...

    @property
    def name(self) -> str:
        """What to call it in errors."""
        ...

    @property
    def limits(self) -> Limits:
        """Bounds on it; the time is watched, too."""
        ...

    def run(self) -> list[bytes]:
        """Do it; ImageError if it cannot be done."""
        ...

    def result(self, parts: Sequence[bytes]) -> R_co:
        """Return what the bytes mean."""
        ...


@dataclass(frozen=True)
class PixelsTask:
    """Pixels for the encoders; see `decode_pixels`."""

    content: bytes = field(repr=False)
    name: str
    limits: Limits
    wanted: tuple[Preprocessing, ...]

    def run(self) -> list[bytes]:
        """Decode and resize."""
        pixels = decode_pixels(self.content, self.name, self.wanted, self.limits)
        return [pixels[preprocessing].tobytes() for preprocessing in self.wanted]

    def result(self, parts: Sequence[bytes]) -> dict[Preprocessing, NDArray[Any]]:
        """Return `(height, width, 3)` by preprocessing."""
        return {
            preprocessing: np.frombuffer(part, preprocessing.dtype).reshape(*preprocessing.size, 3)
            for preprocessing, part in zip(self.wanted, parts, strict=True)
        }


@dataclass(frozen=True)
class PreviewTask:
    """A small JPEG, to be looked at."""

    content: bytes = field(repr=False)
    name: str
    limits: Limits
    side: int

    def run(self) -> list[bytes]:
        """Decode, make smaller, and encode."""
        return [small_jpeg(self.content, self.side, self.limits, quality=85)]

    def result(self, parts: Sequence[bytes]) -> bytes:
        """Return the JPEG."""
        return parts[0]


# The process.

# Pixels, or scans of a JPEG, beyond which an image is put off until one of few turns is free.
_HEAVY_PIXELS = 16_000_000
_HEAVY_SCANS = 20
# Memory of a process beyond what it starts with: Pillow's own buffers, and bytes per pixel of the
# most wasteful conversion, that of 32-bit greys.
_SPARE_BYTES = 2**28
_BYTES_PER_PIXEL = 32
_DONE, _FAILED, _PUT_OFF = b"done", b"failed", b"put off"


def main() -> None:
    """Work on tasks until there are no more."""
    # The other side decides when this process ends, also when all processes are told to stop.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory = _memory_limiter()
    _send(answers, b"ready")
    while True:
        try:
            task, may_be_heavy = pickle.loads(_receive(sys.stdin.buffer)[0])  # noqa: S301
        except EOFError:
            return
        limit_memory(task.limits.max_pixels if may_be_heavy else _HEAVY_PIXELS)
        _let_system_end_it(task.limits.seconds + 5)
        if not may_be_heavy and _is_heavy(task):
            parts: list[bytes] = [_PUT_OFF]
        else:
            outcome = guarded(task.name, task.run)
            if isinstance(outcome, ImageError):
                message = str(outcome).encode("utf-8", "surrogatepass")
                parts = [_FAILED, outcome.kind.encode(), message]
            else:
                parts = [_DONE, *outcome]
        _let_system_end_it(0)
        _send(answers, *parts)


def _let_system_end_it(seconds: float) -> None:
    # Should nobody be left to end a decoder that hangs, the system does; 0 takes that back.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_heavy(task: DecodingTask[Any]) -> bool:
    image_format, formats = recognise(task.content), task.limits.formats
    # What is refused at once need not wait for a turn.
    if image_format is None or not image_format.available():
        return False
    if formats is not None and image_format.name not in formats:
        return False
    if image_format.name == "JPEG":
        n_scans = task.content.count(b"\xff\xda")
        if n_scans > _HEAVY_SCANS:
            return n_scans <= MOST_SCANS
    try:
        width, height = image_format.open(BytesIO(task.content)).size
    except Exception:  # decoding says what is wrong with it
        return False
    return _HEAVY_PIXELS < width * height <= task.limits.max_pixels


def _memory_limiter() -> Any:
    """Return a function that limits what this process takes, where the system can do that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
        begun_with = pages * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    except (ImportError, OSError, ValueError, IndexError):
        return lambda _: None

    def limit(max_pixels: int) -> None:
        most = begun_with + _SPARE_BYTES + _BYTES_PER_PIXEL * max_pixels
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

    return limit


def _send(stream: IO[bytes], *parts: bytes) -> None:
    stream.write(len(parts).to_bytes(8, "big"))
    for part in parts:
        stream.write(len(part).to_bytes(8, "big"))
        stream.write(part)
    stream.flush()


def _receive(stream: IO[bytes]) -> list[bytes]:
    def read(size: int) -> bytes:
        content = stream.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def number() -> int:
        return int.from_bytes(read(8), "big")

    return [read(number()) for _ in range(number())]


class _DiedError(Exception):
    """The process is gone; the message says how."""


class _DecoderProcess:
    """A process that runs `main`."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Threads of a library that is not needed here would take memory for nothing.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            # What a large image took goes back to the system at once; by default, glibc keeps
            # ever larger blocks for the next one.
            "MALLOC_MMAP_THRESHOLD_": str(2**20),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from trustvlm.embeddings.decoding_pool import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries print there what they think of images
            env=environment,
        )
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._receive()

    def ask(self, task: DecodingTask[Any], *, may_be_heavy: bool) -> list[bytes]:
        """Return the answer to a task."""
        try:
            _send(self._requests, pickle.dumps((task, may_be_heavy)))
        except OSError:
            self._died()
        return self._receive()

    def kill(self) -> None:
        """End it, whatever it does; waiting threads get an error."""
        self._process.kill()

    def close(self) -> None:
        """End it and let go of it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()

    def _receive(self) -> list[bytes]:
        try:
            return _receive(self._answers)
        except EOFError:
            self._died()

    def _died(self) -> NoReturn:
        code = self._process.wait()
        raise _DiedError(f"exit code {code}" if code >= 0 else signal.Signals(-code).name)


# The other end: turns of clients, and what becomes of images that take long.


class FairQueue(Generic[T]):
    """A bounded queue in which clients take turns, however much each of them puts in.

    What an item has cost can be charged to its client: those that have cost less come first
    (start-time fair queueing). Who has put in nothing for a while has no advantage from that.

    Parameters
    ----------
    capacity
        Sizes of all items together.

    Examples
    --------
    >>> line = FairQueue(3)
    >>> [line.put(client, item) for client, item in [("a", 1), ("a", 2), ("b", 3)]]
    [[], [], []]
    >>> line.put("b", 4)  # "a" has no more than "b" would have
    Traceback (most recent call last):
    queue.Full
    >>> [line.get() for _ in range(len(line))]
    [1, 3, 2]
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self._items: dict[str, deque[tuple[T, int]]] = {}
        self._sizes: dict[str, int] = {}
        # What clients have cost, of those that have cost more than the last one who had its turn.
        self._costs: dict[str, float] = {}
        self._turn_cost = 0.0

    def __len__(self) -> int:
        return sum(self._sizes.values())

    def put(self, client: str, item: T, size: int = 1) -> list[T]:
        """Add an item; return those that had to leave for it.

        Where there is no room, the client with most in the queue loses what it put in last.

        Raises
        ------
        queue.Full
            If that would be this client itself.
        """
        evicted: list[tuple[str, tuple[T, int]]] = []
        while len(self) + size > self.capacity:
            largest = max(self._sizes, key=self._sizes.__getitem__, default=client)
            if self._sizes.get(largest, 0) <= self._sizes.get(client, 0) + size:
                for other, (former, of_size) in reversed(evicted):
                    self._append(other, former, of_size)
                raise queue.Full
            evicted.append((largest, self._items[largest].pop()))
            self._shrink(largest, evicted[-1][1][1])
        self._append(client, item, size)
        return [former for _, (former, _) in evicted]

    def peek(self) -> tuple[T, int]:
        """Return the item whose turn it is, and its size; there must be one."""
        return self._items[self._next_client()][0]

    def get(self) -> T:
        """Take the item whose turn it is; there must be one."""
        client = self._next_client()
        self._turn_cost = self._costs.get(client, self._turn_cost)
        self._costs = {c: cost for c, cost in self._costs.items() if cost > self._turn_cost}
        waiting = self._items.pop(client)
        item, size = waiting.popleft()
        if waiting:
            self._items[client] = waiting
        self._shrink(client, size)
        return item

    def charge(self, client: str, cost: float) -> None:
        """Note what an item of a client has cost."""
        self._costs[client] = self._costs.get(client, self._turn_cost) + cost

    def _next_client(self) -> str:
        # The first of those that cost equally little.
        return min(self._items, key=lambda client: self._costs.get(client, self._turn_cost))

    def _append(self, client: str, item: T, size: int) -> None:
        self._items.setdefault(client, deque()).append((item, size))
        self._sizes[client] = self._sizes.get(client, 0) + size

    def _shrink(self, client: str, size: int) -> None:
        self._sizes[client] -= size
        if not self._items.get(client):
            self._items.pop(client, None)
            del self._sizes[client]


@dataclass(eq=False)
class _Job:
    """A task, and how far it is."""

    task: DecodingTask[Any]
    client: str
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    heavy: bool = False
    process: _DecoderProcess | None = None
    begun: float = 0.0
    ended: str = ""


class DecodingPool:
    """Processes that work on images, each within its limits, at nobody else's expense.

    An image that is large, or that takes longer than half a second, is *heavy*: it takes one of a
    few turns beside those of all others. Where all of these are taken and another image needs one,
    the image that has had its turn for longest, and for two seconds at least, is ended. Clients
    take turns by the time that their images have taken, of which two seconds an image count.

    Parameters
    ----------
    workers
        Images that are not heavy worked on at a time; None for one per core, at most 8.
    heavy
        Heavy images worked on at a time.
    capacity
        Images that may wait.

    Examples
    --------
    >>> from trustvlm.images import InMemoryImage
    >>> pool = DecodingPool(1)
    >>> task = PixelsTask(b"P6 8 8 255 " + bytes(192), "a.ppm", Limits(), (Preprocessing(),))
    >>> pool.submit(task).result()[Preprocessing()].shape
    (224, 224, 3)
    >>> pool.close()
    """

    LIGHT_SECONDS = 0.5
    FAIR_SECONDS = 2.0

    def __init__(
        self, workers: int | None = None, *, heavy: int = 2, capacity: float = float("inf")
    ) -> None:
        self._workers = workers or min(8, usable_cores())
        self._most_heavy = heavy
        self._light: FairQueue[_Job] = FairQueue(capacity)
        self._heavy: FairQueue[_Job] = FairQueue(float("inf"))
        self._running: set[_Job] = set()
        # The one that worked last is taken first, so that there are no more than are needed.
        self._idle: list[_DecoderProcess] = []
        self._n_threads = self._n_idle = 0
        self._closing = False
        self._changed = threading.Condition()
        self._busy = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Images that wait for their turn."""
        return len(self._light) + len(self._heavy)

    def submit(
        self, task: DecodingTask[T], client: str = "", timeout: float = float("inf")
    ) -> Future[T]:
        """Queue the work on an image; the future holds its result, or an `ImageError`.

        Clients take turns. `queue.Full` is raised, also in the future of an image that has to leave
        the queue later, where its client has most of those that wait. An image that waits longer
        than `timeout` seconds is not decoded, and its future has a `TimeoutError`.
        """
        job = _Job(task, client, time.monotonic() + timeout)
        with self._changed:
            if self._closing:
                raise queue.Full
            evicted = self._light.put(client, job)
            self._need_thread()
        for other in evicted:
            if other.future.set_running_or_notify_cancel():
                other.future.set_exception(queue.Full())
        return job.future

    def close(self) -> None:
        """End all processes; what waits is cancelled, and what runs has an error."""
        with self._changed:
            self._closing = True
            for waiting in (self._light, self._heavy):
                while len(waiting):
                    waiting.get().future.cancel()
            for job in self._running:
                self._end(job, "the program stops")
            self._changed.notify_all()
            while self._n_threads:
                self._changed.wait()
            for process in self._idle:
                process.close()
            self._idle.clear()
        self._busy.set()

    def _need_thread(self) -> None:
        """See to it that somebody takes the next turn, if there is one."""
        self._changed.notify()
        n_most = self._workers + self._most_heavy
        if self._n_idle < self.waiting and self._n_threads < n_most and not self._closing:
            self._n_threads += 1
            threading.Thread(target=self._work, name="trustvlm-decoder", daemon=True).start()
        if self._watcher is None:
            self._watcher = threading.Thread(
                target=self._watch, name="trustvlm-decoding-limits", daemon=True
            )
            self._watcher.start()

    def _n_running(self, *, heavy: bool) -> int:
        return sum(job.heavy == heavy for job in self._running)

    def _take(self) -> _Job | None:
        if len(self._light) and self._n_running(heavy=False) < self._workers:
            return self._light.get()
        if len(self._heavy) and self._n_running(heavy=True) < self._most_heavy:
            return self._heavy.get()
        return None

    def _next(self) -> _Job | None:
        """Wait for a turn; None if the thread may end."""
        with self._changed:
            while not self._closing:
                job = self._take()
                if job is None:
                    self._n_idle += 1
                    self._changed.wait()
                    self._n_idle -= 1
                elif not (job.future.running() or job.future.set_running_or_notify_cancel()):
                    continue
                elif time.monotonic() > job.deadline:
                    job.future.set_exception(TimeoutError())
                else:
                    self._running.add(job)
                    self._busy.set()
                    return job
            self._n_threads -= 1
            self._changed.notify_all()
            return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                outcome = self._run(job)
            except BaseException as error:
                outcome = error
            self._settle(job, outcome)
            # Else it would live on until the next one.
            del job, outcome

    def _run(self, job: _Job) -> Any:
        """Return the answer of a process, or an error."""
        with self._changed:
            process = self._idle.pop() if self._idle else None
        if process is not None:
            outcome = self._ask(job, process)
            # Who knows what ended it: it may have been gone before.
            if job.ended or isinstance(outcome, list):
                return outcome
        try:
            process = _DecoderProcess()
        except (_DiedError, OSError) as error:
            what, remedy = f"no process can be started to decode it ({error})", "Free some memory"
            return refusal("not_tried", job.task.name, what, remedy)
        return self._ask(job, process)

    def _ask(self, job: _Job, process: _DecoderProcess) -> Any:
        task = job.task
        with self._changed:
            job.process, job.begun = process, time.monotonic()
            if self._closing:
                self._end(job, "the program stops")
        outcome: Any
        try:
            outcome = process.ask(task, may_be_heavy=job.heavy)
        except _DiedError as death:
            what = f"it stopped the process that decoded it ({death})"
            outcome = refusal("fatal", task.name, what, "Leave it out")
        with self._changed:
            job.process = None
            whole = not job.ended and isinstance(outcome, list)
            if whole and len(self._idle) < self._workers and not self._closing:
                self._idle.append(process)
                return outcome
        process.close()
        if job.ended and not isinstance(outcome, list):
            remedy = "Leave it out, or save it anew with an image program"
            outcome = refusal("too_slow", task.name, job.ended, remedy)
        return outcome

    def _settle(self, job: _Job, outcome: Any) -> None:
        put_off = isinstance(outcome, list) and outcome[0] == _PUT_OFF
        with self._changed:
            self._running.discard(job)
            cost = min(time.monotonic() - job.begun, self.FAIR_SECONDS)
            for line in (self._light, self._heavy):
                line.charge(job.client, cost)
            if put_off and not self._closing:
                job.heavy = True
                self._heavy.put(job.client, job)
            if self.waiting:
                self._need_thread()
            if not self._running:
                self._busy.clear()
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        elif outcome[0] == _FAILED:
            kind, message = (part.decode("utf-8", "surrogatepass") for part in outcome[1:3])
            job.future.set_exception(ImageError(kind, message))
        elif not put_off:
            try:
                job.future.set_result(job.task.result(outcome[1:]))
            except ValueError as error:
                job.future.set_exception(error)
        elif self._closing:
            job.future.set_exception(queue.Full())

    def _end(self, job: _Job, why: str) -> None:
        if job.process is not None and not job.ended:
            job.ended = why
            job.process.kill()

    def _watch(self) -> None:
        while not self._closing:
            self._busy.wait()
            time.sleep(0.05)
            with self._changed:
                self._enforce_limits()

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        running = [job for job in self._running if job.process is not None and not job.ended]
        for job in running:
            if now - job.begun >= job.task.limits.seconds:
                self._end(job, f"decoding took longer than {job.task.limits.seconds:g} s")
        slow = [j for j in running if not j.heavy and now - j.begun >= self.LIGHT_SECONDS]
        in_need = len(self._heavy) + (len(slow) if len(self._light) else 0)
        heavy = [job for job in running if job.heavy]
        for job in slow[: max(0, self._most_heavy - self._n_running(heavy=True))]:
            job.heavy = True
            in_need -= 1
            self._need_thread()
        if in_need > 0 and len(heavy) >= self._most_heavy:
            longest = min(heavy, key=lambda job: job.begun)
            if now - longest.begun >= self.FAIR_SECONDS:
                what = f"decoding took longer than {self.FAIR_SECONDS:g} s while others waited"
                self._end(longest, what)
