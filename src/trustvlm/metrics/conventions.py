"""The formulas of the metrics in both conventions, and what is said where one has no value.

In convention `exact` samples of equal confidence have no order of their own. AURC and AUGRC are
their expected values over all orders of ties: within a block of ties the expected number of errors
among the first k grows linearly in k, so the mean over orders has a closed form and no order is
ever drawn. The other metrics are read at thresholds, where ties cannot be split.

Convention `trustvlm` computes the metrics as the paper's released script does. It differs where
samples are tied (they are taken one by one, in input order), in the vertex of the ROC curve that
FPR95 is read at, and in what it gives when all samples are correct or all are wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.metrics.counts import Counts, Ranking, rank, rank_weighted
from trustvlm.metrics.info import METRIC_INFO, names
from trustvlm.text import join_names

Values = NDArray[np.float64]

# Convention `exact`. Every function takes `Counts` of shape `(..., m + 1)` and returns `(...,)`
# float64, NaN where the metric has no value, so that one sample and ten thousand resamples go
# through the same formula.


def accuracy(counts: Counts) -> Values:
    """Share of right samples."""
    return _ratio(counts.n_right, counts.n)


def aurc(counts: Counts, table: Values | None = None) -> Values:
    """Mean over k of the expected share of errors among the first k.

    Parameters
    ----------
    counts
        Of any shape.
    table
        `counts.area_table(n)`. Differences of a table serve many resamples quickly; without it the
        steps are summed anew, to the last digit.
    """
    if table is not None:
        share = counts.is_error
        if share is None:
            share = counts.errors / np.maximum(counts.sizes, 1)
        area = np.diff(table.take(counts.accepted))
        return _ratio(np.einsum("...m,...m->...", area, share), counts.n)
    accepted, size = counts.accepted, counts.sizes
    reciprocal = 1 / np.arange(1, int(counts.n) + 1)
    steps = np.add.reduceat(reciprocal, accepted[:-1]) if size.size else reciprocal
    # In the block from a to b the errors among the first k are W + slope (k - a), hence the sum of
    # their share is slope (b - a) + (W - slope a)(1/(a+1) + ... + 1/b).
    slope = counts.errors / np.maximum(size, 1)
    offset = counts.wrong[..., :-1] - slope * accepted[..., :-1]
    total = counts.n_wrong + np.einsum("...m,...m->...", offset, steps)
    return _ratio(total, counts.n)


def best_aurc(counts: Counts) -> Values:
    """R + (1 - R) ln(1 - R), R the error rate: what a perfect ranking tends to for large n."""
    right = accuracy(counts)
    return (1 - right) + right * np.log(np.where(right > 0, right, 1.0))


def eaurc(counts: Counts) -> Values:
    """AURC less that of a perfect ranking."""
    return aurc(counts) - best_aurc(counts)


def augrc(counts: Counts) -> Values:
    """Mean over k of the expected number of errors among the first k, over n."""
    n, right, wrong = counts.n, counts.n_right, counts.n_wrong
    # Errors above right samples and errors above errors, counted twice to stay in whole numbers.
    twice = 2 * right * wrong - _twice_ordered_pairs(counts) + wrong * (wrong + 1)
    return _ratio(twice, 2 * n * n)


def eaugrc(counts: Counts) -> Values:
    """AUGRC less that of a perfect ranking: the misordered pairs, over n^2."""
    n, right, wrong = counts.n, counts.n_right, counts.n_wrong
    return _ratio(2 * right * wrong - _twice_ordered_pairs(counts), 2 * n * n)


def auroc(counts: Counts) -> Values:
    """Share of pairs of a right and a wrong sample in which the right one is trusted more."""
    return _ratio(_twice_ordered_pairs(counts), 2 * counts.n_right * counts.n_wrong)


def fpr95(counts: Counts) -> Values:
    """Share of wrong samples accepted at the first threshold that accepts 95 % of the right."""
    # Whole numbers: 19 of 20 is enough, whatever 0.95 rounds to.
    needed = -(-19 * counts.n_right // 20)
    at = np.count_nonzero(counts.right < needed[..., None], axis=-1)
    wrong = np.take_along_axis(counts.wrong, at[..., None], axis=-1)[..., 0]
    return np.where(counts.n_right > 0, _ratio(wrong, counts.n_wrong), np.nan)


def aupr_success(counts: Counts) -> Values:
    """Average precision of finding the right samples from the most trusted end."""
    total = np.einsum(
        "...m,...m->...",
        (counts.sizes - counts.errors).astype(np.float64),
        counts.right[..., 1:] / np.maximum(counts.accepted[..., 1:], 1),
    )
    return _ratio(total, counts.n_right)


def aupr_error(counts: Counts) -> Values:
    """Average precision of finding the wrong samples from the least trusted end."""
    n, n_wrong = counts.n[..., None], counts.n_wrong[..., None]
    right_flags = n_wrong - counts.wrong[..., :-1]
    flagged = n - counts.accepted[..., :-1]
    total = np.einsum(
        "...m,...m->...",
        counts.errors.astype(np.float64),
        right_flags / np.maximum(flagged, 1),
    )
    return _ratio(total, counts.n_wrong)


def _twice_ordered_pairs(counts: Counts) -> NDArray[np.int64]:
    """Twice the pairs of a right sample above a wrong one; a tie counts half."""
    right = counts.right
    pairs: NDArray[np.int64] = np.einsum(
        "...m,...m->...", right[..., 1:] + right[..., :-1], counts.errors
    )
    return pairs


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    # 0 / 0 is the one case that occurs: the metric has no value, which NaN says.
    with np.errstate(invalid="ignore"):
        ratio: Values = np.asarray(np.true_divide(part, whole))
    return ratio


EXACT: dict[str, Callable[[Counts], Values]] = {
    "accuracy": accuracy,
    "aurc": aurc,
    "eaurc": eaurc,
    "augrc": augrc,
    "eaugrc": eaugrc,
    "auroc": auroc,
    "fpr95": fpr95,
    "aupr_success": aupr_success,
    "aupr_error": aupr_error,
}
"""The formula of every metric of this package, by name, in convention `exact`."""


# Convention `exact` with weights of samples: of one ranking.


def weighted_accuracy(ranking: Ranking, weight: Values) -> float:
    """Share of the weight that is on right samples."""
    return float(np.sum(weight * ranking.correct) / np.sum(weight))


def weighted_aurc(ranking: Ranking, weight: Values) -> float:
    """Weighted mean over the samples of the weighted risk among those at least as trusted."""
    own, accepted, wrong = _accumulated(ranking, weight)
    return float(np.sum(own * (wrong / accepted)) / accepted[-1])


def weighted_augrc(ranking: Ranking, weight: Values) -> float:
    """Weighted mean over the samples of the weight of errors at least as trusted, over all."""
    own, accepted, wrong = _accumulated(ranking, weight)
    return float(np.sum(own * (wrong / accepted[-1])) / accepted[-1])


def _accumulated(ranking: Ranking, weight: Values) -> tuple[Values, Values, Values]:
    """`(n,)` weight of each sample, of all up to it, and of the errors among these.

    Tied samples share their weight and their errors evenly, so that no order is preferred.
    """
    size = np.diff(ranking.ends, prepend=-1)
    start = ranking.ends - size + 1

    def shared(values: Values) -> Values:
        return np.repeat(np.add.reduceat(values, start) / size, size)

    own = shared(weight)
    return own, np.cumsum(own), np.cumsum(shared(weight * ~ranking.correct))


WEIGHTED: dict[str, Callable[[Ranking, Values], float]] = {
    "accuracy": weighted_accuracy,
    "aurc": weighted_aurc,
    "augrc": weighted_augrc,
}
"""The formula of every metric that takes weights, by name; with equal weights that of `EXACT`."""


# Convention `trustvlm`, where it differs: of one ranking.


def released_eaurc(ranking: Ranking) -> float:
    """Excess AURC; the script's 0 ln 0 is NaN."""
    counts = ranking.one_by_one
    return float(eaurc(counts)) if counts.n_right else math.nan


