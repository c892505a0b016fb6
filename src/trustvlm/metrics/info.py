"""The facts of each metric, once: title, unit, which end is good, what it needs; the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.plugins import Registry, describe_failures, from_where, load_installed, plugin_errors
from trustvlm.text import did_you_mean

# What a metric reads of the confidences.
NEEDS = ("order", "values", "probability")

Function = Callable[[NDArray[Any], NDArray[np.bool_]], float]


@dataclass(frozen=True)
class MetricInfo:
    """What is to be said of one metric.

    Attributes
    ----------
    name
        Its function in `trustvlm.metrics`, and for all but `nll` its attribute of
        `metrics.Evaluation`.
    title
        Its usual abbreviation.
    scale
        Factor to the unit it is printed in: 1000 for the AURC family, 100 for percent, 1 where it
        is printed as it is.
    higher_is_better
        Which end is good.
    meaning
        One sentence for readers who have not met the metric.
    needs
        What it reads of the confidences: their `order` alone, so that any monotone scale gives the
        same value; their `values`; or their values as the `probability` of being right.
    unit
        The unit it is printed in, in ASCII; by default that of the scale.
    bounds
        Least and largest value it can have.
    function
        Computes it, where it was registered; None for the metrics of this package.

    Examples
    --------
    >>> METRIC_INFO["auroc"].unit, METRIC_INFO["aurc"].unit
    ('%', 'x1000')
    """

    name: str
    title: str
    scale: int
    higher_is_better: bool
    meaning: str
    needs: str = "order"
    unit: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    function: Function | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Name the unit by the scale."""
        if not self.unit and self.scale != 1:
            unit = "%" if self.scale == 100 else f"x{self.scale}"
            object.__setattr__(self, "unit", unit)

    def of(self, confidence: NDArray[Any], correct: NDArray[np.bool_]) -> float:
        """Call a registered metric's function on sorted samples, and check what it gives.

        Raises
        ------
        PluginError
            If it fails.
        InputError
            If it gives anything but one number within its bounds, or NaN; any error of this package
            that it raises itself.
        """
        if not len(correct) or (self.needs == "probability" and not _in_unit_interval(confidence)):
            return math.nan
        assert self.function is not None  # noqa: S101 -- only those have one that were registered
        with plugin_errors(f"The metric `{self.name}`{from_where(self.function)} fails"):
            result: Any = self.function(confidence, correct)
            value = float(result) if np.ndim(result) == 0 else None
        low, high = self.bounds
        slack = 1e-9 * max([1.0, *(abs(end) for end in self.bounds if math.isfinite(end))])
        if value is None or math.isinf(value) or value < low - slack or value > high + slack:
            raise InputError(
                f"Expected the metric `{self.name}`{from_where(self.function)} to give one number "
                f"from {low:g} to {high:g}, its bounds, or NaN where it is undefined, but got "
                f"{result if value is not None else f'an array of shape {np.shape(result)}'}."
            )
        return min(max(value, low), high)  # NaN stays


def _in_unit_interval(confidence: NDArray[Any]) -> bool:
    return bool(np.min(confidence) >= 0 and np.max(confidence) <= 1)


METRIC_INFO: Registry[MetricInfo] = Registry("metric", lambda info: info.function)
"""Every metric by name, in the order of tables; those that were registered come last."""

for _info in (
    MetricInfo(
        "accuracy",
        "Accuracy",
        100,
        True,
        "Share of the images whose predicted label is right.",
    ),
    MetricInfo(
        "aurc",
        "AURC",
        1000,
        False,
        "Area under the risk-coverage curve: the share of wrong labels among the "
        "accepted images, averaged over every possible number of accepted images.",
    ),
    MetricInfo(
        "eaurc",
        "E-AURC",
        1000,
        False,
        "Excess AURC: what is left of the AURC when that of a perfect order (all right "
        "labels first) is subtracted, so that only the quality of the order counts.",
    ),
    MetricInfo(
        "augrc",
        "AUGRC",
        1000,
        False,
        "Area under the generalised risk-coverage curve: the share of all images that "
        "are accepted and wrong, averaged over every possible number of accepted images.",
    ),
    MetricInfo(
        "eaugrc",
        "E-AUGRC",
        1000,
        False,
        "Excess AUGRC: what is left of the AUGRC when that of a perfect order (all right "
        "labels first) is subtracted.",
    ),
    MetricInfo(
        "auroc",
        "AUROC",
        100,
        True,
        "How often a right prediction is trusted more than a wrong one, over all such "
        "pairs; 50 % is a coin toss.",
    ),
    MetricInfo(
        "fpr95",
        "FPR95",
        100,
        False,
        "Share of the wrong predictions that are still accepted when the threshold "
        "lets 95 % of the right ones through.",
    ),
    MetricInfo(
        "aupr_success",
        "AUPR-success",
        100,
        True,
        "Area under the precision-recall curve that looks for right predictions among "
        "the most trusted; its floor is the accuracy.",
    ),
    MetricInfo(
        "aupr_error",
        "AUPR-error",
        100,
        True,
        "Area under the precision-recall curve that looks for wrong predictions among "
        "the least trusted; its floor is the error rate.",
    ),
    MetricInfo(
        "nll",
        "NLL",
        1,
        False,
        "Negative log-likelihood (log loss) of the probabilities of being right: large where "
        "a label that is nearly certain turns out otherwise.",
        needs="probability",
        unit="nats",
        bounds=(0.0, math.inf),
    ),
):
    METRIC_INFO.add(_info.name, _info)

