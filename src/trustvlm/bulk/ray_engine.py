"""The same job on Ray Data: here with several workers, or on a cluster."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from trustvlm.bulk.engines import Work, remaining
from trustvlm.bulk.guarded import GuardedWorker
from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.bulk.worker import Loader
from trustvlm.exceptions import InputError, TrustVLMError
from trustvlm.extras import require

__all__ = ["RayEngine"]

# Shards that Ray Data is given at once; this bounds the memory for names of files.
_WAVE = 1024


class RayEngine:
    """Ray schedules shards over actors, each with a guarded worker of its own.

    Ray Data starts and stops actors between the given numbers, holds shards back while all are
    busy, and gives those of a lost actor or machine to another. The process that asked writes
    the results, so that only it needs the output folder.

    Parameters
    ----------
    loader
        Makes the model; what it reads must be there on every node.
    retries
        See `GuardedWorker`; Ray itself retries what is lost with an actor.
    address
        Of a cluster, such as `10.0.0.1:6379`, or `auto` on one of its nodes; None starts Ray on
        this machine, unless RAY_ADDRESS names a cluster.
    actors
        The fewest and the most actors.
    cpus, gpus
        What each of them takes; may be fractions, so that several share one.

    Raises
    ------
    InputError
        If a setting makes no sense, or no cluster answers.
    MissingExtraError
        If Ray is not installed.
    """

    def __init__(
        self,
        loader: Loader,
        retries: int = 2,
        *,
        address: str | None = None,
        actors: tuple[int, int] = (1, 8),
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        least, most = actors
        if not 1 <= least <= most:
            raise InputError(f"Expected `actors` to be 1 <= fewest <= most, but got {actors}.")
        if cpus < 0 or gpus < 0:
            raise InputError(f"Expected `cpus` and `gpus` not to be negative: {cpus}, {gpus}.")
        # Before anything is written.
        require("ray.data", extra="ray", purpose="The engine ray")
        self._loader = loader
        self._retries = retries
        self._address = address
        self._actors = actors
        self._cpus = cpus
        self._gpus = gpus
        self.notes: list[str] = []

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, in any order."""
        shards = iter(work)
        with _connected(self._address):
            while wave := list(islice(shards, _WAVE)):
                yield from self._wave([each for each in wave if not _all_done(each)])

    def _wave(self, wave: list[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        pyarrow = require("pyarrow", extra="ray", purpose="The engine ray")
        data = require("ray.data", extra="ray", purpose="The engine ray")
        if not wave:
            return
        firsts = {each.first.number: each.first for each in wave}
        # A block for each shard, so that each is a task of its own.
        tables = [pyarrow.table({"work": [pickle.dumps(each)]}) for each in wave]
        least, most = self._actors
        finished = data.from_arrow(tables).map_batches(
            _Actor,
            fn_constructor_args=(self._loader, self._retries),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=min(least, len(wave)), max_size=most),
            num_cpus=self._cpus,
            num_gpus=self._gpus or None,
        )
        seen: set[tuple[int, int]] = set()
        for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
            for answer in batch["answer"]:
                content, self.notes = pickle.loads(answer.as_py())  # noqa: S301  # by our actors
                if isinstance(content, TrustVLMError):
                    raise content
                first = firsts[content.number]
                part = Part(first.number, first.shard, content.start, first.size)
                if part.key not in seen:
                    seen.add(part.key)
                    yield part, content


class _Actor:
    """Computes the shards that Ray gives it; what the worker refuses, it hands back."""

    def __init__(self, loader: Loader, retries: int) -> None:
        self._worker = GuardedWorker(loader, retries)

    def __call__(self, batch: Any) -> Iterator[Any]:
        for content in batch["work"]:
            work = pickle.loads(content.as_py())  # noqa: S301  # by the process that asked
            try:
                for _, finished in remaining(work, self._worker.compute):
                    yield self._answer(finished)
            except TrustVLMError as error:
                yield self._answer(error)

    def _answer(self, content: FinishedPart | TrustVLMError) -> Any:
        pyarrow = require("pyarrow", extra="ray", purpose="The engine ray")
        return pyarrow.table({"answer": [pickle.dumps((content, self._worker.notes))]})


def _all_done(work: Work) -> bool:
    starts = range(0, len(work.done) * work.first.size, work.first.size)
    return any(work.done.values()) and all(start in work.done for start in starts)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Use the Ray that is running, join a cluster, or start one here and stop it in the end."""
    ray = require("ray", extra="ray", purpose="The engine ray")
    data = require("ray.data", extra="ray", purpose="The engine ray")
    ours = not ray.is_initialized()
    if ours:
        settings = {} if address else {"include_dashboard": False}
        try:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **settings)
        except ConnectionError as error:
            raise InputError(
                f"Expected a Ray cluster at {address!r}, but none answers ({error})."
            ) from error
    context = data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        if ours:
            ray.shutdown()
