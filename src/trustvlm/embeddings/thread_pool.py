"""Daemon threads that prepare images; one that hangs is given up and replaced."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from trustvlm.images.limits import Stopwatch

__all__ = ["MOST_HANGING", "GivenUpError", "Task", "ThreadPool", "n_hanging"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

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


class Work(Protocol[T_co]):
    """What a thread is to do."""

    def run(self, stopwatch: Stopwatch) -> T_co:
        """Do it; the stopwatch runs while the time limit applies."""
        ...

    def given_up(self) -> T_co:
        """Return what stands in place of the result if it takes too long."""
        ...

    def not_tried(self) -> T_co:
        """Return what stands in place of the result if no thread is left."""
        ...


class Task(Generic[T]):
    """Work, its future, and how long it has been worked on."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.stopwatch = Stopwatch()
        self.future: Future[T] = Future()


class ThreadPool(Generic[T]):
    """Threads that work through tasks in order and do not keep the interpreter from ending.

    `concurrent.futures` would wait for its threads when the interpreter ends, and has no
    replacement for one that hangs. Whoever waits for a result watches the time, so that tasks which
    end cost nothing more.

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
        self._tasks: queue.SimpleQueue[Task[T] | None] = queue.SimpleQueue()
        self._threads: dict[threading.Thread, Task[T] | None] = {}
        self._n_started = 0
        atexit.register(self.close)

    def submit(self, work: Work[T]) -> Task[T]:
        """Queue some work."""
        if len(self._threads) < self._workers:
            self._start()
        task = Task(work)
        self._tasks.put(task)
        return task

    def results(self, tasks: Sequence[Task[T]]) -> list[T]:
        """Wait for tasks, which must be those submitted first of all that were not waited for."""
        if self._threads and tasks:
            # Mostly the last one ends last: to wake up once is cheaper than for each of them.
            with suppress(TimeoutError):
                tasks[-1].future.exception(self._seconds)
        return [self._result(task) for task in tasks]

    def _result(self, task: Task[T]) -> T:
        while not task.future.done():
            left = self._seconds - task.stopwatch.seconds
            if left <= 0:
                self._give_up(task)
            elif not self._threads:
                return task.work.not_tried()
            else:
                with suppress(TimeoutError):
                    task.future.exception(left + 0.001)
        return task.future.result()

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
        if n_hanging() >= MOST_HANGING:
            return
        name = f"{_THREADS}_{self._n_started}"
        self._n_started += 1
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads[thread] = None
        thread.start()

    def _give_up(self, task: Task[T]) -> None:
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
                # Another thread stands in this one's place.
                _count(-1)
                return
            self._threads[thread] = None
            # Else the pixels would live on until the next task.
            del task


def _settle(task: Task[T]) -> bool:
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