def released_fpr95(ranking: Ranking) -> float:
    """Read the rate at the corner of the ROC curve whose true positive rate is nearest 0.95.

    Nearest may be below: then fewer than 95 % of the correct samples are accepted.
    """
    counts = ranking.in_blocks
    if counts.n_wrong == 0:
        return math.nan
    if counts.n_right == 0:
        # No true positive rate can be compared, and the script keeps the first vertex.
        return 0.0
    corner = _corners(counts)
    tpr = counts.right[corner] / counts.n_right
    fpr = counts.wrong[corner] / counts.n_wrong
    return float(fpr[np.argmin(np.abs(tpr - 0.95))])


def released_aupr_success(ranking: Ranking) -> float:
    """Area by trapezoids; without a correct sample the line from (0, 1) to (1, 0)."""
    counts = ranking.in_blocks
    if ranking.n and counts.n_right == 0:
        return 0.5
    # Where nothing is accepted, nothing is wrong: the curve starts at precision 1.
    nothing = counts.accepted == 0
    precision = (counts.right + nothing) / (counts.accepted + nothing)
    doubled = np.dot(precision[1:] + precision[:-1], np.diff(counts.right))
    return float(_ratio(doubled, 2 * counts.n_right))


def released_aupr_error(ranking: Ranking) -> float:
    """Average precision of the errors; 0 without an error."""
    counts = ranking.in_blocks
    return 0.0 if ranking.n and counts.n_wrong == 0 else float(aupr_error(counts))