METRICS = tuple(name for name in METRIC_INFO if name not in ("eaugrc", "nll"))
"""The metrics of this package in tables and studies: those that both conventions define."""

# Registered metrics are columns of rows, attributes of `Evaluation` and names of files.
_TAKEN = (
    *("convention", "dataset", "draw", "error", "fingerprints", "n", "others", "parameters"),
    *("prompt", "protocol", "score", "selection", "shots", "to_dict", "versions", "vision", "vlm"),
)


def register(
    name: str,
    *,
    title: str,
    higher_is_better: bool,
    meaning: str,
    unit: str = "%",
    needs: str = "order",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Function], Function]:
    """Register a metric: a function of `(confidence, correct)` that returns one number.

    It is then computed by `evaluate`, `compute`, `bootstrap`, `paired_bootstrap` and `by_group`,
    and is a column of every table, figure and row of evaluations and studies. In both conventions
    it has the same value.

    The function gets n > 0 samples sorted by descending confidence, tied ones in input order:
    confidences `(n,)` in the type they came in, and correct `(n,)` bool. It returns a number within
    `bounds`, or NaN where it is undefined. Intervals and tests call it on each of 2000 resamples,
    in which samples occur several times.

    Parameters
    ----------
    name
        A Python name, for rows and attributes.
    title
        Heading of its columns.
    higher_is_better
        Which end is good.
    meaning
        One sentence for readers who have not met it.
    unit
        What it is printed in: `%` is times 100, `x1000` times 1000; any other text, or "", is
        written after the number's title and changes no number.
    needs
        `order`, `values` or `probability`, as `MetricInfo.needs`. A metric that needs probabilities
        is NaN, undefined, for confidences outside [0, 1].
    bounds
        Least and largest value; infinite where there is none.

    Raises
    ------
    InputError
        If the name is taken or is none, or another fact makes no sense.

    Examples
    --------
    >>> from trustvlm import metrics
    >>> @metrics.register("top_half", title="Top half", higher_is_better=True,
    ...                   meaning="Accuracy of the more trusted half.")
    ... def top_half(confidence, correct):
    ...     return correct[: (len(correct) + 1) // 2].mean()
    >>> metrics.evaluate([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0]).top_half
    0.5
    >>> metrics.unregister("top_half")
    """
    if not name.isidentifier() or name.startswith("_") or name in _TAKEN:
        raise InputError(
            f"Expected a metric to have a Python name that rows do not use yet, but got {name!r}."
        )
    if needs not in NEEDS:
        raise InputError(f"Expected `needs` among {', '.join(NEEDS)}, but got {needs!r}.")
    low, high = bounds
    if not low < high:
        raise InputError(f"Expected `bounds` to be two numbers, ascending, but got {bounds!r}.")
    if not title.strip() or not meaning.strip():
        raise InputError(f"Expected the metric `{name}` to have a title and a meaning.")
    scale = {"%": 100, "x1000": 1000}.get(unit, 1)

    def decorate(function: Function) -> Function:
        info = MetricInfo(
            name, title, scale, higher_is_better, meaning, needs, unit, (low, high), function
        )
        METRIC_INFO.add(name, info)
        return function

    return decorate


def unregister(name: str) -> None:
    """Take a registered metric out of the registry; `InputError` for any other name."""
    if get(name).function is None:
        raise InputError(f"The metric `{name}` is one of this package and stays.")
    del METRIC_INFO[name]


def names() -> dict[str, str]:
    """Return every metric of tables and studies, and what it needs of the confidences.

    Examples
    --------
    >>> names()["aurc"]
    'order'
    """
    return {
        name: info.needs
        for name, info in METRIC_INFO.items()
        if name in METRICS or info.function is not None
    }


def get(name: str) -> MetricInfo:
    """Return the facts of a metric; for a name that is none, installed packages are loaded.

    Raises
    ------
    InputError
        If there is none of that name; the message suggests near ones.
    """
    if name not in METRIC_INFO:
        load_installed()
    if name not in METRIC_INFO:
        raise unknown_error(name, METRIC_INFO, "metric")
    return METRIC_INFO[name]


def unknown_error(name: object, among: Collection[str], argument: str) -> InputError:
    """Build the error for a metric that is not among these; it suggests near names."""
    hint = did_you_mean(str(name), among)
    return InputError(
        f"Expected `{argument}` to be among {', '.join(among)}, but got {name!r}"
        + (f"; {hint}" if hint else ".")
        + describe_failures()
    )
