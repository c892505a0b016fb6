"""Sentences about results: what numbers rest on, what tables mark, findings and cautions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trustvlm import scores as registry
from trustvlm._version import __version__
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.results import Results, Row, value_of
from trustvlm.benchmark.statistics import RankComparison
from trustvlm.tables.metrics import METRIC_COLUMNS, number
from trustvlm.tables.table import Marking
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
    rows = list(rows)
    shots = sorted({int(row["shots"]) for row in rows})
    draws = {int(row["draw"]) for row in rows}
    parts = [
        f"{join_names([f'{n:,}' for n in shots])} shot{'' if shots == [1] else 's'} per class",
        f"draw {min(draws)} of the shots"
        if len(draws) == 1
        else f"{counted(len(draws), 'draw')} of the shots",
        _describe_images(rows),
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


def _sizes(rows: Iterable[Row]) -> dict[str, int]:
    """Return the test images of each data set; 0 where no row says."""
    sizes: dict[str, int] = {}
    for row in rows:
        name = str(row["dataset"])
        sizes[name] = max(sizes.get(name, 0), int(row.get("n") or 0))
    return sizes


def _describe_images(rows: list[Row]) -> str:
    every = _sizes(rows)
    sizes = [size for size in every.values() if size]
    sets = counted(len(every), "data set")
    if not sizes:
        return sets
    if min(sizes) == max(sizes):
        each = "" if len(sizes) == 1 else " each"
        return f"{sets} with {counted(sizes[0], 'test image')}{each}"
    return f"{sets} with {min(sizes):,} to {max(sizes):,} test images each, {sum(sizes):,} in all"


# Sentences that captions are made of: units, counts, conventions, tests.


def capitalised(text: str) -> str:
    """Return text with a capital first letter, the rest as it is.

    Examples
    --------
    >>> capitalised("of CLIP")
    'Of CLIP'
    """
    return text[:1].upper() + text[1:]


def describe_study(analysis: Analysis) -> str:
    """Count scores and data sets, such as `24 scores on 9 data sets`."""
    results = analysis.results
    return (
        f"{counted(len(results.scores), 'score')} on {counted(len(results.datasets), 'data set')}"
    )


def describe_shots(analysis: Analysis) -> str:
    """Say how many shots a table is about."""
    return counted(analysis.results.largest, "shot") + " per class"


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


def describe_spread(analysis: Analysis, *, largest_only: bool = True) -> str:
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


def small_print(analysis: Analysis, metrics: Sequence[str], dataset: str = "") -> str:
    """Name the convention, and explain the signs that the table has."""
    results = analysis.results
    rows = [row for row in results.rows if dataset in ("", row["dataset"])]
    undefined = any(math.isnan(value_of(row, m)) for row in rows for m in metrics)
    corrects = any(s in registry.names() and registry.get(s).corrects for s in results.scores)
    failed = sum(bool(row.get("error")) for row in rows)
    sentences = [
        describe_convention(results.convention),
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
    return " ".join(filter(None, sentences))


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
    few = [name for name in results.datasets if 0 < results.images(name) < _FEW]
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


# What rows are about, in numbers and names: for the head and the foot of a page.


@dataclass(frozen=True)
class RowsSummary:
    """Scores, data sets, shots and draws of some rows, and how many images were tested.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "draw": 0, "n": 50}
    >>> summary = RowsSummary.of([{**about, "dataset": "pets"}, {**about, "dataset": "cars"}])
    >>> summary.datasets, summary.images
    (('pets', 'cars'), 100)
    >>> summary.tiles()[1]
    ('2', 'data sets, 100 images')
    """

    scores: tuple[str, ...]
    datasets: tuple[str, ...]
    images: int
    shots: tuple[int, ...]
    draws: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> RowsSummary:
        """Collect what rows are about."""
        rows = list(rows)
        sizes = _sizes(rows)
        return cls(
            scores=tuple(dict.fromkeys(r["score"] for r in rows if r["score"] is not None)),
            datasets=tuple(sizes),
            images=sum(sizes.values()),
            shots=tuple(sorted({int(row["shots"]) for row in rows})),
            draws=len({int(row["draw"]) for row in rows}),
        )

    def tiles(self) -> list[tuple[str, str]]:
        """Return values and what they count, for the head of a page."""
        sets, draws = (
            counted(n, noun).partition(" ")[2]
            for n, noun in ((len(self.datasets), "data set"), (self.draws, "draw"))
        )
        return [
            (str(len(self.scores)), "scores compared"),
            (
                str(len(self.datasets)),
                f"{sets}, {counted(self.images, 'image')}" if self.images else sets,
            ),
            (", ".join(map(str, self.shots)), "shots per class"),
            (str(self.draws), f"{draws} of the shots"),
        ]

    def facts(self, convention: str, *further: tuple[str, str]) -> list[tuple[str, str]]:
        """Return terms and what they are here, for the foot of a page."""
        return [
            ("data sets", ", ".join(self.datasets)),
            ("scores", ", ".join(self.scores)),
            ("shots per class", ", ".join(map(str, self.shots))),
            ("draws of the shots", str(self.draws)),
            ("metrics", describe_convention(convention)),
            *further,
            ("software", f"trustvlm {__version__}"),
        ]