def _corners(counts: Counts) -> NDArray[np.bool_]:
    """Mark the ends of the ROC curve and the points where its steps change.

    scikit-learn's `roc_curve` drops points this way, before it puts the origin in front: the first
    threshold always stays.
    """
    keep = np.ones(counts.right.shape, dtype=bool)
    right, wrong = counts.right[1:], counts.wrong[1:]
    keep[2:-1] = (np.diff(right, 2) != 0) | (np.diff(wrong, 2) != 0)
    return keep


_RELEASED: dict[str, Callable[[Ranking], float]] = {
    "aurc": lambda ranking: float(aurc(ranking.one_by_one)),
    "eaurc": released_eaurc,
    "augrc": lambda ranking: float(augrc(ranking.one_by_one)),
    "fpr95": released_fpr95,
    "aupr_success": released_aupr_success,
    "aupr_error": released_aupr_error,
}

# One metric of one ranking, by name and convention.

CONVENTIONS = ("exact", "trustvlm")
"""`exact`, which does not depend on the order of the samples, and the released script's rules."""


def check_convention(
    convention: str, sample_weight: ArrayLike | None = None, metric: str = "accuracy"
) -> None:
    """Raise `InputError` for a convention that does not exist, or lacks weights or the metric."""
    if convention not in CONVENTIONS:
        raise InputError(
            f"Expected `convention` to be {' or '.join(CONVENTIONS)}, but got {convention!r}."
        )
    if convention == "trustvlm" and (metric not in names() or sample_weight is not None):
        lacking = "no `sample_weight`" if metric in names() else f"no {METRIC_INFO[metric].title}"
        raise InputError(
            f"Expected `convention` to be 'exact', but got {convention!r}: the released script has "
            f"{lacking}."
        )


def value(name: str, ranking: Ranking, convention: str) -> float:
    """Compute one metric; NaN, without a warning, where it has no value."""
    if METRIC_INFO[name].function is not None:
        return METRIC_INFO[name].of(ranking.confidence, ranking.correct)
    if convention == "trustvlm" and name in _RELEASED:
        return _RELEASED[name](ranking)
    return float(EXACT[name](ranking.in_blocks))


def measure(
    name: str,
    confidence: ArrayLike,
    correct: ArrayLike,
    convention: str,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute one metric for the function of that name, and warn where it has no value."""
    check_convention(convention, sample_weight, name)
    if sample_weight is not None:
        ranking, weight = rank_weighted(confidence, correct, sample_weight)
        result = WEIGHTED[name](ranking, weight) if ranking.n else math.nan
    else:
        ranking = rank(confidence, correct)
        result = value(name, ranking, convention)
    if math.isnan(result):
        warn_undefined([name], ranking, stacklevel=4)
    return result


def warn_undefined(names: Sequence[str], ranking: Ranking, *, stacklevel: int = 3) -> None:
    """Say in one warning which metrics have no value on these samples, and why."""
    if not names:
        return
    titles: dict[str, list[str]] = {}
    for name in names:
        titles.setdefault(_why_undefined(name, ranking), []).append(METRIC_INFO[name].title)
    parts = (f"{join_names(t)} {'is' if len(t) == 1 else 'are'}" for t in titles.values())
    warnings.warn(
        "; ".join(f"{p} undefined: {why}" for p, why in zip(parts, titles, strict=True)) + ".",
        UndefinedMetricWarning,
        stacklevel=stacklevel,
    )


def _why_undefined(name: str, ranking: Ranking) -> str:
    counts, info = ranking.in_blocks, METRIC_INFO[name]
    if ranking.n == 0:
        return "there are no samples"
    outside = ranking.confidence[0] > 1 or ranking.confidence[-1] < 0
    if info.function is not None and info.needs == "probability" and outside:
        return "the confidences are not probabilities"
    if counts.n_wrong and counts.n_right:
        return "its function gives NaN"
    return f"every sample is {'correct' if counts.n_wrong == 0 else 'wrong'}"
