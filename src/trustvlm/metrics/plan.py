"""What a bootstrap is asked to do, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trustvlm.exceptions import InputError
from trustvlm.metrics.conventions import METRICS

__all__ = ["check_names", "check_plan", "generator"]


def check_names(metrics: str | Sequence[str], argument: str = "metrics") -> list[str]:
    """Return the metrics' names as a list, or raise `InputError` for an unknown one."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise InputError(
            f"Expected `{argument}` to be among {', '.join(METRICS)}, but got {unknown[0]!r}."
        )
    return names


def check_plan(n_resamples: int, level: float) -> tuple[int, float]:
    """Return both as plain numbers, or raise `InputError` for one that cannot be."""
    whole = isinstance(n_resamples, int | np.integer) and not isinstance(n_resamples, bool)
    if not whole or n_resamples < 1:
        raise InputError(
            f"Expected `n_resamples` to be a whole number of at least 1, but got {n_resamples!r}."
        )
    if not 0 < level < 1:
        raise InputError(f"Expected `level` to lie in (0, 1), but got {level!r}.")
    return int(n_resamples), float(level)


def generator(seed: int | np.random.Generator | None) -> np.random.Generator:
    """Return the random generator of a seed, or raise `InputError` for what is none.

    Examples
    --------
    >>> int(generator(0).integers(100)) == int(generator(0).integers(100))
    True
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Expected `seed` to be a whole number of at least 0, a NumPy generator or None, "
            f"but got {seed!r}."
        ) from error
