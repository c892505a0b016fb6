"""Betting against uniform p-values: a capital that grows only if they are not uniform."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["BOTH_SIDES", "LOW_SIDE", "Bettor"]

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
