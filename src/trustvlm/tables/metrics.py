"""The metrics as tables show them: titles, the paper's units, and what each one means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trustvlm.metrics import Evaluation
from trustvlm.metrics.info import METRIC_INFO, MetricInfo, names, unknown_error


@dataclass(frozen=True)
class MetricColumn(MetricInfo):
    """How tables show one metric."""

    @property
    def sign(self) -> str:
        """The unit it is shown in, with the sign of multiplication."""
        return self.unit if self.scale == 1 else self.unit.replace("x", "×")

    @property
    def short_title(self) -> str:
        """Its title where there is little room."""
        return "Acc." if self.name == "accuracy" else self.title

    def value(self, evaluation: Evaluation) -> float:
        """Return the metric in the shown unit; NaN where it is undefined."""
        return float(getattr(evaluation, self.name)) * self.scale

    def best(self, metrics: Mapping[str, Evaluation]) -> float:
        """Return the best value over all scores, in the shown unit.

        NaN if there is none that deserves the word: all are undefined, or all are equal.
        """
        values = [v for v in map(self.value, metrics.values()) if not math.isnan(v)]
        if len(set(values)) < 2:
            return math.nan
        return max(values) if self.higher_is_better else min(values)


class _MetricColumns(Mapping[str, MetricColumn]):
    """The columns of all metrics that there are now, registered ones last."""

    def __getitem__(self, name: str) -> MetricColumn:
        if name not in names():
            raise KeyError(name)
        return MetricColumn(**vars(METRIC_INFO[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


METRIC_COLUMNS = _MetricColumns()


def all_columns() -> tuple[MetricColumn, ...]:
    """Return the columns of every metric, registered ones last."""
    return tuple(METRIC_COLUMNS.values())


def narrow_columns() -> tuple[MetricColumn, ...]:
    """Return what fits a terminal of 80 columns, as long as few metrics are registered."""
    return tuple(column for column in all_columns() if not column.name.startswith("aupr"))


def number(value: float, digits: int = 2, *, undefined: str = "undefined") -> str:
    """Write a number with a fixed count of decimals, or say that there is none.

    Examples
    --------
    >>> number(59.128), number(float("nan"))
    ('59.13', 'undefined')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else undefined


def narrow_cells(evaluation: Evaluation) -> list[str]:
    """Write the metrics of `narrow_columns`, in the shown units; "-" where one is undefined."""
    return [number(column.value(evaluation), undefined="-") for column in narrow_columns()]


def by_aurc(metrics: Mapping[str, Evaluation]) -> list[str]:
    """Return the scores' names, lowest AURC first, undefined ones last, then by name."""
    aurc = {name: evaluation.aurc for name, evaluation in metrics.items()}
    return sorted(aurc, key=lambda name: (math.isnan(aurc[name]), np.nan_to_num(aurc[name]), name))


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
    for name in metrics:
        if name not in METRIC_COLUMNS:
            raise unknown_error(name, METRIC_COLUMNS, "metrics")
    return [METRIC_COLUMNS[name] for name in metrics]


def describe_unit(column: MetricColumn) -> str:
    """Say in which unit a metric is printed, and which end is good.

    Examples
    --------
    >>> describe_unit(METRIC_COLUMNS["aurc"]), describe_unit(METRIC_COLUMNS["auroc"])
    ('AURC ×1000, lower is better', 'AUROC in percent, higher is better')
    """
    unit = " in percent" if column.sign == "%" else f" {column.sign}".rstrip()
    return f"{column.title}{unit}, {'higher' if column.higher_is_better else 'lower'} is better"


def describe_units(columns: Sequence[MetricColumn]) -> str:
    """Say in which units several metrics are printed, and which end of each is good.

    Examples
    --------
    >>> describe_units(columns_of(["aurc", "auroc"]))
    'The AURC family is times 1000, the rest in percent; AURC is better low, the others high.'
    """
    lower = [column.title for column in columns if not column.higher_is_better]
    return (
        f"The AURC family is times 1000, {registered_units()}the rest in percent; "
        f"{', '.join(lower) or 'none'} "
        f"{'is' if len(lower) == 1 else 'are'} better low, the others high."
    )


def registered_units() -> str:
    """Name the units of registered metrics that are not in percent, for a list of units; or ""."""
    others = [column for column in all_columns() if column.function and column.scale != 100]
    return "".join(f"{c.title} {c.unit or 'as it is'}, " for c in others)


def label_axis(column: MetricColumn) -> str:
    """Name a metric and its unit, for an axis.

    Examples
    --------
    >>> label_axis(METRIC_COLUMNS["aurc"]), label_axis(METRIC_COLUMNS["auroc"])
    ('AURC (×1000)', 'AUROC (%)')
    """
    return f"{column.title} ({column.sign})" if column.sign else column.title
