"""Mean and spread of a metric over the draws of the shots."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trustvlm.benchmark.results import Results, value_of

__all__ = ["Spread", "mean_over_datasets", "spread", "spreads"]


@dataclass(frozen=True)
class Spread:
    """A metric over several draws.

    Attributes
    ----------
    mean
        Over the draws in which it is defined; NaN if there are none.
    sd
        Standard deviation of the sample (n - 1 in the denominator); NaN below two draws.
    n
        Draws in which it is defined.
    n_undefined
        Draws in which it is not.
    """

    mean: float
    sd: float
    n: int
    n_undefined: int = 0


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the values that are not NaN.

    Examples
    --------
    >>> spread([1.0, 3.0, float("nan")])
    Spread(mean=2.0, sd=1.4142135623730951, n=2, n_undefined=1)
    """
    array = np.asarray(values, dtype=np.float64)
    kept = array[~np.isnan(array)]
    undefined = len(array) - len(kept)
    if not len(kept):
        return Spread(math.nan, math.nan, 0, undefined)
    # A mean of equal values is that value, which rounding of sums may miss.
    same = bool((kept == kept[0]).all())
    mean = float(kept[0] if same else kept.mean())
    sd = math.nan if len(kept) < 2 else 0.0 if same else float(kept.std(ddof=1))
    return Spread(mean, sd, len(kept), undefined)


def spreads(results: Results, metric: str) -> dict[tuple[str, str, int], Spread]:
    """Return the spread over draws for each (dataset, score, shots), as fractions.

    Failed cells count as undefined draws, those that failed as a whole for every score.

    Examples
    --------
    >>> cell = {"dataset": "pets", "score": "knn", "shots": 16}
    >>> rows = [{**cell, "draw": 0, "aurc": 0.1}, {**cell, "draw": 1, "aurc": 0.3}]
    >>> spreads(Results(rows), "aurc")["pets", "knn", 16].mean
    0.2
    """
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for (score, shots), rows in results.by_score.items():
        for row in rows:
            values[row["dataset"], score, shots].append(value_of(row, metric))
    return {cell: spread(found) for cell, found in values.items()}


def mean_over_datasets(
    results: Results, metric: str, datasets: Sequence[str], score: str, shots: int
) -> Spread:
    """Mean over data sets, which count alike, and its spread over the draws.

    A draw that lacks one of the data sets counts as undefined: means over different sets are not
    comparable.
    """
    wanted = set(datasets)
    by_draw: dict[int, list[float]] = defaultdict(list)
    for row in results.by_score.get((score, shots), []):
        if row["dataset"] in wanted:
            by_draw[row["draw"]].append(value_of(row, metric))
    complete = [
        float(np.mean(values)) if len(values) == len(wanted) else math.nan
        for values in by_draw.values()
    ]
    return spread(complete)
