"""A test martingale against uniform conformal p-values, for one number per image."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.inputs import confidence_array

# Conformal p-values: how unusual a value is among values it should be exchangeable with.


def online_p_values(
    seen: Sequence[float], values: ArrayLike, rng: np.random.Generator
) -> tuple[NDArray[np.float64], list[float]]:
    """Smoothed p-value of each value among all before it, which it then joins.

    p = (#{lower} + u (#{equal} + 1)) / (n + 1) with u uniform. If all values, seen and new, are
    exchangeable, these p-values are independent and uniform on [0, 1], exactly.

    Parameters
    ----------
    seen
        Values so far, ascending.
    values
        `(k,)` new values, in the order of arrival.
    rng
        Draws one u for each new value.

    Returns
    -------
    p_values
        `(k,)` float64; low where a value is lower than those before it.
    seen
        All n + k values, ascending.

    Notes
    -----
    Vovk, Nouretdinov & Gammerman 2003, "Testing exchangeability on-line", theorem 1.

    Examples
    --------
    >>> p, seen = online_p_values([1.0, 2.0], [0.5, 3.0], np.random.default_rng(0))
    >>> p.round(2), seen
    (array([0.21, 0.82]), [0.5, 1.0, 2.0, 3.0])
    """
    value = confidence_array(values, "values").astype(np.float64).tolist()
    ordered = list(seen)
    p_values = []
    for v, u in zip(value, rng.random(len(value)).tolist(), strict=True):
        lower, at_most = bisect_left(ordered, v), bisect_right(ordered, v)
        p_values.append((lower + u * (at_most - lower + 1)) / (len(ordered) + 1))
        ordered.insert(at_most, v)
    return np.array(p_values, dtype=np.float64), ordered


# Betting against uniform p-values: a capital that grows only if they are not uniform.

LOW_SIDE = (-2.0, -1.0)
"""Slopes of bets that gain when p-values are low; at 2 a bet can lose everything, but no more."""

BOTH_SIDES = (*LOW_SIDE, 1.0, 2.0)
"""Slopes of bets on p-values that are low or high."""

_JUMP = 0.01
# Beyond this only the logarithm goes on growing.
_RESCALE = 1e100


@dataclass(frozen=True)
class JumperMartingale:
    """Capital of 1, betting that p-values stop being uniform at some time; immutable.

    The capital is a test martingale: if the p-values are independent and uniform, the chance that
    it ever reaches 1/a is at most a (Ville's inequality), however long one looks. Part of it
    is idle: at the n-th p-value 1 in n + 1 parts of the idle capital is bet from then on, so that
    a change is detected after any time, and the idle capital never falls below 1 / (n + 1). What
    is not idle is spread over the bets and moves between them with rate 1 in 100. A bet multiplies
    its capital by 1 + slope (p - 1/2).

    Attributes
    ----------
    slopes
        Of the bets, in [-2, 2].
    n
        P-values seen.
    idle_capital
        Capital that is not bet yet, in units of exp(log_scale).
    bets
        Capital on each bet, in units of exp(log_scale); () stands for none yet.
    log_scale
        Logarithm of the unit, so that nothing overflows.
    peak
        Logarithm of the largest capital so far.

    Notes
    -----
    The Simple Jumper of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman 2021, "Retrain or
    not retrain: conformal test martingales for change-point detection" (arXiv 2102.10439), with
    steeper bets and an idle part. Ville 1939.

    Examples
    --------
    >>> JumperMartingale().after([0.5] * 100).capital.__round__(6)
    1.0
    >>> JumperMartingale().after([0.1] * 40).capital > 1000
    True
    """

    slopes: tuple[float, ...] = BOTH_SIDES
    n: int = 0
    idle_capital: float = 1.0
    bets: tuple[float, ...] = ()
    log_scale: float = 0.0
    peak: float = 0.0

    def after(self, p_values: Iterable[float]) -> JumperMartingale:
        """Return the martingale after more p-values, in their order."""
        martingale = self
        for p in p_values:
            martingale = martingale._after_one(float(p))
        return martingale

    @property
    def log_capital(self) -> float:
        """Natural logarithm of the capital."""
        total = self.idle_capital + sum(self.bets)
        return self.log_scale + math.log(total)

    @property
    def capital(self) -> float:
        """The capital; infinite beyond what a float holds."""
        return math.exp(self.log_capital) if self.log_capital < 700 else math.inf

    def _after_one(self, p: float) -> JumperMartingale:
        n = self.n + 1
        released = self.idle_capital / (n + 1)
        idle = self.idle_capital - released
        before = self.bets or (0.0,) * len(self.slopes)
        funded = [bet + released / len(self.slopes) for bet in before]
        moved = _JUMP * sum(funded) / len(self.slopes)
        bets = [
            ((1.0 - _JUMP) * bet + moved) * (1.0 + slope * (p - 0.5))
            for bet, slope in zip(funded, self.slopes, strict=True)
        ]
        total, log_scale = idle + sum(bets), self.log_scale
        peak = max(self.peak, log_scale + math.log(total))
        if total > _RESCALE:
            idle, bets = idle / total, [bet / total for bet in bets]
            log_scale += math.log(total)
        return JumperMartingale(self.slopes, n, idle, tuple(bets), log_scale, peak)


# One number per image, watched for a change.


@dataclass(frozen=True)
class Stream:
    """Values of one kind, on calibration images and on incoming ones; immutable.

    Attributes
    ----------
    calibration
        Values on the calibration images, ascending.
    arrived
        Values on the incoming images so far, ascending.
    martingale
        Whose capital grows if there is a change.
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
    martingale: JumperMartingale = field(default_factory=JumperMartingale)
    drifted_after: int | None = None

    @classmethod
    def start(cls, calibration: ArrayLike, name: str, *, low_side: bool = False) -> Stream:
        """Start from `(n,)` calibration values; n must be at least 1.

        With `low_side` only values that fall are a change, not values that rise.
        """
        values = confidence_array(calibration, name).astype(np.float64)
        if not len(values):
            raise InputError(f"Expected calibration values of `{name}`, but got none.")
        martingale = JumperMartingale(slopes=LOW_SIDE if low_side else BOTH_SIDES)
        return cls(tuple(np.sort(values).tolist()), martingale=martingale)

    def after(self, values: ArrayLike, rng: np.random.Generator, *, alarm_at: float) -> Stream:
        """Return the stream after `(k,)` more values, in their order.

        `alarm_at` is the capital at which the alarm is raised; once raised it stays.
        """
        p_values, _ = online_p_values(sorted((*self.calibration, *self.arrived)), values, rng)
        martingale, drifted_after = self.martingale, self.drifted_after
        for p in p_values.tolist():
            martingale = martingale.after([p])
            if drifted_after is None and martingale.peak >= math.log(alarm_at):
                drifted_after = martingale.n
        arrived = sorted((*self.arrived, *np.asarray(values, dtype=np.float64).tolist()))
        return Stream(self.calibration, tuple(arrived), martingale, drifted_after)

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
        martingale = self.martingale
        return {
            "calibration": list(self.calibration),
            "arrived": list(self.arrived),
            # Stored states keep the names that they have always had.
            "bettor": {
                "slopes": list(martingale.slopes),
                "n": martingale.n,
                "sleeping": martingale.idle_capital,
                "stakes": list(martingale.bets),
                "log_scale": martingale.log_scale,
                "peak": martingale.peak,
            },
            "drifted_after": self.drifted_after,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Stream:
        """Take up what `to_dict` returned; KeyError or TypeError if it is not complete."""
        stored = state["bettor"]
        return cls(
            calibration=tuple(map(float, state["calibration"])),
            arrived=tuple(map(float, state["arrived"])),
            martingale=JumperMartingale(
                slopes=tuple(stored["slopes"]),
                n=stored["n"],
                idle_capital=stored["sleeping"],
                bets=tuple(stored["stakes"]),
                log_scale=stored["log_scale"],
                peak=stored["peak"],
            ),
            drifted_after=state["drifted_after"],
        )
