"""The metrics as counts give them, exact under ties.

Samples of equal confidence have no order of their own. AURC and AUGRC are their expected values
over all orders of ties: within a block of ties the expected number of errors among the first k
grows linearly in k, so the mean over orders has a closed form and no order is ever drawn. The
other metrics are read at thresholds, where ties cannot be split.

Every function takes `Counts` of shape `(..., m + 1)` and returns `(...,)` float64, NaN where the
metric has no value, so that one sample and ten thousand resamples go through the same formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.metrics.counts import Counts

Values = NDArray[np.float64]


def accuracy(counts: Counts) -> Values:
    """Share of right samples."""
    return _ratio(counts.n_right, counts.n)


def aurc(counts: Counts, harmonic: Values | None = None) -> Values:
    """Mean over k of the expected share of errors among the first k.

    Parameters
    ----------
    counts
        Of any shape.
    harmonic
        `(n + 1,)` harmonic numbers. Differences of a table serve many resamples quickly; without
        it the steps are summed anew, to the last digit.
    """
    accepted, wrong, size = counts.accepted, counts.wrong, counts.sizes
    if harmonic is not None:
        steps = np.diff(harmonic[accepted])
    else:
        reciprocal = 1 / np.arange(1, int(counts.n) + 1)
        steps = np.add.reduceat(reciprocal, accepted[:-1]) if size.size else reciprocal
    # In the block from a to b the errors among the first k are W + slope (k - a), hence the sum of
    # their share is slope (b - a) + (W - slope a)(1/(a+1) + ... + 1/b).
    slope = counts.errors / np.maximum(size, 1)
    offset = wrong[..., :-1] - slope * accepted[..., :-1]
    total = counts.n_wrong + np.einsum("...m,...m->...", offset, steps)
    return _ratio(total, counts.n)


def best_aurc(counts: Counts) -> Values:
    """R + (1 - R) ln(1 - R), R the error rate: what a perfect ranking tends to for large n."""
    right = accuracy(counts)
    return (1 - right) + right * np.log(np.where(right > 0, right, 1.0))


def eaurc(counts: Counts, harmonic: Values | None = None) -> Values:
    """AURC less that of a perfect ranking."""
    return aurc(counts, harmonic) - best_aurc(counts)


def augrc(counts: Counts) -> Values:
    """Mean over k of the expected number of errors among the first k, over n."""
    n, right, wrong = counts.n, counts.n_right, counts.n_wrong
    # Errors above right samples and errors above errors, counted twice to stay in whole numbers.
    twice = 2 * right * wrong - _twice_ordered_pairs(counts) + wrong * (wrong + 1)
    return _ratio(twice, 2 * n * n)


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
    """Area under precision over recall by trapezoids, right samples positive."""
    # Where nothing is accepted, nothing is wrong: the curve starts at precision 1.
    nothing = counts.accepted == 0
    precision = (counts.right + nothing) / (counts.accepted + nothing)
    doubled = np.einsum(
        "...m,...m->...",
        precision[..., 1:] + precision[..., :-1],
        (counts.sizes - counts.errors).astype(np.float64),
    )
    return _ratio(doubled, 2 * counts.n_right)


def aupr_error(counts: Counts) -> Values:
    """Average precision of finding the wrong samples from the least trusted end."""
    n, n_wrong = counts.n[..., None], counts.n_wrong[..., None]
    found = n_wrong - counts.wrong[..., :-1]
    flagged = n - counts.accepted[..., :-1]
    total = np.einsum(
        "...m,...m->...",
        counts.errors.astype(np.float64),
        found / np.maximum(flagged, 1),
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
