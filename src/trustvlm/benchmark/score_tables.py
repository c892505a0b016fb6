"""Tables of metrics: by data set, by metric, and by number of shots."""

from __future__ import annotations

import math

from trustvlm import scores as registry
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import (
    capitalised,
    marking,
    mean_words,
    shots_words,
    small_print,
    spread_words,
    study_words,
)
from trustvlm.benchmark.marks import Mark
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, columns_of, unit_words, units_words
from trustvlm.benchmark.table import (
    Cell,
    Head,
    Line,
    Table,
    rank_cell,
    slug,
    spread_cell,
)
from trustvlm.report.wording import counted

__all__ = ["by_group", "dataset_table", "line", "metric_table", "overview_table", "shots_table"]


def overview_table(analysis: Analysis, rank_by: str) -> Table:
    """Every metric of every score, as means over the data sets, and the rank by one of them."""
    results, columns = analysis.results, columns_of(analysis.metrics)
    names, breaks = by_group(results.scores)
    lines = [
        line(
            analysis,
            score,
            [
                *(spread_cell(analysis.mean(c.key, score), c.scale) for c in columns),
                rank_cell(analysis.ranks[rank_by].rank_of(score)),
            ],
        )
        for score in names
    ]
    caption = [
        f"Means over data sets, of {study_words(analysis)}; {shots_words(analysis)}. "
        f"{units_words(columns)} The rank is by {METRIC_COLUMNS[rank_by].title}.",
        spread_words(analysis),
        mean_words(analysis, rank_by),
        "Nothing is marked here: tests are made on each data set, and of ranks.",
        small_print(analysis, analysis.metrics),
    ]
    return Table(
        name="overview",
        title="Every metric at a glance",
        caption=" ".join(filter(None, caption)),
        heads=(
            Head("Score"),
            *(
                Head(c.title, "%" if c.scale == 100 else f"×{c.scale}", c.higher_is_better)
                for c in columns
            ),
            Head("Rank"),
        ),
        lines=tuple(lines),
        breaks=breaks,
    )


def metric_table(analysis: Analysis, metric: str) -> Table:
    """One metric of every score on every data set, with the mean and the average rank."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    marks = {dataset: analysis.marks(metric, dataset) for dataset in results.datasets}
    several = len(results.datasets) > 1
    heads = [Head("Score"), *(Head(d, falling=column.higher_is_better) for d in results.datasets)]
    if several:
        heads += [Head("Mean", falling=column.higher_is_better), Head("Rank")]
    names, breaks = by_group(results.scores)
    lines = []
    for score in names:
        cells = [
            _cell(analysis, metric, d, score, results.largest, marks[d]) for d in results.datasets
        ]
        if several:
            cells.append(spread_cell(analysis.mean(metric, score), column.scale))
            cells.append(rank_cell(analysis.ranks[metric].rank_of(score)))
        lines.append(line(analysis, score, cells))
    caption = [
        f"{capitalised(unit_words(column))}, of {study_words(analysis)}; {shots_words(analysis)}.",
        spread_words(analysis),
        mean_words(analysis, metric) if several else "",
        small_print(analysis, [metric]),
    ]
    return Table(
        name=slug(metric),
        title=f"{column.title} of every score",
        caption=" ".join(filter(None, caption)),
        heads=tuple(heads),
        lines=tuple(lines),
        marking=marking(analysis, "on that data set"),
        breaks=breaks,
    )


def dataset_table(analysis: Analysis, dataset: str) -> Table:
    """Every metric of every score on one data set."""
    results, columns = analysis.results, columns_of(analysis.metrics)
    marks = {column.key: analysis.marks(column.key, dataset) for column in columns}
    names, breaks = by_group(results.scores)
    lines = [
        line(
            analysis,
            score,
            [
                _cell(analysis, c.key, dataset, score, results.largest, marks[c.key])
                for c in columns
            ],
        )
        for score in names
    ]
    images = results.images(dataset)
    told = f" ({counted(images, 'image')})" if images else ""
    caption = [
        f"Every metric on {dataset}{told}; {shots_words(analysis)}. {units_words(columns)}",
        spread_words(analysis),
        small_print(analysis, analysis.metrics, dataset),
    ]
    return Table(
        name=f"dataset-{slug(dataset)}",
        title=dataset,
        caption=" ".join(filter(None, caption)),
        heads=(
            Head("Score"),
            *(
                Head(c.title, "%" if c.scale == 100 else f"×{c.scale}", c.higher_is_better)
                for c in columns
            ),
        ),
        lines=tuple(lines),
        marking=marking(analysis, "by that metric"),
        breaks=breaks,
    )


def shots_table(analysis: Analysis, metric: str) -> Table:
    """One metric of every score at every number of shots, as mean over the data sets."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    names, breaks = by_group(results.scores)
    lines = [
        line(
            analysis,
            score,
            [
                spread_cell(analysis.mean(metric, score, shots), column.scale)
                for shots in results.shots
            ],
        )
        for score in names
    ]
    caption = [
        f"{capitalised(unit_words(column))}, by shots per class: mean over data sets.",
        spread_words(analysis, largest_only=False),
        mean_words(analysis, metric),
        small_print(analysis, [metric]),
    ]
    return Table(
        name=f"shots-{slug(metric)}",
        title=f"{column.title} by shots",
        caption=" ".join(filter(None, caption)),
        heads=(
            Head("Score"),
            *(Head(str(s), "shots", column.higher_is_better) for s in results.shots),
        ),
        lines=tuple(lines),
        breaks=breaks,
    )


def by_group(names: tuple[str, ...]) -> tuple[list[str], tuple[int, ...]]:
    """Put scores of the logits alone first; return also where the others begin.

    Examples
    --------
    >>> by_group(("trustvlm", "msp", "own"))
    (['msp', 'trustvlm', 'own'], (1,))
    """
    known = registry.names()
    alone = [name for name in names if known.get(name) == ("logits",)]
    others = [name for name in names if name not in alone]
    return [*alone, *others], (len(alone),) if alone and others else ()


def line(analysis: Analysis, score: str, cells: list[Cell]) -> Line:
    """Return a score's line, told apart if it is the reference or may change labels."""
    corrects = score in registry.names() and registry.get(score).corrects
    own = score == analysis.results.reference
    return Line(score, tuple(cells), own=own, dagger=corrects)


def _cell(
    analysis: Analysis, metric: str, dataset: str, score: str, shots: int, marks: dict[str, Mark]
) -> Cell:
    found = analysis.spread(metric, dataset, score, shots)
    failed = math.isnan(found.mean) and any(
        row["dataset"] == dataset and row.get("error")
        for row in analysis.results.by_score.get((score, shots), [])
    )
    return spread_cell(found, METRIC_COLUMNS[metric].scale, marks.get(score, ""), failed=failed)
