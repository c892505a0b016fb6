"""Which scores of a column deserve a mark: those that a test finds ahead of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from trustvlm.benchmark.resamples import Resampled

__all__ = ["Mark", "leaders"]

Mark: TypeAlias = Literal["", "best", "second"]


def leaders(
    shown: Mapping[str, float],
    resampled: Resampled | None,
    metric: str,
    *,
    higher_is_better: bool,
    level: float = 0.95,
) -> dict[str, Mark]:
    """Return the scores that deserve a mark, by test and not by the digits alone.

    A score is better than another if what is shown says so *and* the paired bootstrap interval of
    their difference leaves out zero on the same side. `best` is better than every other score;
    `second` is better than every other but one, so that two that cannot be told apart, and are
    both ahead of the rest, are both marked so.

    Parameters
    ----------
    shown
        By score, the value that the table shows, such as a mean over draws; NaN where undefined.
    resampled
        The samples' bootstrap; None if there are no samples, and then there are no marks.
    metric, higher_is_better
        Name, and which end is good.
    level
        Nominal coverage of the intervals.

    Examples
    --------
    >>> leaders({"a": 0.9, "b": 0.5}, None, "auroc", higher_is_better=True)
    {}
    """
    if resampled is None:
        return {}
    sign = 1 if higher_is_better else -1
    defined = {score: sign * value for score, value in shown.items() if not math.isnan(value)}
    marks: dict[str, Mark] = {}
    # Only the first two can be better than all others, or all but one.
    for score in sorted(defined, key=lambda name: -defined[name])[:2]:
        others = [name for name in defined if name != score]
        beaten = sum(
            defined[score] > defined[other] and _ahead(resampled, score, other, metric, sign, level)
            for other in others
        )
        if beaten and beaten >= len(others) - 1:
            marks[score] = "best" if beaten == len(others) else "second"
    return marks


def _ahead(resampled: Resampled, a: str, b: str, metric: str, sign: int, level: float) -> bool:
    if a not in resampled.estimates or b not in resampled.estimates:
        return False
    pair = resampled.difference(a, b, metric, level)
    return min(sign * pair.low, sign * pair.high) > 0
