"""A metric by group: where it is worst, and how far apart groups are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.metrics.calibration_error import nll
from trustvlm.metrics.conventions import WEIGHTED, check_convention, measure
from trustvlm.metrics.info import METRIC_INFO, get
from trustvlm.metrics.inputs import confidence_array, correctness_array, weight_array
from trustvlm.text import join_names


@dataclass(frozen=True)
class GroupMetric:
    """One metric of every group of samples.

    Attributes
    ----------
    metric
        Name of the metric.
    values
        By group, in ascending order; NaN where it is undefined in the group.
    n
        Number of samples by group, those of weight 0 included.
    overall
        Its value over all samples. Of a metric of the ranking it is no mean of those by group.
    worst
        The group with the worst value, the first of several; None if it is undefined in all.
    gap
        How much better it is in the best group, at least 0; NaN if it is undefined in all.
    """

    metric: str
    values: Mapping[Any, float]
    n: Mapping[Any, int]
    overall: float
    worst: Any | None
    gap: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain Python values.

        Examples
        --------
        >>> by_group([0.9, 0.1], [1, 0], ["a", "b"], "accuracy").to_dict()["n"]
        {'a': 1, 'b': 1}
        """
        return asdict(self)


def by_group(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike,
    metric: str = "aurc",
    *,
    convention: str = "exact",
    sample_weight: ArrayLike | None = None,
) -> GroupMetric:
    """Compute a metric in every group of samples, each ranked among its own.

    Parameters
    ----------
    confidence
        `(n,)` real numbers, higher is more trusted; probabilities of being right for `nll`.
    correct
        `(n,)` booleans, or zeros and ones.
    groups
        `(n,)` texts, booleans or whole numbers: the group of each sample, such as its class, camera
        or region.
    metric
        A name from `metrics.names()`, `eaugrc` or `nll`.
    convention
        `exact` or, for a name from `metrics.names()`, `trustvlm`.
    sample_weight
        `(n,)` weights as of `aurc`, for `accuracy`, `aurc`, `augrc` and `nll`.

    Returns
    -------
    GroupMetric
        Groups in which the metric is undefined, as the AUROC where no sample is wrong, have NaN and
        take no part in `worst` and `gap`; one `UndefinedMetricWarning` names them.

    Raises
    ------
    InputError
        As `aurc`; for groups of another shape or type, or missing; for an unknown metric, or one
        without weights.

    Notes
    -----
    In small groups the worst value and the gap are large by chance alone: see `n`, and test a
    difference before acting on it. Under one common threshold groups differ in coverage, too (Jones
    et al. 2021, "Selective Classification Can Magnify Disparities Across Groups", arXiv
    2010.14134): for that, take `accuracy` by group of the samples that the threshold accepts.

    Examples
    --------
    >>> import numpy as np
    >>> confidence, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1])
    >>> groups = np.array(["day", "day", "night", "night"])
    >>> risk = by_group(confidence, correct, groups)
    >>> dict(risk.values), risk.worst, risk.gap
    ({'day': 0.0, 'night': 0.75}, 'night', 0.75)
    >>> accepted = confidence >= 0.7
    >>> dict(by_group(confidence[accepted], correct[accepted], groups[accepted], "accuracy").values)
    {'day': 1.0, 'night': 0.0}
    """
    get(metric)
    weighted = (*WEIGHTED, "nll")
    if sample_weight is not None and metric not in weighted:
        raise InputError(
            f"Expected no `sample_weight` for {metric}, but got one: {join_names(weighted)} "
            "take weights."
        )
    score = confidence_array(confidence)
    right = correctness_array(correct, len(score))
    weight = None if sample_weight is None else weight_array(sample_weight, len(score))
    names, group_of, n = np.unique(
        _group_array(groups, len(score)), return_inverse=True, return_counts=True
    )
    function = _measuring(metric, convention)
    # Each group's samples stand together, so that the time does not grow with the number of groups.
    order = np.argsort(group_of, kind="stable")
    parts = np.split(order, np.cumsum(n)[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        overall = function(score, right, weight)
        values = {
            name: function(score[part], right[part], None if weight is None else weight[part])
            for name, part in zip(names.tolist(), parts, strict=False)
        }
    undefined = [str(name) for name, value in values.items() if math.isnan(value)]
    if undefined:
        warnings.warn(
            f"{METRIC_INFO[metric].title} is undefined in {len(undefined)} of {len(values)} "
            f"groups: {join_names(undefined)}.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    defined = {name: value for name, value in values.items() if not math.isnan(value)}
    worst, gap = None, math.nan
    if defined:
        best_first = METRIC_INFO[metric].higher_is_better
        worst = (min if best_first else max)(defined, key=lambda name: defined[name])
        gap = max(defined.values()) - min(defined.values())
    return GroupMetric(
        metric, values, dict(zip(names.tolist(), n.tolist(), strict=True)), overall, worst, gap
    )


def _measuring(
    metric: str, convention: str
) -> Callable[[NDArray[Any], NDArray[np.bool_], NDArray[np.float64] | None], float]:
    if metric != "nll":
        return lambda score, right, weight: measure(metric, score, right, convention, weight)
    check_convention(convention, metric=metric)
    return lambda score, right, weight: nll(score, right, sample_weight=weight)


def _group_array(groups: ArrayLike, n: int) -> NDArray[Any]:
    """Return `(n,)` groups that can be put in order, none of them missing."""
    # Made of a list, an array of texts would have the text "nan" for what is missing.
    array = np.asarray(groups, dtype=None if hasattr(groups, "dtype") else object)
    if array.shape != (n,):
        raise InputError(
            f"Expected `groups` to have shape ({n},) like `confidence`, but got {array.shape}."
        )
    if array.dtype.kind == "O" and n:
        kinds = {type(group) for group in array}
        if len(kinds) == 1 and kinds <= {str, bool, int}:
            array = np.array(array.tolist())
    if n and array.dtype.kind not in "biuUS":
        raise InputError(
            "Expected `groups` to be all texts, all booleans or all whole numbers, but got dtype "
            f"{array.dtype}: give missing groups and numbers with fractions a name of their own."
        )
    return array
