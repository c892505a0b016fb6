"""Images of many clients computed together, by one thread, from a bounded queue."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from trustvlm.embeddings.decoding_pool import FairQueue
from trustvlm.serve.responses import ServiceError, out_of_time, overloaded

T = TypeVar("T")
R = TypeVar("R")


@dataclass(eq=False)
class _Job(Generic[T, R]):
    """The images of one request, and where their results go."""

    items: Sequence[T]
    deadline: float
    client: str
    future: Future[list[R]] = field(default_factory=Future)


def queue_full(waiting: int, capacity: float, rate: float = 20.0) -> ServiceError:
    """Return the refusal of images for which there is no room; `rate` is in images per second."""
    return overloaded(
        "queue_full",
        f"{waiting} images wait already, and at most {capacity:g} may. Send the request again "
        "later.",
        seconds=waiting / rate,
    )


class Batcher(Generic[T, R]):
    """Collects the items of several requests and hands them to one function, in one thread.

    A batch begins with the request whose turn it is: clients take turns by the items that they have
    had, and so do the requests of one client in the order in which they came. Others join until
    there are `size` items, or `seconds` have passed since the thread became free for the first; a
    request is never split. While a batch is computed the next one gathers by itself. Where a batch
    fails, its requests are computed one by one, so that only the one that makes it fail has an
    error.

    Parameters
    ----------
    compute
        From the requests' items to the requests' results, in order.
    size
        Items at which a batch is full.
    seconds
        How long a batch waits for more.
    capacity
        Items that may wait.

    Examples
    --------
    >>> doubled = Batcher(lambda jobs: [[2 * i for i in items] for items in jobs],
    ...                   size=4, seconds=0, capacity=8)
    >>> doubled.submit([1, 2], timeout=5).result()
    [2, 4]
    >>> doubled.close()
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Sequence[T]]], Sequence[list[R]]],
        *,
        size: int,
        seconds: float,
        capacity: int,
    ) -> None:
        self._compute = compute
        self._size = size
        self._seconds = seconds
        self._jobs: FairQueue[_Job[T, R]] = FairQueue(capacity)
        self._rate = 20.0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="trustvlm-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that wait for their batch."""
        return len(self._jobs)

    def submit(self, items: Sequence[T], *, timeout: float, client: str = "") -> Future[list[R]]:
        """Queue the items of one request; the future holds one result per item.

        A request whose future is cancelled, or that waits longer than `timeout`, is not computed.
        Where the queue is full, the client with most in it loses its last request.

        Raises
        ------
        ServiceError
            If the queue is full (429), or the service stops (503).
        """
        job: _Job[T, R] = _Job(items, time.monotonic() + timeout, client)
        with self._changed:
            if self._closing:
                raise overloaded("stopping", "The service is stopping.", status=503, seconds=5)
            full = queue_full(self.waiting, self._jobs.capacity, self._rate)
            try:
                evicted = self._jobs.put(client, job, len(items))
            except queue.Full:
                raise full from None
            self._changed.notify_all()
        for other in evicted:
            if other.future.set_running_or_notify_cancel():
                other.future.set_exception(full)
        return job.future

    def close(self) -> None:
        """Finish what was accepted, accept nothing more, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._finish([job for job in batch if job.future.set_running_or_notify_cancel()])
            del batch  # else its images would live on until the next one

    def _next_batch(self) -> list[_Job[T, R]]:
        with self._changed:
            while not len(self._jobs):
                if self._closing:
                    return []
                self._changed.wait()
            until = time.monotonic() + self._seconds
            while self.waiting < self._size and not self._closing:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[_Job[T, R]] = []
            total = 0
            while len(self._jobs) and (not batch or total + self._jobs.peek()[1] <= self._size):
                job = self._jobs.get()
                self._jobs.charge(job.client, len(job.items))
                batch.append(job)
                total += len(job.items)
            return batch

    def _finish(self, jobs: list[_Job[T, R]]) -> None:
        begin = time.monotonic()
        for job in jobs:
            if begin > job.deadline:
                job.future.set_exception(out_of_time())
        jobs = [job for job in jobs if not job.future.done()]
        if not jobs:
            return
        try:
            results = self._compute([job.items for job in jobs])
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._finish([job])
            return
        total = sum(len(job.items) for job in jobs)
        # A running mean, good enough to say when to come back.
        self._rate = 0.8 * self._rate + 0.2 * total / max(time.monotonic() - begin, 1e-3)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
