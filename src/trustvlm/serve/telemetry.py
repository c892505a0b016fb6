"""What the service counts, times and logs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trustvlm.serve.served_model import UploadResult


class Log:
    """Writes events as JSON lines, without anything of an image.

    Parameters
    ----------
    stream
        Where to; standard error by default.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> Log(stream).event("started", port=8000)
    >>> json.loads(stream.getvalue())["event"]
    'started'
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def event(self, event: str, **facts: Any) -> None:
        """Write one event."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **facts}, ensure_ascii=False)
        stream = self._stream or sys.stderr
        stream.write(f"{line}\n")
        stream.flush()


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_CONFIDENCES = tuple(round(0.1 * i, 1) for i in range(21))


class Telemetry:
    """Counters, histograms and gauges of one service, in a registry of its own.

    Attributes
    ----------
    registry
        Holds all of them.
    batches
        Histogram of the images in a batch.
    waiting
        Gauge of the images that wait for the model.

    Examples
    --------
    >>> telemetry = Telemetry()
    >>> telemetry.request("POST", "/v1/predict", 200, 0.02)
    >>> b'trustvlm_requests_total{method="POST"' in telemetry.exposition()
    True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter("trustvlm_requests", "Requests.", ["method", "route", "status"])
        self._latency = histogram(
            "trustvlm_request_seconds",
            "Time from the first byte to the answer.",
            ["route"],
            buckets=_SECONDS,
        )
        self.batches = histogram("trustvlm_batch_images", "Images in a batch.", buckets=_SIZES)
        self._decisions = counter(
            "trustvlm_decisions", "Verdicts by decision.", ["model", "decision"]
        )
        self._accepted = gauge(
            "trustvlm_accept_share", "Share of usable images that were accepted.", ["model"]
        )
        self._confidence = histogram(
            "trustvlm_confidence", "Confidence of the verdicts.", ["model"], buckets=_CONFIDENCES
        )
        self._errors = counter("trustvlm_errors", "Failed requests and images, by kind.", ["kind"])
        self.waiting = gauge("trustvlm_waiting_images", "Images that wait for the model.")
        self._drifted = gauge(
            "trustvlm_drifted",
            "1 once incoming images no longer resemble the calibration; it stays.",
            ["model"],
        )
        self._drift = gauge(
            "trustvlm_drift_evidence",
            "Base-10 logarithm of the odds against there being no drift.",
            ["model", "stream"],
        )
        self._counts: dict[str, dict[str, int]] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def failed(self, kind: str) -> None:
        """Count one failure."""
        self._errors.labels(kind).inc()

    def results(self, model: str, results: Sequence[UploadResult]) -> None:
        """Count verdicts."""
        counts = self._counts.setdefault(model, {"accept": 0, "review": 0, "error": 0})
        for result in results:
            decision = result.verdict.decision
            counts[decision] += 1
            self._decisions.labels(model, decision).inc()
            if result.kind:
                self.failed(result.kind)
            else:
                self._confidence.labels(model).observe(result.verdict.confidence)
        usable = counts["accept"] + counts["review"]
        if usable:
            self._accepted.labels(model).set(counts["accept"] / usable)

    def drift(self, model: str, drifted: bool, evidence: Mapping[str, float]) -> None:
        """Note what the drift monitor of a model says."""
        self._drifted.labels(model).set(drifted)
        for stream, value in evidence.items():
            self._drift.labels(model, stream).set(value)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
