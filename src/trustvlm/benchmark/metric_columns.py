"""The metrics that a paper prints, in its units."""

from __future__ import annotations

from collections.abc import Sequence

from trustvlm.exceptions import InputError
from trustvlm.report.columns import COLUMNS, MetricColumn

__all__ = ["METRIC_COLUMNS", "axis_words", "columns_of", "unit_words", "units_words"]

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
