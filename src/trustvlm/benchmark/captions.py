"""Sentences about results: what numbers rest on, and what tests of ranks say."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.results import Row, RowSet
from trustvlm.benchmark.statistics import RankComparison
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
