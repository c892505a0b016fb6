"""What every request can reach: models, configuration, metrics, answers, and leases of images."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Request

from trustvlm.serve.feedback import FeedbackStore
from trustvlm.serve.model_registry import ModelRegistry
from trustvlm.serve.settings import Keys, Settings
from trustvlm.serve.telemetry import Log, Telemetry


class Leases:
    """Images that were handed to a reviewer a moment ago; in memory, and they end by themselves.

    A lease only changes the order in which others see images. It locks nothing: every answer
    counts.

    Parameters
    ----------
    seconds
        After which an image is anyone's again.
    clock
        Seconds that never go back.

    Examples
    --------
    >>> leases = Leases()
    >>> leases.share("pets", "ann", ["a", "b", "c"], 2)
    ['a', 'b']
    >>> leases.share("pets", "bob", ["a", "b", "c"], 2)
    ['c', 'a']
    """

    def __init__(self, seconds: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        # By model and image: whose it is, and until when.
        self._held: dict[tuple[str, str], tuple[str, float]] = {}

    def __len__(self) -> int:
        self._end_old()
        return len(self._held)

    def share(self, model: str, reviewer: str, images: Sequence[str], limit: int) -> list[str]:
        """Return the first images for a reviewer, those that others look at last.

        Parameters
        ----------
        model
            Whose queue it is.
        reviewer
            Any text of the reviewer's own.
        images
            Those that wait, in the order of the queue.
        limit
            How many to hand out. Those that nobody else holds become the reviewer's.
        """
        self._end_old()
        until = self._clock() + self.seconds
        free: list[str] = []
        others: list[str] = []
        for image in images:
            holder, _ = self._held.get((model, image), (reviewer, until))
            (free if holder == reviewer else others).append(image)
        for image in free[:limit]:
            self._held[model, image] = (reviewer, until)
        return (free + others)[:limit]

    def _end_old(self) -> None:
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if held[1] > now}


@dataclass(frozen=True)
class Context:
    """The parts of one service."""

    settings: Settings
    models: ModelRegistry
    telemetry: Telemetry
    log: Log
    keys: Keys
    feedback: FeedbackStore
    leases: Leases = field(default_factory=Leases)


def client_of(request: Request) -> str:
    """Return whose turn a request takes: one address, or one network of IPv6, is one client."""
    host = request.client.host if request.client else ""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def context_of(request: Request) -> Context:
    """Return the service that a request came to."""
    context: Context = request.app.state.context
    return context
