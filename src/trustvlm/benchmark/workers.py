"""Cells side by side: one process a core, one thread each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError

__all__ = ["Workers", "one_thread"]

# Seconds that processes take to start and to import; less work than this is done here.
_START = 3.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep linear algebra to one thread.

    Cells are many and their matrices small: threads that wait for each other cost more than they
    gain, and numbers would depend on the count of cores.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@dataclass
class Workers:
    """Who computes the cells of a study.

    Attributes
    ----------
    jobs
        Processes at most; 1 computes here. Results do not depend on it.
    plugins
        Files that register scores, to be executed in every process. Scores that the running program
        registered itself are known only here: use them with `jobs=1`.

    Examples
    --------
    >>> list(Workers().map(pow, [(2, 3), (3, 2)]))
    [8, 9]
    """

    jobs: int = 1
    plugins: tuple[Path, ...] = ()
    _started: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the number."""
        if self.jobs < 1:
            raise InputError(f"Expected at least one job, but got {self.jobs}.")

    def map(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield what a function returns for each task, in their order.

        Processes are started once what is left, at the pace so far, would take longer than they
        take to start; from then on they do all tasks. Warnings of other processes are raised here.
        """
        done = 0
        begun = time.perf_counter()
        while done < len(tasks):
            left = len(tasks) - done
            pace = (time.perf_counter() - begun) / max(done, 1)
            if done and self.jobs > 1 and left > 1 and pace * left > _START:
                self._started = True
            if self._started:
                yield from self._elsewhere(function, tasks[done:])
                return
            with one_thread():
                result = function(*tasks[done])
            done += 1
            yield result

    def _elsewhere(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        from joblib import Parallel, delayed, parallel_config

        with parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=1):
            found = Parallel(return_as="generator")(
                delayed(_in_worker)(self.plugins, function, task) for task in tasks
            )
            for result, caught in found:
                for message, category in caught:
                    warnings.warn(message, category, stacklevel=3)
                yield result


def _in_worker(
    plugins: tuple[Path, ...], function: Callable[..., Any], task: tuple[Any, ...]
) -> tuple[Any, list[tuple[str, type[Warning]]]]:
    _scores_from(plugins)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*task)
    return result, [(str(warning.message), warning.category) for warning in caught]


@lru_cache
def _scores_from(plugins: tuple[Path, ...]) -> None:
    from trustvlm.scores.plugins import load_installed, load_plugin

    load_installed()
    for plugin in plugins:
        load_plugin(plugin)
