"""The same job on Ray Data: here with several workers, or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from trustvlm._version import __version__
from trustvlm.bulk.job import Work, remaining
from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.bulk.worker import SILENCE, GuardedWorker, Loader
from trustvlm.environment import require
from trustvlm.exceptions import BulkError, InputError, TrustVLMError, TrustVLMWarning
from trustvlm.images import ImageSource
from trustvlm.images.errors import describe_exception

# Shards that Ray Data is given at once; this bounds the memory for names of files.
_WAVE = 1024


@dataclass(eq=False)
class RayEngine:
    """Ray schedules shards over actors, each with a guarded worker of its own.

    Ray Data starts and stops actors between the given numbers, holds shards back while all are
    busy, and gives those of a lost actor or machine to another. The process that asked writes
    the results, so that only it needs the output folder. A node without trustvlm, with another
    version of it, or that cannot load the model, as for lack of the same weights, is left out with
    a warning that names it.

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
        left = (each for each in work if not _all_done(each))
        with _connected(self.address):
            nodes = _Nodes(self.cpus, self.gpus)
            while todo := list(islice(left, _WAVE)):
                while todo:
                    handed_back: set[int] = set()
                    yield from self._results(_Wave(todo), nodes, handed_back)
                    todo = [each for each in todo if each.first.number in handed_back]

    def _results(
        self, wave: _Wave, nodes: _Nodes, handed_back: set[int]
    ) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield the parts of a wave; note the shards that nodes could not compute."""
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
            **nodes.settings(),
        )
        seen: set[tuple[int, int]] = set()
        for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
            for response in batch["response"]:  # pickled by our actors
                content, self.notes = pickle.loads(response.as_py())  # noqa: S301
                if isinstance(content, TrustVLMError):
                    raise content
                if isinstance(content, _Unfit):
                    nodes.leave_out(content.node, content.error)
                    handed_back.add(content.number)
                    continue
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


@dataclass(frozen=True)
class _Unfit:
    """The answer of a node that cannot load the model: which shard it hands back, and why."""

    number: int
    node: str
    error: TrustVLMError


class _Nodes:
    """The nodes of the cluster, without those that cannot compute.

    Those without trustvlm, or with another version, are left out before anything is sent to them;
    those that cannot load the model, for lack of weights or with others, once they say so.
    """

    def __init__(self, cpus: float, gpus: float) -> None:
        self._needed = {"CPU": cpus, "GPU": gpus}
        self._left_out: set[str] = set()
        nodes = self._able()
        # A cluster of one node is this machine, or is said to be what it is by the first shard.
        if len(nodes) > 1:
            for node, fault in _faults(nodes).items():
                self.leave_out(node, BulkError(fault))

    def _able(self) -> dict[str, str]:
        """Return the addresses of the nodes that may compute, by their identifiers."""
        ray = require("ray", extra="ray", purpose="The engine ray")
        return {
            node["NodeID"]: node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"]
            and node["NodeID"] not in self._left_out
            and all(node["Resources"].get(name, 0) >= n for name, n in self._needed.items())
        }

    def leave_out(self, node: str, error: TrustVLMError) -> None:
        """Send nothing more to a node; raise its error if it was the last one."""
        if node in self._left_out:
            return
        address = self._able().get(node, node)
        self._left_out.add(node)
        if not self._able():
            raise error
        warnings.warn(f"the Ray node {address} is left out: {error}", TrustVLMWarning, stacklevel=2)

    def settings(self) -> dict[str, Any]:
        """Return what keeps actors off the nodes that are left out."""
        if not self._left_out:
            return {}
        return {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(self._left_out))})"}}


# Seconds for the nodes to say which version they have; one that does not answer is not judged.
_PATIENCE = 60.0


def _faults(nodes: Mapping[str, str]) -> dict[str, str]:
    """Return, by node, why it cannot run what this process sends: the package, or its version."""
    ray = require("ray", extra="ray", purpose="The engine ray")
    strategies = require("ray.util.scheduling_strategies", extra="ray", purpose="The engine ray")

    # Inside, so that it travels by value: the nodes may not have this module.
    def version() -> str:
        try:
            from trustvlm._version import __version__ as installed
        except ImportError:
            return ""
        return installed

    task = ray.remote(num_cpus=0, max_retries=0)(version)
    asked = {}
    for node in nodes:
        here = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        asked[task.options(scheduling_strategy=here).remote()] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE)
    faults = {}
    for answer in answered:
        try:
            installed = ray.get(answer)
        except ray.exceptions.RayError as error:
            faults[asked[answer]] = f"it fails ({describe_exception(error)})"
            continue
        if installed != __version__:
            has = f"it has trustvlm {installed}" if installed else "trustvlm is not installed there"
            faults[asked[answer]] = f"{has}. Install trustvlm {__version__} on every node."
    return faults


class _Actor:
    """Computes the shards that Ray gives it; what the worker refuses, it hands back."""

    def __init__(self, loader: Loader, retries: int, silence: float, folder: str) -> None:
        # Where relative paths are meant to begin, on machines that share the disk.
        if Path(folder).is_dir():
            os.chdir(folder)
        self._worker = GuardedWorker(loader, retries, silence)
        self._unfit: TrustVLMError | None = None
        try:
            self._worker.load()
        except TrustVLMError as error:
            self._unfit = error

    def __call__(self, batch: Any) -> Iterator[Any]:
        for content in batch["work"]:
            work = pickle.loads(content.as_py())  # noqa: S301  # by the process that asked
            if self._unfit is not None:
                ray = require("ray", extra="ray", purpose="The engine ray")
                node = ray.get_runtime_context().get_node_id()
                yield self._respond(_Unfit(work.first.number, node, self._unfit))
                continue
            try:
                for _, finished in remaining(work, self._worker.compute):
                    yield self._respond(finished)
            except TrustVLMError as error:
                yield self._respond(error)

    def _respond(self, content: FinishedPart | TrustVLMError | _Unfit) -> Any:
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
        # What its parts in C++ say would come between the lines of the program.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
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
