"""Convention `trustvlm`: the metrics as the paper's released script computes them.

It differs from `exact` where samples are tied (they are taken one by one, in input order), in the
vertex of the ROC curve that FPR95 is read at, and in what it gives when all samples are correct or
all are wrong.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trustvlm.metrics import exact
from trustvlm.metrics.counts import Counts, Ranking


def eaurc(ranking: Ranking) -> float:
    """Excess AURC; the script's 0 ln 0 is NaN."""
    counts = ranking.one_by_one
    return float(exact.eaurc(counts)) if counts.n_right else math.nan


def fpr95(ranking: Ranking) -> float:
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


def aupr_success(ranking: Ranking) -> float:
    """Area by trapezoids; without a correct sample the line from (0, 1) to (1, 0)."""
    counts = ranking.in_blocks
    return 0.5 if ranking.n and counts.n_right == 0 else float(exact.aupr_success(counts))


def aupr_error(ranking: Ranking) -> float:
    """Average precision of the errors; 0 without an error."""
    counts = ranking.in_blocks
    return 0.0 if ranking.n and counts.n_wrong == 0 else float(exact.aupr_error(counts))


def _corners(counts: Counts) -> NDArray[np.bool_]:
    """Mark the ends of the ROC curve and the points where its steps change.

    scikit-learn's `roc_curve` drops points this way, before it puts the origin in front: the first
    threshold always stays.
    """
    keep = np.ones(counts.right.shape, dtype=bool)
    right, wrong = counts.right[1:], counts.wrong[1:]
    keep[2:-1] = (np.diff(right, 2) != 0) | (np.diff(wrong, 2) != 0)
    return keep
