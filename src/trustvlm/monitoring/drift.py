"""Tell when incoming images no longer resemble those a model was calibrated on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array
from trustvlm.monitoring.martingale import Stream

ENOUGH_TO_WATCH = 15
"""Calibration values with which a complete change is detected, at one false alarm in 10,000: within
40 images in 100 of 100 simulations; with 10 values in 89, with 5 in 11."""


@dataclass(frozen=True)
class DriftMonitor:
    """Watches streams of numbers, such as the confidences of verdicts, for drift; immutable.

    Each stream's value on a new image becomes a p-value among all values before it, calibration
    included, and capital is bet against these p-values being uniform. If calibration and incoming
    images are exchangeable, the chance that an alarm is ever raised is at most `false_alarm`, for
    all streams together and however long one watches.

    Attributes
    ----------
    streams
        By name.
    false_alarm
        Bound on the chance of a false alarm, ever.
    generator
        State of the random numbers that smooth the p-values and shuffle batches.

    Notes
    -----
    Conformal test martingales: Vovk, Nouretdinov & Gammerman 2003, "Testing exchangeability
    on-line"; Ville's inequality, with the bound shared between the streams.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> monitor = DriftMonitor.start({"confidence": rng.normal(size=50)})
    >>> monitor = monitor.after({"confidence": rng.normal(size=500)})
    >>> monitor.drifted
    False
    >>> monitor.after({"confidence": rng.normal(size=100) - 2}).drifted
    True
    """

    streams: Mapping[str, Stream]
    false_alarm: float
    generator: Mapping[str, Any]

    @classmethod
    def start(
        cls,
        calibration: Mapping[str, ArrayLike],
        *,
        false_alarm: float = 1e-4,
        low_side: Collection[str] = (),
        seed: int = 0,
    ) -> DriftMonitor:
        """Start to watch.

        Parameters
        ----------
        calibration
            `(n,)` values of each stream on the calibration images; n may differ.
        false_alarm
            Bound on the chance of a false alarm, in (0, 1).
        low_side
            Streams of which only a fall raises the alarm. If their calibration values are lower
            than those of ordinary images, as those of held-out shots are, the bound still holds.
        seed
            Of the random numbers.

        Raises
        ------
        InputError
            For no stream, an empty one, NaN or infinity, or a bound outside (0, 1).
        """
        if not 0 < false_alarm < 1:
            raise InputError(f"Expected `false_alarm` to lie in (0, 1), but got {false_alarm}.")
        if not calibration:
            raise InputError("Expected `calibration` to hold at least one stream, but got none.")
        streams = {
            name: Stream.start(values, name, low_side=name in low_side)
            for name, values in calibration.items()
        }
        state = np.random.default_rng(seed).bit_generator.state
        return cls(streams, false_alarm, dict(state))

    def after(self, values: Mapping[str, ArrayLike]) -> DriftMonitor:
        """Return the monitor after a batch of images.

        The batch is shuffled first: images that come sorted, by class or by name, are no drift.

        Parameters
        ----------
        values
            `(k,)` values of every stream on k images, in the same order.

        Raises
        ------
        InputError
            If a stream is missing or unknown, or the arrays differ in length, or hold NaN.
        """
        if set(values) != set(self.streams):
            raise InputError(
                f"Expected values of {', '.join(self.streams)}, but got {', '.join(values)}."
            )
        arrays = {name: confidence_array(values[name], name) for name in self.streams}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"Expected one value per image of every stream, but got {lengths}.")
        rng = np.random.Generator(np.random.PCG64())
        rng.bit_generator.state = dict(self.generator)
        order = rng.permutation(next(iter(lengths.values())))
        streams = {
            name: stream.after(arrays[name][order], rng, alarm_at=self.alarm_at)
            for name, stream in self.streams.items()
        }
        return replace(self, streams=streams, generator=dict(rng.bit_generator.state))

    @property
    def n(self) -> int:
        """Number of incoming images so far."""
        return len(next(iter(self.streams.values())).arrived)

    @property
    def drifted(self) -> bool:
        """Whether an alarm was raised, now or before."""
        return any(stream.drifted_after is not None for stream in self.streams.values())

    @property
    def alarm_at(self) -> float:
        """Capital at which a stream raises the alarm."""
        return len(self.streams) / self.false_alarm

    def to_dict(self) -> dict[str, Any]:
        """Return the whole state as plain JSON values."""
        return {
            "false_alarm": self.false_alarm,
            "generator": self.generator,
            "streams": {name: stream.to_dict() for name, stream in self.streams.items()},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DriftMonitor:
        """Take up what `to_dict` returned.

        Raises
        ------
        InputError
            If the state is not complete.
        """
        try:
            streams = {name: Stream.from_dict(stored) for name, stored in state["streams"].items()}
            return cls(streams, float(state["false_alarm"]), dict(state["generator"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"The state of the drift monitor is not complete: it lacks or misstates {error}. "
                "Start a new one."
            ) from error
