"""Sentences that captions are made of: units, counts, conventions, tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trustvlm import scores as registry
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.basis import basis_words, convention_sentence
from trustvlm.benchmark.ranks import RankComparison
from trustvlm.benchmark.results import value_of
from trustvlm.benchmark.table import Marking
from trustvlm.report.wording import counted

__all__ = [
    "capitalised",
    "convention_words",
    "figure_words",
    "friedman_words",
    "marking",
    "mean_words",
    "probability",
    "shots_words",
    "small_print",
    "spread_words",
    "study_words",
]


def capitalised(text: str) -> str:
    """Return text with a capital first letter, the rest as it is.

    Examples
    --------
    >>> capitalised("of CLIP")
    'Of CLIP'
    """
    return text[:1].upper() + text[1:]


def study_words(analysis: Analysis) -> str:
    """Count scores and data sets, such as `24 scores on 9 data sets`."""
    results = analysis.results
    return (
        f"{counted(len(results.scores), 'score')} on {counted(len(results.datasets), 'data set')}"
    )


def shots_words(analysis: Analysis) -> str:
    """Say how many shots a table is about."""
    return counted(analysis.results.largest, "shot") + " per class"


def figure_words(analysis: Analysis, *, every_shot: bool = False, draw: int | None = None) -> str:
    """Say what a figure rests on: by default the most shots and every draw."""
    results = analysis.results
    rows = [
        row
        for row in results.rows
        if (every_shot or row["shots"] == results.largest) and draw in (None, row["draw"])
    ]
    return basis_words(rows, results.convention)


def convention_words(analysis: Analysis) -> str:
    """Name the convention of the metrics, and what it means."""
    return convention_sentence(analysis.results.convention)


def spread_words(analysis: Analysis, *, largest_only: bool = True) -> str:
    """Say what ± means; empty if there is one draw."""
    results = analysis.results
    draws = {
        row["draw"] for row in results.rows if row["shots"] == results.largest or not largest_only
    }
    if len(draws) < 2:
        return "One draw of the shots: no spread over draws is known."
    return (
        f"Mean ± standard deviation over {len(draws)} draws of the shots; "
        "without ± where all draws agree."
    )


def mean_words(analysis: Analysis, metric: str) -> str:
    """Say what means and ranks are over, and what they leave out."""
    ranks = analysis.ranks[metric]
    words = [
        f"Mean and rank (1 is best) are over {counted(len(ranks.datasets), 'data set')}, "
        "which count alike."
    ]
    for kind, left_out in (
        ("data sets", ranks.left_out_datasets),
        ("scores", ranks.left_out_scores),
    ):
        if left_out:
            words.append(f"Without these {kind}, which lack values: {', '.join(left_out)}.")
    return " ".join(words)


def small_print(analysis: Analysis, metrics: Sequence[str], dataset: str = "") -> str:
    """Name the convention, and explain the signs that the table has."""
    results = analysis.results
    rows = [row for row in results.rows if dataset in ("", row["dataset"])]
    undefined = any(math.isnan(value_of(row, m)) for row in rows for m in metrics)
    corrects = any(s in registry.names() and registry.get(s).corrects for s in results.scores)
    failed = sum(bool(row.get("error")) for row in rows)
    words = [
        convention_words(analysis),
        "†: may change the predicted label; measures of the order alone (AUROC, FPR95, E-AURC, "
        "AUPR) then judge other labels than those of the scores without †."
        if corrects
        else "",
        "–: undefined, as where all labels are right; (k/n): defined in k of n draws."
        if undefined
        else "",
        f"{counted(failed, 'cell')} failed and {'is' if failed == 1 else 'are'} listed apart."
        if failed
        else "",
    ]
    return " ".join(filter(None, words))


def marking(analysis: Analysis, where: str) -> Marking | None:
    """Say what the marks mean and how they are tested; None where no test was possible."""
    if not analysis.resampled:
        return None
    convention = "" if analysis.results.convention == "exact" else ", in convention exact"
    return Marking(
        best=f"better than every other score {where}",
        second="better than every other but one",
        test=f"Marks are given by test only: the paired bootstrap over images "
        f"({100 * analysis.level:g} %, {analysis.n_resamples:,} resamples, draw 0{convention}) "
        "must leave out zero. It is not corrected for the number of scores.",
    )


def friedman_words(ranks: RankComparison) -> str:
    """Say whether ranks differ at all, and what may be read from their differences."""
    if math.isnan(ranks.f_p_value):
        return "Too few scores or data sets for a test of the ranks."
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
