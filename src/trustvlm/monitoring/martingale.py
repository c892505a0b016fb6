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


def p_values(calibration: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """P-value of each value for being as low as it is: (1 + #{c <= v}) / (n + 1).

    If a value is exchangeable with the n calibration values, its p-value is at most a with
    probability at most a, for every a. The values are judged one by one.

    Parameters
    ----------
    calibration
        `(n,)` values; with none every p-value is 1.
    values
        `(k,)` values, higher is more usual.

    Returns
    -------
    ndarray
        `(k,)` float64 in [1 / (n + 1), 1].

    Notes
    -----
    Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World".

    Examples
    --------
    >>> p_values([0.5, 0.6, 0.7], [0.4, 0.6])
    array([0.25, 0.75])
    """
    known = np.sort(confidence_array(calibration, "calibration").astype(np.float64))
    value = confidence_array(values, "values").astype(np.float64)
    at_most = np.searchsorted(known, value, side="right")
    return np.asarray((1.0 + at_most) / (len(known) + 1.0))


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
    >>> found, seen = online_p_values([1.0, 2.0], [0.5, 3.0], np.random.default_rng(0))
    >>> found.round(2), seen
    (array([0.21, 0.82]), [0.5, 1.0, 2.0, 3.0])
    """
    value = confidence_array(values, "values").astype(np.float64).tolist()
    ordered = list(seen)
    found = []
    for v, u in zip(value, rng.random(len(value)).tolist(), strict=True):
        lower, at_most = bisect_left(ordered, v), bisect_right(ordered, v)
        found.append((lower + u * (at_most - lower + 1)) / (len(ordered) + 1))
        ordered.insert(at_most, v)
    return np.array(found, dtype=np.float64), ordered


# Betting against uniform p-values: a capital that grows only if they are not uniform.

LOW_SIDE = (-2.0, -1.0)
"""Slopes of bets that gain when p-values are low; at 2 a bet can lose everything, but no more."""

BOTH_SIDES = (*LOW_SIDE, 1.0, 2.0)
"""Slopes of bets on p-values that are low or high."""

_JUMP = 0.01
# Beyond this only the logarithm goes on growing.
_RESCALE = 1e100


@dataclass(frozen=True)
class Bettor:
    """Capital of 1, betting that p-values stop being uniform at some time; immutable.

    The capital is a test martingale: if the p-values are independent and uniform, the chance that
    it ever reaches 1/a is at most a (Ville's inequality), however long one looks. Part of it
    sleeps: at the n-th p-value 1 in n + 1 parts of what sleeps wakes and bets from then on, so
    that a change is found after any time, and what sleeps never falls below 1 / (n + 1). What is
    awake is spread over the bets and moves between them with rate 1 in 100. A bet multiplies its
    stake by 1 + slope (p - 1/2).

    Attributes
    ----------
    slopes
        Of the bets, in [-2, 2].
    n
        P-values seen.
    sleeping
        Capital that does not bet yet, in units of exp(log_scale).
    stakes
        Capital on each bet, in units of exp(log_scale); () stands for none yet.
    log_scale
        Logarithm of the unit, so that nothing overflows.
    peak
        Logarithm of the largest capital so far.

    Notes
    -----
    The Simple Jumper of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman 2021, "Retrain or
    not retrain: conformal test martingales for change-point detection" (arXiv 2102.10439), with
    steeper bets and a sleeping part. Ville 1939.

    Examples
    --------
    >>> Bettor().after([0.5] * 100).capital.__round__(6)
    1.0
    >>> Bettor().after([0.1] * 40).capital > 1000
    True
    """

    slopes: tuple[float, ...] = BOTH_SIDES
    n: int = 0
    sleeping: float = 1.0
    stakes: tuple[float, ...] = ()
    log_scale: float = 0.0
    peak: float = 0.0

    def after(self, p_values: Iterable[float]) -> Bettor:
        """Return the bettor after more p-values, in their order."""
        bettor = self
        for p in p_values:
            bettor = bettor._after_one(float(p))
        return bettor

    @property
    def log_capital(self) -> float:
        """Natural logarithm of the capital."""
        total = self.sleeping + sum(self.stakes)
        return self.log_scale + math.log(total)

    @property
    def capital(self) -> float:
        """The capital; infinite beyond what a float holds."""
        return math.exp(self.log_capital) if self.log_capital < 700 else math.inf

    def _after_one(self, p: float) -> Bettor:
        n = self.n + 1
        waking = self.sleeping / (n + 1)
        sleeping = self.sleeping - waking
        before = self.stakes or (0.0,) * len(self.slopes)
        awake = [stake + waking / len(self.slopes) for stake in before]
        moved = _JUMP * sum(awake) / len(self.slopes)
        stakes = [
            ((1.0 - _JUMP) * stake + moved) * (1.0 + slope * (p - 0.5))
            for stake, slope in zip(awake, self.slopes, strict=True)
        ]
        total, log_scale = sleeping + sum(stakes), self.log_scale
        peak = max(self.peak, log_scale + math.log(total))
        if total > _RESCALE:
            sleeping, stakes = sleeping / total, [stake / total for stake in stakes]
            log_scale += math.log(total)
        return Bettor(self.slopes, n, sleeping, tuple(stakes), log_scale, peak)


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
