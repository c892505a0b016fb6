"""Watch whether what comes in still resembles what the model was calibrated on."""

from __future__ import annotations

import math
from dataclasses import replace

from trustvlm.exceptions import InputError
from trustvlm.pipeline import TrustVLM
from trustvlm.pipeline.monitoring import start_monitor
from trustvlm.pipeline.watched_numbers import watched_score

__all__ = ["DriftWatch"]

_FALSE_ALARM = 1e-4
_TOGETHER = 25
_MOST = 5000


class DriftWatch:
    """The monitor of `trustvlm monitor`, fed by the service, in bounded memory.

    It looks at images in groups and begins anew after some thousand, each time with the same bound
    on false alarms; an alarm stays. Of images that come again, one counts.

    Parameters
    ----------
    model
        A fitted model.
    """

    def __init__(self, model: TrustVLM) -> None:
        self.drifted = False
        self._stream = watched_score(model)[0]
        try:
            monitor, self.compared_with = start_monitor(model, None, _FALSE_ALARM)
        except InputError as error:
            monitor, self.compared_with = None, str(error)
        if monitor is not None and self._stream != "confidence":
            # The text's own confidence is not at hand here.
            rest = {k: v for k, v in monitor.streams.items() if k != self._stream}
            monitor = replace(monitor, streams=rest) if rest else None
        self._start = self._monitor = monitor
        self._waiting: dict[str, tuple[float, float]] = {}
        self._seen: set[str] = set()

    @property
    def evidence(self) -> dict[str, float]:
        """Base-10 logarithm of the capital won by betting on a change; 0 before the first bet."""
        if self._monitor is None:
            return {}
        streams = self._monitor.streams.items()
        return {name: stream.bettor.peak / math.log(10) for name, stream in streams}

    def see(self, digest: str, confidence: float, typicality: float) -> None:
        """Note one image."""
        if self._monitor is None or digest in self._seen or math.isnan(typicality):
            return
        self._seen.add(digest)
        self._waiting[digest] = (confidence, typicality)
        if len(self._waiting) < _TOGETHER:
            return
        columns = zip(*self._waiting.values(), strict=True)
        values = dict(zip(("confidence", "typicality"), map(list, columns), strict=True))
        self._waiting.clear()
        self._monitor = self._monitor.after({k: values[k] for k in self._monitor.streams})
        self.drifted = self.drifted or self._monitor.drifted
        if self._monitor.n >= _MOST:
            self._monitor = self._start
            self._seen.clear()
