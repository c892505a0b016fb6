"""Where the time of a run went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Stages that run in threads, while the encoders work; all others follow one another.
THREADED = ("reading", "looking up", "decoding", "resizing")
_FORWARD = "encoder "


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

    @contextmanager
    def forward(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to an encoder's forward pass."""
        with self.stage(f"{_FORWARD}{name}"):
            yield

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, adding the time until each of them is there to a stage."""
        arriving = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(arriving)
            except StopIteration:
                return
            finally:
                self.add(name, time.perf_counter() - begun)
            yield item

    def end(self) -> None:
        """Stop the clock that the making of this object started."""
        self._total = time.perf_counter() - self._begun

    def lines(self) -> list[str]:
        """Say in words and numbers where the time went, until `end` was called, or until now."""
        total = time.perf_counter() - self._begun if self._total is None else self._total
        seconds = self.seconds
        threaded = {name: seconds[name] for name in THREADED if name in seconds}
        steps = {name: spent for name, spent in seconds.items() if name not in threaded}
        steps["all else"] = total - sum(steps.values())
        forward = sum(spent for name, spent in steps.items() if name.startswith(_FORWARD))
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
