"""What every request can reach: models, configuration, metrics, answers, and leases of images."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from trustvlm.serve.feedback import FeedbackStore
from trustvlm.serve.hosts import network_of
from trustvlm.serve.leases import Leases
from trustvlm.serve.model_registry import ModelRegistry
from trustvlm.serve.settings import Keys, Settings, offered_key
from trustvlm.serve.telemetry import Log, Telemetry
from trustvlm.serve.update_job import Updates


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
    updates: Updates = field(default_factory=Updates)


def client_of(request: Request) -> str:
    """Return whose turn a request takes.

    Where there are several API keys, each of them is one client, and else each address or network
    of IPv6 is, as a trusted proxy passes it on.
    """
    key = context_of(request).keys.name(offered_key(request.headers))
    return key or network_of(request.client.host if request.client else "")


def context_of(request: Request) -> Context:
    """Return the service that a request came to."""
    context: Context = request.app.state.context
    return context
