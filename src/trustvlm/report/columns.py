"""The metrics as tables show them: titles, the paper's units, and what each one means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trustvlm.metrics import Evaluation

__all__ = ["COLUMNS", "NARROW_COLUMNS", "MetricColumn", "by_aurc", "number"]


@dataclass(frozen=True)
class MetricColumn:
    """How one metric is shown.

    Attributes
    ----------
    key
        Name of the attribute of `metrics.Evaluation`.
    title
        Its usual abbreviation.
    scale
        Factor from a fraction to the shown unit: 1000 for the AURC family, 100 for percent.
    higher_is_better
        Which end is good.
    meaning
        One sentence for readers who have not met the metric.
    """

    key: str
    title: str
    scale: int
    higher_is_better: bool
    meaning: str

    @property
    def unit(self) -> str:
        """The shown unit, in ASCII."""
        return "%" if self.scale == 100 else f"x{self.scale}"

    def value(self, evaluation: Evaluation) -> float:
        """Return the metric in the shown unit; NaN where it is undefined."""
        return float(getattr(evaluation, self.key)) * self.scale

    def best(self, metrics: Mapping[str, Evaluation]) -> float:
        """Return the best value over all scores, in the shown unit.

        NaN if there is none that deserves the word: all are undefined, or all are equal.
        """
        values = [v for v in map(self.value, metrics.values()) if not math.isnan(v)]
        if len(set(values)) < 2:
            return math.nan
        return max(values) if self.higher_is_better else min(values)


COLUMNS = (
    MetricColumn(
        "accuracy", "Accuracy", 100, True, "Share of the images whose predicted label is right."
    ),
    MetricColumn(
        "aurc",
        "AURC",
        1000,
        False,
        "Area under the risk-coverage curve: the share of wrong labels among the accepted images, "
        "averaged over every possible number of accepted images.",
    ),
    MetricColumn(
        "eaurc",
        "E-AURC",
        1000,
        False,
        "Excess AURC: what is left of the AURC when that of a perfect order (all right labels "
        "first) is subtracted, so that only the quality of the order counts.",
    ),
    MetricColumn(
        "augrc",
        "AUGRC",
        1000,
        False,
        "Area under the generalised risk-coverage curve: the share of all images that are "
        "accepted and wrong, averaged over every possible number of accepted images.",
    ),
    MetricColumn(
        "auroc",
        "AUROC",
        100,
        True,
        "How often a right prediction is trusted more than a wrong one, over all such pairs; "
        "50 % is a coin toss.",
    ),
    MetricColumn(
        "fpr95",
        "FPR95",
        100,
        False,
        "Share of the wrong predictions that are still accepted when the threshold lets 95 % of "
        "the right ones through.",
    ),
    MetricColumn(
        "aupr_success",
        "AUPR-success",
        100,
        True,
        "Area under the precision-recall curve that looks for right predictions among the "
        "most trusted; its floor is the accuracy.",
    ),
    MetricColumn(
        "aupr_error",
        "AUPR-error",
        100,
        True,
        "Area under the precision-recall curve that looks for wrong predictions among the "
        "least trusted; its floor is the error rate.",
    ),
)
# What fits a terminal of 80 columns.
NARROW_COLUMNS = tuple(column for column in COLUMNS if not column.key.startswith("aupr"))


def number(value: float, digits: int = 2, *, undefined: str = "undefined") -> str:
    """Write a number with a fixed count of decimals, or say that there is none.

    Examples
    --------
    >>> number(59.128), number(float("nan"))
    ('59.13', 'undefined')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else undefined


def by_aurc(metrics: Mapping[str, Evaluation]) -> list[str]:
    """Return the scores' names, lowest AURC first, undefined ones last, then by name."""

    def key(name: str) -> tuple[bool, float, str]:
        aurc = metrics[name].aurc
        return (math.isnan(aurc), 0.0 if math.isnan(aurc) else aurc, name)

    return sorted(metrics, key=key)
