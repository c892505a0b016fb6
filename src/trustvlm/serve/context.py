"""What every request can reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from trustvlm.serve.feedback import FeedbackStore
from trustvlm.serve.keys import Keys
from trustvlm.serve.leases import Leases
from trustvlm.serve.logs import Log
from trustvlm.serve.settings import Settings
from trustvlm.serve.shelf import Shelf
from trustvlm.serve.telemetry import Telemetry

__all__ = ["Context", "context_of"]


@dataclass(frozen=True)
class Context:
    """The parts of one service."""

    settings: Settings
    shelf: Shelf
    telemetry: Telemetry
    log: Log
    keys: Keys
    feedback: FeedbackStore
    leases: Leases = field(default_factory=Leases)


def context_of(request: Request) -> Context:
    """Return the service that a request came to."""
    context: Context = request.app.state.context
    return context
