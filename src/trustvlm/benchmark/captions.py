"""Sentences about results: what numbers rest on, what tables mark, findings and cautions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.results import Results, Row, RowSet
from trustvlm.benchmark.statistics import RankComparison
from trustvlm.tables.metrics import METRIC_COLUMNS, number
from trustvlm.text import counted, join_names

_CONVENTIONS = {
    "exact": "ties count with their expected value",
    "trustvlm": "the rules of the paper's released script",
}


def describe_basis(rows: Iterable[Row], convention: str) -> str:
    """Say what the numbers of some rows rest on; for captions.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "n": 50}
    >>> rows = [{**about, "dataset": d, "draw": i} for d in ("pets", "cars") for i in (0, 1)]
    >>> describe_basis(rows, "exact").partition(" Convention")[0]
    '16 shots per class; 2 draws of the shots; 2 data sets with 50 test images each.'
    """
    about = RowSet(list(rows))
    shots, draws = about.shots, about.draws
    parts = [
        f"{join_names([f'{n:,}' for n in shots])} shot{'' if shots == (1,) else 's'} per class",
        f"draw {draws[0]} of the shots"
        if len(draws) == 1
        else f"{counted(len(draws), 'draw')} of the shots",
        _describe_images(about),
    ]
    return f"{'; '.join(filter(None, parts))}. {describe_convention(convention)}"


def describe_convention(convention: str) -> str:
    """Name the convention of the metrics, and what it means.

    Examples
    --------
    >>> describe_convention("exact")
    'Convention exact: ties count with their expected value.'
    """
    return f"Convention {convention}: {_CONVENTIONS[convention]}."


def _describe_images(rows: RowSet) -> str:
    sizes = [size for size in rows.sizes.values() if size]
    sets = counted(len(rows.sizes), "data set")
    if not sizes:
        return sets
    if min(sizes) == max(sizes):
        each = "" if len(sizes) == 1 else " each"
        return f"{sets} with {counted(sizes[0], 'test image')}{each}"
    return f"{sets} with {min(sizes):,} to {max(sizes):,} test images each, {sum(sizes):,} in all"


# Sentences that captions are made of: units, counts, conventions, tests.


def describe_results(
    analysis: Analysis, *, every_shot: bool = False, draw: int | None = None
) -> str:
    """Say what a figure rests on: by default the most shots and every draw."""
    results = analysis.results
    rows = [
        row
        for row in results.rows
        if (every_shot or row["shots"] == results.largest) and draw in (None, row["draw"])
    ]
    return describe_basis(rows, results.convention)


def describe_mean(analysis: Analysis, metric: str) -> str:
    """Say what means and ranks are over, and what they leave out."""
    ranks = analysis.ranks[metric]
    sentences = [
        f"Mean and rank (1 is best) are over {describe_units_of_ranks(ranks)}, which count alike."
    ]
    for kind, left_out in (
        ("test sets", ranks.left_out_datasets),
        ("scores", ranks.left_out_scores),
    ):
        if left_out:
            sentences.append(f"Without these {kind}, which lack values: {', '.join(left_out)}.")
    return " ".join(sentences)


def describe_units_of_ranks(ranks: RankComparison) -> str:
    """Count the data sets that ranks are over, and say how test sets of one data set count."""
    sets = counted(len(ranks.units), "data set")
    if len(ranks.datasets) == len(ranks.units):
        return sets
    return (
        f"{sets} (of {counted(len(ranks.datasets), 'test set')}, those of one data set averaged "
        "first, as they share their shots)"
    )


def describe_ranks(ranks: RankComparison) -> str:
    """Say whether ranks differ at all, and what may be read from their differences."""
    if math.isnan(ranks.f_p_value):
        return (
            "Too few scores or data sets for a test of the ranks: "
            f"{counted(len(ranks.scores), 'score')}, {counted(len(ranks.units), 'data set')}."
        )
    p = probability(ranks.f_p_value)
    if not ranks.rejected:
        return (
            f"Friedman's test finds no difference between the scores (p {p}): "
            "no score may be called better than another by its rank."
        )
    return (
        f"Friedman's test finds that ranks differ (p {p}); two ranks can be told apart if they "
        f"differ by {ranks.critical_difference:.2f} or more (Nemenyi, {ranks.alpha:g})."
    )


def probability(p: float) -> str:
    """Write a p-value after an equals or a less-than sign.

    Examples
    --------
    >>> probability(0.0312), probability(1e-9)
    ('= 0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


# A study in sentences: its findings, and what to keep in mind.

_FEW, _LISTED = 100, 12


def findings(analysis: Analysis, metric: str) -> list[str]:
    """Return the findings by one metric, in a few sentences that the tests support."""
    column, ranks = METRIC_COLUMNS[metric], analysis.ranks[metric]
    ranked = [score for score in analysis.ordered(metric) if score in ranks.scores]
    sentences = []
    if len(ranked) > 1 and len(ranks.units) > 1:
        first, second = ranked[:2]
        sentences.append(
            f"By {column.title}, {first} has the best average rank of "
            f"{counted(len(ranked), 'score')} over {describe_units_of_ranks(ranks)}: "
            f"{ranks.rank_of(first):.2f}; next is {second} with {ranks.rank_of(second):.2f}. "
            f"{describe_ranks(ranks)}"
        )
    elif ranked:
        value = column.scale * analysis.mean(metric, ranked[0]).mean
        sentences.append(
            f"The best {column.title} is that of {ranked[0]}, {number(value)}; the table says "
            "whether it can be told apart from the next."
        )
    sentences += _against_msp(analysis, metric)
    return sentences


def cautions(results: Results) -> list[str]:
    """Return what limits the conclusions: few images, few draws, failures, missing samples."""
    sentences = []
    few = [name for name, size in results.sizes.items() if 0 < size < _FEW]
    if few:
        sentences.append(
            f"{counted(len(few), 'data set has', 'data sets have')} fewer than {_FEW} test images: "
            f"{_first_names(few)}. Their numbers are rough."
        )
    if len(results.draws) < 2 and results.rows:
        sentences.append(
            "There is one draw of the shots: how far the numbers depend on which images were "
            "drawn is not known."
        )
    failed = len(results.failures)
    if failed:
        sentences.append(
            f"{counted(failed, 'cell')} of the study failed: see below. What failed counts as "
            "undefined."
        )
    untested = [
        setting.label or "unnamed models"
        for setting in results.settings
        if not results.of(setting).samples
    ]
    if untested:
        sentences.append(
            f"Without samples no test was made, and nothing is marked: {_first_names(untested)}."
        )
    return sentences


def _against_msp(analysis: Analysis, metric: str) -> list[str]:
    reference, column = analysis.results.reference, METRIC_COLUMNS[metric]
    comparisons = [
        c
        for c in analysis.comparisons
        if (c.score, c.metric) == ("msp", metric) and not math.isnan(c.p_holm)
    ]
    if not comparisons:
        return []
    # The comparison is MSP less the reference.
    sign = -1 if column.higher_is_better else 1
    sets = counted(len(comparisons), "data set")
    better = sum(c.significant and sign * c.difference > 0 for c in comparisons)
    worse = sum(c.significant and sign * c.difference < 0 for c in comparisons)
    return [
        f"Against the text alone (msp), the {column.title} of {reference} is significantly better "
        f"on {better} and worse on {worse} of {sets} (draw 0, Holm's correction over scores)."
    ]


def _first_names(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
