"""What every request can reach: models, configuration, metrics, answers, and leases of images."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Request

from trustvlm.serve.feedback import FeedbackStore
from trustvlm.serve.leases import Leases
from trustvlm.serve.model_registry import ModelRegistry
from trustvlm.serve.settings import Keys, Settings
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
