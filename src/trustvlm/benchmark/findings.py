"""A study in sentences: what was found, and what to keep in mind."""

from __future__ import annotations

import math

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import friedman_words
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.results import Results
from trustvlm.report.columns import number
from trustvlm.report.wording import counted

__all__ = ["cautions", "findings"]

_FEW, _LISTED = 100, 12


def findings(analysis: Analysis, metric: str) -> list[str]:
    """Return what the study found by one metric, in a few sentences that the tests support."""
    column, ranks = METRIC_COLUMNS[metric], analysis.ranks[metric]
    ranked = [score for score in analysis.ordered(metric) if score in ranks.scores]
    sentences = []
    if len(ranked) > 1 and len(ranks.datasets) > 1:
        first, second = ranked[:2]
        sentences.append(
            f"By {column.title}, {first} has the best average rank of "
            f"{counted(len(ranked), 'score')} over {counted(len(ranks.datasets), 'data set')}: "
            f"{ranks.rank_of(first):.2f}; next is {second} with {ranks.rank_of(second):.2f}. "
            f"{friedman_words(ranks)}"
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
    words = []
    few = [name for name in results.datasets if 0 < results.images(name) < _FEW]
    if few:
        words.append(
            f"{counted(len(few), 'data set has', 'data sets have')} fewer than {_FEW} test images: "
            f"{_listed(few)}. Their numbers are rough."
        )
    if len(results.draws) < 2 and results.rows:
        words.append(
            "There is one draw of the shots: how far the numbers depend on which images were "
            "drawn is not known."
        )
    failed = len(results.failures)
    if failed:
        words.append(
            f"{counted(failed, 'cell')} of the study failed: see below. What failed counts as "
            "undefined."
        )
    untested = [
        setting.label or "unnamed models"
        for setting in results.settings
        if not results.of(setting).samples
    ]
    if untested:
        words.append(
            f"Without samples no test was made, and nothing is marked: {_listed(untested)}."
        )
    return words


def _against_msp(analysis: Analysis, metric: str) -> list[str]:
    reference, column = analysis.results.reference, METRIC_COLUMNS[metric]
    found = [
        c
        for c in analysis.comparisons
        if (c.score, c.metric) == ("msp", metric) and not math.isnan(c.p_holm)
    ]
    if not found:
        return []
    # The comparison is MSP less the reference.
    sign = -1 if column.higher_is_better else 1
    better = sum(c.significant and sign * c.difference > 0 for c in found)
    worse = sum(c.significant and sign * c.difference < 0 for c in found)
    return [
        f"Against the text alone (msp), the {column.title} of {reference} is significantly better "
        f"on {better} and worse on {worse} of {counted(len(found), 'data set')} (draw 0, Holm's "
        "correction over scores)."
    ]


def _listed(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
