"""Who computes the parts of a job; this machine, unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trustvlm.bulk.guarded import SILENCE, GuardedWorker
from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.bulk.worker import Loader

__all__ = ["Engine", "LocalEngine", "Work", "remaining"]


@dataclass(frozen=True)
class Work:
    """One shard, and which of its parts are done.

    Parameters
    ----------
    first
        Its first part.
    done
        By the start of each part that is done, whether the shard ends with it.
    """

    first: Part
    done: Mapping[int, bool] = field(default_factory=dict)


class Engine(Protocol):
    """Computes what is still to do, in any order.

    Attributes
    ----------
    notes
        Warnings to show wherever the models are named; filled while it runs.
    """

    notes: list[str]

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, once."""
        ...


class LocalEngine:
    """One worker process, with all cores of this machine and its GPU.

    Parameters
    ----------
    loader
        Makes the model in the worker.
    retries, silence
        See `GuardedWorker`.
    """

    def __init__(self, loader: Loader, retries: int = 2, *, silence: float = SILENCE) -> None:
        self._loader = loader
        self._retries = retries
        self._silence = silence
        self.notes: list[str] = []

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Part, FinishedPart]]:
        """Yield each part that was still to do, in input order."""
        with GuardedWorker(self._loader, self._retries, self._silence) as worker:
            for shard in work:
                for part, finished in remaining(shard, worker.compute):
                    self.notes = worker.notes
                    yield part, finished


def remaining(
    work: Work, compute: Callable[[Part], FinishedPart]
) -> Iterator[tuple[Part, FinishedPart]]:
    """Compute the parts of a shard that are not done, one after the other."""
    part = work.first
    while True:
        last = work.done.get(part.start)
        if last is None:
            finished = compute(part)
            yield part, finished
            last = finished.last
        if last:
            return
        part = part.next()
