"""One number per image, watched for a change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.decisions.betting import BOTH_SIDES, LOW_SIDE, Bettor
from trustvlm.decisions.conformal import online_p_values
from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array

__all__ = ["Stream"]


@dataclass(frozen=True)
class Stream:
    """Values of one kind, on calibration images and on incoming ones; immutable.

    Attributes
    ----------
    calibration
        Values on the calibration images, ascending.
    arrived
        Values on the incoming images so far, ascending.
    bettor
        Who bets on a change.
    drifted_after
        Number of incoming images at which the alarm was raised; None if it was not.

    Examples
    --------
    >>> stream = Stream.start([0.5, 0.6, 0.7], "confidence")
    >>> stream = stream.after([0.2, 0.1], np.random.default_rng(0), alarm_at=1e4)
    >>> stream.usual, stream.lately.__round__(3), stream.drifted_after
    (0.6, 0.15, None)
    """

    calibration: tuple[float, ...]
    arrived: tuple[float, ...] = ()
    bettor: Bettor = field(default_factory=Bettor)
    drifted_after: int | None = None

    @classmethod
    def start(cls, calibration: ArrayLike, name: str, *, low_side: bool = False) -> Stream:
        """Start from `(n,)` calibration values; n must be at least 1.

        With `low_side` only values that fall are a change, not values that rise.
        """
        values = confidence_array(calibration, name).astype(np.float64)
        if not len(values):
            raise InputError(f"Expected calibration values of `{name}`, but got none.")
        bettor = Bettor(slopes=LOW_SIDE if low_side else BOTH_SIDES)
        return cls(tuple(np.sort(values).tolist()), bettor=bettor)

    def after(self, values: ArrayLike, rng: np.random.Generator, *, alarm_at: float) -> Stream:
        """Return the stream after `(k,)` more values, in their order.

        `alarm_at` is the capital at which the alarm is raised; once raised it stays.
        """
        found, _ = online_p_values(sorted((*self.calibration, *self.arrived)), values, rng)
        bettor, drifted_after = self.bettor, self.drifted_after
        for p in found.tolist():
            bettor = bettor.after([p])
            if drifted_after is None and bettor.peak >= math.log(alarm_at):
                drifted_after = bettor.n
        arrived = sorted((*self.arrived, *np.asarray(values, dtype=np.float64).tolist()))
        return Stream(self.calibration, tuple(arrived), bettor, drifted_after)

    @property
    def usual(self) -> float:
        """Median of the calibration values."""
        return float(np.median(self.calibration))

    @property
    def lately(self) -> float:
        """Median of the incoming values; NaN before the first."""
        return float(np.median(self.arrived)) if self.arrived else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return {
            "calibration": list(self.calibration),
            "arrived": list(self.arrived),
            "bettor": {
                **vars(self.bettor),
                "slopes": list(self.bettor.slopes),
                "stakes": list(self.bettor.stakes),
            },
            "drifted_after": self.drifted_after,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Stream:
        """Take up what `to_dict` returned; KeyError or TypeError if it is not complete."""
        bettor = dict(state["bettor"])
        bettor.update(slopes=tuple(bettor["slopes"]), stakes=tuple(bettor["stakes"]))
        return cls(
            calibration=tuple(map(float, state["calibration"])),
            arrived=tuple(map(float, state["arrived"])),
            bettor=Bettor(**bettor),
            drifted_after=state["drifted_after"],
        )
