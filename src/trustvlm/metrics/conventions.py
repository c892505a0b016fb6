"""Which formula a metric's name stands for, and what is said where it has no value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

from numpy.typing import ArrayLike

from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.metrics import exact, released
from trustvlm.metrics.counts import Ranking, rank

_Metric = Callable[[Ranking], float]

_EXACT: dict[str, _Metric] = {
    "accuracy": lambda ranking: float(exact.accuracy(ranking.in_blocks)),
    "aurc": lambda ranking: float(exact.aurc(ranking.in_blocks)),
    "eaurc": lambda ranking: float(exact.eaurc(ranking.in_blocks)),
    "augrc": lambda ranking: float(exact.augrc(ranking.in_blocks)),
    "auroc": lambda ranking: float(exact.auroc(ranking.in_blocks)),
    "fpr95": lambda ranking: float(exact.fpr95(ranking.in_blocks)),
    "aupr_success": lambda ranking: float(exact.aupr_success(ranking.in_blocks)),
    "aupr_error": lambda ranking: float(exact.aupr_error(ranking.in_blocks)),
}
_RELEASED: dict[str, _Metric] = _EXACT | {
    "aurc": lambda ranking: float(exact.aurc(ranking.one_by_one)),
    "eaurc": released.eaurc,
    "augrc": lambda ranking: float(exact.augrc(ranking.one_by_one)),
    "fpr95": released.fpr95,
    "aupr_success": released.aupr_success,
    "aupr_error": released.aupr_error,
}
_FORMULAS = {"exact": _EXACT, "trustvlm": _RELEASED}

CONVENTIONS = tuple(_FORMULAS)
METRICS = tuple(_EXACT)

_TITLES = {
    "accuracy": "Accuracy",
    "aurc": "AURC",
    "eaurc": "E-AURC",
    "augrc": "AUGRC",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "aupr_success": "AUPR-success",
    "aupr_error": "AUPR-error",
}


def check_convention(convention: str) -> None:
    """Raise `InputError` for a convention that does not exist."""
    if convention not in CONVENTIONS:
        raise InputError(
            f"Expected `convention` to be {' or '.join(CONVENTIONS)}, but got {convention!r}."
        )


def value(name: str, ranking: Ranking, convention: str) -> float:
    """Compute one metric; NaN, without a word, where it has no value."""
    return _FORMULAS[convention][name](ranking)


def measure(name: str, confidence: ArrayLike, correct: ArrayLike, convention: str) -> float:
    """Compute one metric for the function of that name, and warn where it has no value."""
    check_convention(convention)
    ranking = rank(confidence, correct)
    found = value(name, ranking, convention)
    if math.isnan(found):
        warn_undefined([name], ranking, stacklevel=4)
    return found


def warn_undefined(names: Sequence[str], ranking: Ranking, *, stacklevel: int = 3) -> None:
    """Say in one warning which metrics have no value on these samples, and why."""
    if not names:
        return
    counts = ranking.in_blocks
    if ranking.n == 0:
        reason = "there are no samples"
    else:
        reason = f"every sample is {'correct' if counts.n_wrong == 0 else 'wrong'}"
    titles = [_TITLES[name] for name in names]
    listed = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    warnings.warn(
        f"{listed} {'is' if len(names) == 1 else 'are'} undefined: {reason}.",
        UndefinedMetricWarning,
        stacklevel=stacklevel,
    )
