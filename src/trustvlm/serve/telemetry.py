"""What the service counts, times and logs."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO, TypeGuard

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trustvlm.exceptions import TrustVLMWarning
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
        # As ASCII, since a name may hold what a terminal or a reader of lines takes for a command.
        line = json.dumps({"time": moment, "event": event, **facts}, default=str)
        stream = self._stream or sys.stderr
        # A log on a full disk costs the line and not the answer.
        with suppress(OSError):
            stream.write(f"{line}\n")
            stream.flush()


class _JsonHandler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level, logger = record.levelname.lower(), record.name
        facts = {"level": level, "logger": logger, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            facts["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        self._log.event("log", **facts)


@contextmanager
def logged_as_json(log: Log) -> Iterator[None]:
    """Write what anyone else would write to standard error to a log, one line each.

    That is what libraries log, the server among them, warnings, and exceptions that no
    thread caught. What a library logs has no handler of its own as long as this lasts.
    """
    handler, root, logger = _JsonHandler(log), logging.getLogger(), logging.getLogger("trustvlm")
    loggers = [root, *(one for one in root.manager.loggerDict.values() if _has_handlers(one))]
    before = [(one, one.handlers, one.propagate) for one in loggers]
    level, hooks = root.level, (threading.excepthook, sys.unraisablehook)

    def uncaught(args: Any) -> None:
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        logger.critical("An exception was not caught.", exc_info=error)

    def warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, TrustVLMWarning):
            log.event("log", level="warning", logger="trustvlm", message=str(message))

    for one in loggers:
        one.handlers, one.propagate = [], True
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    threading.excepthook = sys.unraisablehook = uncaught
    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn
            yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        root.setLevel(level)
        for one, handlers, propagate in before:
            one.handlers, one.propagate = handlers, propagate


def _has_handlers(logger: object) -> TypeGuard[logging.Logger]:
    return isinstance(logger, logging.Logger) and bool(logger.handlers)


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
