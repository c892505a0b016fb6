"""The metrics as tables show them: titles, the paper's units, and what each one means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trustvlm.exceptions import InputError
from trustvlm.metrics import Evaluation
from trustvlm.metrics.info import METRIC_INFO


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


COLUMNS = tuple(
    MetricColumn(info.name, info.title, info.scale, info.higher_is_better, info.meaning)
    for info in METRIC_INFO.values()
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


# The metrics that a paper prints, in its units.

METRIC_COLUMNS: dict[str, MetricColumn] = {column.key: column for column in COLUMNS}


def columns_of(metrics: Sequence[str]) -> list[MetricColumn]:
    """Return how these metrics are shown.

    Raises
    ------
    InputError
        For a metric that does not exist.

    Examples
    --------
    >>> [column.title for column in columns_of(["aurc", "fpr95"])]
    ['AURC', 'FPR95']
    """
    unknown = [name for name in metrics if name not in METRIC_COLUMNS]
    if unknown:
        raise InputError(
            f"Expected metrics among {', '.join(METRIC_COLUMNS)}, but got {unknown[0]!r}."
        )
    return [METRIC_COLUMNS[name] for name in metrics]


def unit_words(column: MetricColumn) -> str:
    """Say in which unit a metric is printed, and which end is good.

    Examples
    --------
    >>> unit_words(METRIC_COLUMNS["aurc"]), unit_words(METRIC_COLUMNS["auroc"])
    ('AURC ×1000, lower is better', 'AUROC in percent, higher is better')
    """
    unit = "in percent" if column.scale == 100 else f"×{column.scale}"
    return f"{column.title} {unit}, {'higher' if column.higher_is_better else 'lower'} is better"


def units_words(columns: Sequence[MetricColumn]) -> str:
    """Say in which units several metrics are printed, and which end of each is good.

    Examples
    --------
    >>> units_words(columns_of(["aurc", "auroc"]))
    'The AURC family is times 1000, the rest in percent; AURC is better low, the others high.'
    """
    lower = [column.title for column in columns if not column.higher_is_better]
    return (
        f"The AURC family is times 1000, the rest in percent; {', '.join(lower) or 'none'} "
        f"{'is' if len(lower) == 1 else 'are'} better low, the others high."
    )


def axis_words(column: MetricColumn) -> str:
    """Name a metric and its unit, for an axis.

    Examples
    --------
    >>> axis_words(METRIC_COLUMNS["aurc"]), axis_words(METRIC_COLUMNS["auroc"])
    ('AURC (×1000)', 'AUROC (%)')
    """
    return f"{column.title} ({'%' if column.scale == 100 else f'×{column.scale}'})"
