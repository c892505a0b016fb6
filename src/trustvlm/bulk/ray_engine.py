"""The same job on Ray Data: here with several workers, or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from trustvlm.bulk.job import Work, remaining
from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.bulk.worker import SILENCE, GuardedWorker, Loader
from trustvlm.environment import require
from trustvlm.exceptions import InputError, TrustVLMError
from trustvlm.images import ImageSource

# Shards that Ray Data is given at once; this bounds the memory for names of files.
_WAVE = 1024


@dataclass(eq=False)
class RayEngine:
    """Ray schedules shards over actors, each with a guarded worker of its own.

    Ray Data starts and stops actors between the given numbers, holds shards back while all are
    busy, and gives those of a lost actor or machine to another. The process that asked writes
    the results, so that only it needs the output folder.

    Parameters
    ----------
    loader
        Makes the model; what it reads must be there on every node.
    retries, silence
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

    loader: Loader
    retries: int = 2
    _: KW_ONLY
    address: str | None = None
    actors: tuple[int, int] = (1, 8)
    cpus: float = 1.0
    gpus: float = 0.0
    silence: float = SILENCE
    notes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        least, most = self.actors
        if not 1 <= least <= most:
            raise InputError(f"Expected `actors` to be 1 <= fewest <= most, but got {self.actors}.")
        if self.cpus < 0 or self.gpus < 0:
            raise InputError(
                f"Expected `cpus` and `gpus` not to be negative: {self.cpus}, {self.gpus}."
            )
        # Before anything is written.
        require("ray.data", extra="ray", purpose="The engine ray")

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, in any order."""
        shards = iter(work)
        with _connected(self.address):
            left = (each for each in shards if not _all_done(each))
            while wave := _Wave(islice(left, _WAVE)):
                yield from self._results(wave)

    def _results(self, wave: _Wave) -> Iterator[tuple[Part, FinishedPart]]:
        data = require("ray.data", extra="ray", purpose="The engine ray")
        least, most = self.actors
        finished = data.from_arrow_refs(wave.blocks).map_batches(
            _Actor,
            fn_constructor_args=(self.loader, self.retries, self.silence, str(Path.cwd())),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=min(least, len(wave)), max_size=most),
            num_cpus=self.cpus,
            num_gpus=self.gpus or None,
        )
        seen: set[tuple[int, int]] = set()
        for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
            for response in batch["response"]:  # pickled by our actors
                content, self.notes = pickle.loads(response.as_py())  # noqa: S301
                if isinstance(content, TrustVLMError):
                    raise content
                part = replace(wave.firsts[content.number], start=content.start)
                if part.key not in seen:
                    seen.add(part.key)
                    yield part, content


class _Wave:
    """Some shards, in Ray's own store, and of each what the journal asks for."""

    def __init__(self, shards: Iterable[Work]) -> None:
        pyarrow = require("pyarrow", extra="ray", purpose="The engine ray")
        ray = require("ray", extra="ray", purpose="The engine ray")
        self.blocks: list[Any] = []
        self.firsts: dict[int, Part] = {}
        for work in shards:
            first = work.first
            # A block for each shard, so that each is a task of its own.
            self.blocks.append(ray.put(pyarrow.table({"work": [pickle.dumps(work)]})))
            shard = _RemoteShard(first.shard.name, first.shard.stamp(), first.shard.length)
            self.firsts[first.number] = replace(first, shard=shard)

    def __len__(self) -> int:
        return len(self.blocks)


@dataclass(frozen=True)
class _RemoteShard:
    """What the journal asks of a shard whose images, or their names, are held elsewhere."""

    name: str
    fixed_stamp: str
    length: int | None

    def stamp(self) -> str:
        return self.fixed_stamp

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        raise NotImplementedError(start)


class _Actor:
    """Computes the shards that Ray gives it; what the worker refuses, it hands back."""

    def __init__(self, loader: Loader, retries: int, silence: float, folder: str) -> None:
        # Where relative paths are meant to begin, on machines that share the disk.
        if Path(folder).is_dir():
            os.chdir(folder)
        self._worker = GuardedWorker(loader, retries, silence)

    def __call__(self, batch: Any) -> Iterator[Any]:
        for content in batch["work"]:
            work = pickle.loads(content.as_py())  # noqa: S301  # by the process that asked
            try:
                for _, finished in remaining(work, self._worker.compute):
                    yield self._respond(finished)
            except TrustVLMError as error:
                yield self._respond(error)

    def _respond(self, content: FinishedPart | TrustVLMError) -> Any:
        pyarrow = require("pyarrow", extra="ray", purpose="The engine ray")
        return pyarrow.table({"response": [pickle.dumps((content, self._worker.notes))]})


def _all_done(work: Work) -> bool:
    starts = range(0, len(work.done) * work.first.size, work.first.size)
    return any(work.done.values()) and all(start in work.done for start in starts)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Use the Ray that is running, join a cluster, or start one here and stop it in the end."""
    ray = require("ray", extra="ray", purpose="The engine ray")
    data = require("ray.data", extra="ray", purpose="The engine ray")
    started_here = not ray.is_initialized()
    if started_here:
        settings = {} if address else {"include_dashboard": False}
        # Without an address, Ray would join whatever cluster this machine was last a node of.
        joined = address or (None if os.environ.get("RAY_ADDRESS") else "local")
        try:
            ray.init(joined, logging_level=logging.ERROR, log_to_driver=False, **settings)
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
        if started_here:
            ray.shutdown()
