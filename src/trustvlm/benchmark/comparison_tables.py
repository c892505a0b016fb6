"""Tables of what the tests say: differences to the reference, and ranks."""

from __future__ import annotations

import math
from collections import Counter

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import friedman_words, shots_words, study_words
from trustvlm.benchmark.comparisons import Comparison
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS, columns_of, unit_words
from trustvlm.benchmark.score_tables import by_group, line
from trustvlm.benchmark.table import UNDEFINED, Cell, Head, Table, rank_cell, signed, slug

__all__ = ["difference_table", "rank_table", "tally_table"]


def tally_table(analysis: Analysis) -> Table:
    """On how many data sets each score is better than the reference, even, or worse."""
    reference = analysis.results.reference
    names, breaks = by_group(tuple(s for s in analysis.results.scores if s != reference))
    columns = columns_of(analysis.metrics)
    lines = []
    for score in names:
        cells = []
        for column in columns:
            found = [c for c in analysis.comparisons if (c.score, c.metric) == (score, column.key)]
            verdicts = Counter(_verdict(c, column.higher_is_better) for c in found)
            better, even, worse = (verdicts[key] for key in ("better", "even", "worse"))
            if better + even + worse:
                cells.append(Cell(f"{better} / {even} / {worse}", value=float(better - worse)))
            else:
                cells.append(Cell(UNDEFINED))
        lines.append(line(analysis, score, cells))
    return Table(
        name="against-reference",
        title=f"Every score against {reference}",
        caption=f"Number of data sets on which a score is better than {reference} / cannot be told "
        f"apart from it / is worse; {shots_words(analysis)}, draw 0. {_test_words(analysis)}",
        heads=(Head("Score"), *(Head(column.title, falling=True) for column in columns)),
        lines=tuple(lines),
        breaks=breaks,
    )


def difference_table(analysis: Analysis, metric: str) -> Table:
    """Difference of every score to the reference on every data set, with its interval."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    found = {(c.dataset, c.score): c for c in analysis.comparisons if c.metric == metric}
    names, breaks = by_group(tuple(s for s in results.scores if s != results.reference))
    lines = [
        line(
            analysis,
            score,
            [
                _difference(found.get((dataset, score)), column.scale)
                for dataset in results.datasets
            ],
        )
        for score in names
    ]
    return Table(
        name=f"difference-{slug(metric)}",
        title=f"{column.title}: difference to {results.reference}",
        caption=f"Score less {results.reference}, {unit_words(column)}: "
        f"{'positive' if column.higher_is_better else 'negative'} says that the score is better; "
        f"{shots_words(analysis)}, draw 0. In brackets the {100 * analysis.level:g} % interval of "
        f"each difference alone. *: significant. {_test_words(analysis)}",
        heads=(
            Head("Score"),
            *(Head(d, falling=column.higher_is_better) for d in results.datasets),
        ),
        lines=tuple(lines),
        breaks=breaks,
    )


def rank_table(analysis: Analysis) -> Table:
    """Average rank of every score by every metric."""
    columns = columns_of(analysis.metrics)
    names, breaks = by_group(analysis.results.scores)
    lines = [
        line(analysis, score, [rank_cell(analysis.ranks[c.key].rank_of(score)) for c in columns])
        for score in names
    ]
    tests: dict[str, list[str]] = {}
    for column in columns:
        tests.setdefault(friedman_words(analysis.ranks[column.key]), []).append(column.title)
    told = (f"{', '.join(titles)}: {words}" for words, titles in tests.items())
    return Table(
        name="ranks",
        title="Average ranks",
        caption=f"Average rank over data sets, 1 is best, of {study_words(analysis)}; "
        f"{shots_words(analysis)}, means over draws. Data sets are taken to be independent of one "
        f"another. {' '.join(told)}",
        heads=(Head("Score"), *(Head(column.title) for column in columns)),
        lines=tuple(lines),
        breaks=breaks,
    )


def _verdict(found: Comparison, higher_is_better: bool) -> str:
    if math.isnan(found.p_holm):
        return "undefined"
    if not found.significant:
        return "even"
    return "better" if (found.difference > 0) == higher_is_better else "worse"


def _test_words(analysis: Analysis) -> str:
    return (
        f"Paired bootstrap over images ({analysis.n_resamples:,} resamples, convention exact), "
        f"Holm's correction over the scores of a data set, {1 - analysis.level:.3g}."
    )


def _difference(found: Comparison | None, scale: float) -> Cell:
    if found is None or math.isnan(found.difference):
        return Cell(UNDEFINED)
    return Cell(
        signed(scale * found.difference, star=found.significant),
        f"[{signed(scale * found.low)}, {signed(scale * found.high)}]",
        value=scale * found.difference,
    )
