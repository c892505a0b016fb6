"""Tables of a study: metrics, what the tests say of them, single classes, and failed cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from trustvlm import scores as registry
from trustvlm.benchmark.analysis import Analysis, ClassGain, class_gains
from trustvlm.benchmark.captions import (
    describe_convention,
    describe_mean,
    describe_ranks,
)
from trustvlm.benchmark.results import Row, setting_of, value_of
from trustvlm.benchmark.statistics import LEVEL, Comparison
from trustvlm.tables.metrics import (
    METRIC_COLUMNS,
    MetricColumn,
    columns_of,
    describe_unit,
    describe_units,
)
from trustvlm.tables.scores import CORRECTS, SIGNS, WHOLE_BATCH, signs_of
from trustvlm.tables.table import (
    OWN,
    UNDEFINED,
    Cell,
    Head,
    Line,
    Mark,
    Marking,
    Table,
    rank_cell,
    signed,
    slug,
    spread_cell,
)
from trustvlm.text import counted, join_names, shortened

# What captions say, in few words, and what the notes below the tables add.


def _describe_study(analysis: Analysis) -> str:
    """Count scores and data sets, such as `24 scores on 9 data sets`."""
    results = analysis.results
    return (
        f"{counted(len(results.scores), 'score')} on {counted(len(results.datasets), 'data set')}"
    )


def _describe_shots(analysis: Analysis) -> str:
    """Say how many shots a table is about."""
    return counted(analysis.results.largest, "shot") + " a class"


def _draws(analysis: Analysis, *, largest_only: bool = True) -> int:
    results = analysis.results
    return len(
        {row["draw"] for row in results.rows if row["shots"] == results.largest or not largest_only}
    )


def _describe_mean(analysis: Analysis, *, largest_only: bool = True) -> str:
    """Say what a number with ± is; empty if there is one draw."""
    draws = _draws(analysis, largest_only=largest_only)
    return f", mean ± SD over {draws} draws" if draws > 1 else ""


def _describe_spread(analysis: Analysis, *, largest_only: bool = True) -> str:
    """Say what ± means, or that there is one draw."""
    draws = _draws(analysis, largest_only=largest_only)
    if draws < 2:
        return "One draw of the shots: no spread over draws is known."
    return (
        f"Mean ± standard deviation over {draws} draws of the shots; "
        "without ± where all draws agree."
    )


# Metrics that judge the order of the labels, whichever these are.
_OF_ORDER = ("eaurc", "eaugrc", "auroc", "fpr95", "aupr_success", "aupr_error")


def _describe_signs(analysis: Analysis, metrics: Sequence[str]) -> str:
    """Explain the signs that a table of some metrics has, beyond the few words of its legend."""
    signs = "".join(map(signs_of, analysis.results.scores))
    order = join_names([METRIC_COLUMNS[m].title for m in metrics if m in _OF_ORDER])
    judges = f"; by {order} it is then judged on other labels than scores without" if order else ""
    sentences = [
        f"{CORRECTS}: {SIGNS[CORRECTS]}{f'{judges} {CORRECTS}' if order else ''}."
        if CORRECTS in signs
        else "",
        f"{WHOLE_BATCH}: {SIGNS[WHOLE_BATCH]}." if WHOLE_BATCH in signs else "",
    ]
    return " ".join(filter(None, sentences))


def _legend(scores: Iterable[str], reference: str | None) -> str:
    """Say in a few words what stands before and after the names of some scores."""
    signs = "".join(map(signs_of, scores))
    parts = [
        f"{OWN} reference" if reference is not None else "",
        f"{CORRECTS} may change labels" if CORRECTS in signs else "",
        f"{WHOLE_BATCH} sees the whole batch" if WHOLE_BATCH in signs else "",
    ]
    shown = "; ".join(filter(None, parts))
    return f"{shown}." if shown else ""


def _small_print(analysis: Analysis, metrics: Sequence[str], dataset: str = "") -> str:
    """Name the convention, and say what is undefined or failed."""
    results = analysis.results
    rows = [row for row in results.rows if dataset in ("", row["dataset"])]
    undefined = any(math.isnan(value_of(row, m)) for row in rows for m in metrics)
    failed = sum(bool(row.get("error")) for row in rows)
    sentences = [
        describe_convention(results.convention),
        "–: undefined, as where all labels are right; (k/n): defined in k of n draws."
        if undefined
        else "",
        f"{counted(failed, 'cell')} failed and {'is' if failed == 1 else 'are'} listed apart."
        if failed
        else "",
    ]
    return " ".join(filter(None, sentences))


def _marking(analysis: Analysis) -> Marking | None:
    """Say what the marks mean and how they are tested; None where no test was possible."""
    if not analysis.resampled:
        return None
    return Marking(
        best="significantly better than every other score",
        second=f"than all but one (paired bootstrap, {100 * LEVEL:g} %)",
    )


def _describe_marks(analysis: Analysis) -> str:
    """Say in full by which test marks are given."""
    if not analysis.resampled:
        return "Without samples no test was made, and nothing is marked."
    convention = "" if analysis.results.convention == "exact" else ", in convention exact"
    return (
        f"Marks are given by test only: the {100 * LEVEL:g} % interval of the difference to each "
        f"other score, by the paired bootstrap over images ({analysis.n_resamples:,} resamples, "
        f"draw 0{convention}), must leave out zero on the side that the shown means say. Where no "
        "score passes, none is marked. As the best must pass against every other, nothing is "
        "corrected for their number."
    )


# Tables of metrics: by data set, by metric, and by number of shots.


def overview_table(analysis: Analysis, rank_by: str) -> Table:
    """Every metric of every score, as means over the data sets, and the rank by one of them."""
    columns = columns_of(analysis.metrics)

    def cells(score: str) -> list[Cell]:
        means = [spread_cell(analysis.mean(c.name, score), c.scale) for c in columns]
        return [*means, rank_cell(analysis.ranks[rank_by].rank_of(score))]

    lower = [column.title for column in columns if not column.higher_is_better]
    return _score_table(
        analysis,
        cells,
        metrics=analysis.metrics,
        name="overview",
        title="Every metric at a glance",
        caption=f"Means over data sets, {_describe_shots(analysis)}{_describe_mean(analysis)}; "
        f"{join_names(lower) or 'none'} better low, the others high. "
        f"Rank by {METRIC_COLUMNS[rank_by].title}.",
        notes=[
            f"{_describe_study(analysis)}. {describe_units(columns)}",
            _describe_spread(analysis),
            describe_mean(analysis, rank_by),
            "Nothing is marked here: tests are made on each data set, and of ranks.",
            _small_print(analysis, analysis.metrics),
        ],
        heads=[*_metric_heads(columns), Head("Rank")],
    )


def metric_table(analysis: Analysis, metric: str) -> Table:
    """One metric of every score on every data set, with the mean and the average rank."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    marks = {dataset: analysis.marks(metric, dataset) for dataset in results.datasets}
    several = len(results.datasets) > 1
    heads = [Head(dataset, falling=column.higher_is_better) for dataset in results.datasets]
    if several:
        heads += [Head("Mean", falling=column.higher_is_better), Head("Rank")]

    def cells(score: str) -> list[Cell]:
        row = [_cell(analysis, metric, d, score, marks[d]) for d in results.datasets]
        if several:
            row.append(spread_cell(analysis.mean(metric, score), column.scale))
            row.append(rank_cell(analysis.ranks[metric].rank_of(score)))
        return row

    return _score_table(
        analysis,
        cells,
        metrics=[metric],
        name=slug(metric),
        title=f"{column.title} of every score",
        caption=f"{describe_unit(column)}; {_describe_shots(analysis)}{_describe_mean(analysis)}.",
        notes=[
            f"{_describe_study(analysis)}.",
            _describe_spread(analysis),
            describe_mean(analysis, metric) if several else "",
            _small_print(analysis, [metric]),
            _describe_marks(analysis),
        ],
        heads=heads,
        marking=_marking(analysis),
    )


def dataset_table(analysis: Analysis, dataset: str) -> Table:
    """Every metric of every score on one data set."""
    columns = columns_of(analysis.metrics)
    marks = {column.name: analysis.marks(column.name, dataset) for column in columns}
    images = analysis.results.sizes[dataset]
    count = f" ({counted(images, 'image')})" if images else ""
    return _score_table(
        analysis,
        lambda score: [_cell(analysis, c.name, dataset, score, marks[c.name]) for c in columns],
        metrics=analysis.metrics,
        name=f"dataset-{slug(dataset)}",
        title=dataset,
        caption=f"Metrics on {dataset}{count}; "
        f"{_describe_shots(analysis)}{_describe_mean(analysis)}.",
        notes=[
            describe_units(columns),
            _describe_spread(analysis),
            _small_print(analysis, analysis.metrics, dataset),
            _describe_marks(analysis),
        ],
        heads=_metric_heads(columns),
        marking=_marking(analysis),
    )


def shots_table(analysis: Analysis, metric: str) -> Table:
    """One metric of every score at every number of shots, as mean over the data sets."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    return _score_table(
        analysis,
        lambda score: [
            spread_cell(analysis.mean(metric, score, shots), column.scale)
            for shots in results.shots
        ],
        metrics=[metric],
        name=f"shots-{slug(metric)}",
        title=f"{column.title} by shots",
        caption=f"{describe_unit(column)}, by shots a class: mean over data sets"
        f"{_describe_mean(analysis, largest_only=False).replace(', mean', '')}.",
        notes=[
            _describe_spread(analysis, largest_only=False),
            describe_mean(analysis, metric),
            _small_print(analysis, [metric]),
        ],
        heads=[Head(str(shots), "shots", column.higher_is_better) for shots in results.shots],
    )


def _score_table(
    analysis: Analysis,
    cells: Callable[[str], Sequence[Cell]],
    *,
    name: str,
    title: str,
    caption: str,
    notes: Sequence[str],
    heads: Iterable[Head],
    metrics: Sequence[str],
    marking: Marking | None = None,
    against: str | None = None,
) -> Table:
    """Build a table with a line for every score but `against`, and with `heads` for its cells.

    The reference, and scores that may change labels, are set apart. Empty notes are left out.
    """
    reference = analysis.results.reference
    scores, breaks = by_group(tuple(s for s in analysis.results.scores if s != against))
    return Table(
        name=name,
        title=title,
        caption=caption,
        heads=(Head("Score"), *heads),
        lines=tuple(
            Line(
                score,
                tuple(cells(score)),
                own=score == reference,
                signs=signs_of(score),
            )
            for score in scores
        ),
        marking=marking,
        breaks=breaks,
        legend=_legend(scores, reference if reference in scores else None),
        notes=" ".join(filter(None, [*notes, _describe_signs(analysis, metrics)])),
    )


def by_group(names: tuple[str, ...]) -> tuple[list[str], tuple[int, ...]]:
    """Put scores of the logits alone first; return also where the others begin.

    Examples
    --------
    >>> by_group(("trustvlm", "msp", "own"))
    (['msp', 'trustvlm', 'own'], (1,))
    """
    needs = registry.names()
    alone = [name for name in names if needs.get(name) == ("logits",)]
    others = [name for name in names if name not in alone]
    return [*alone, *others], (len(alone),) if alone and others else ()


def _cell(
    analysis: Analysis, metric: str, dataset: str, score: str, marks: dict[str, Mark]
) -> Cell:
    spread = analysis.spread(metric, dataset, score)
    failed = math.isnan(spread.mean) and any(
        row["dataset"] == dataset and row.get("error")
        for row in analysis.results.by_score.get((score, analysis.results.largest), [])
    )
    return spread_cell(spread, METRIC_COLUMNS[metric].scale, marks.get(score, ""), failed=failed)


def _metric_heads(columns: Sequence[MetricColumn]) -> Iterator[Head]:
    for column in columns:
        yield Head(column.title, column.sign, column.higher_is_better)


# Tables of what the tests say: differences to the reference, and ranks.


def tally_table(analysis: Analysis) -> Table:
    """On how many data sets each score is better than the reference, even, or worse."""
    reference = analysis.results.reference
    columns = columns_of(analysis.metrics)

    def tally(score: str, column: MetricColumn) -> Cell:
        verdicts = Counter(
            _verdict(comparison, column.higher_is_better)
            for comparison in analysis.comparisons
            if (comparison.score, comparison.metric) == (score, column.name)
        )
        better, even, worse = (verdicts[key] for key in ("better", "even", "worse"))
        if better + even + worse:
            return Cell(f"{better} / {even} / {worse}", value=float(better - worse))
        return Cell(UNDEFINED)

    return _score_table(
        analysis,
        lambda score: [tally(score, column) for column in columns],
        metrics=analysis.metrics,
        name="against-reference",
        title=f"Every score against {reference}",
        caption=f"Data sets on which a score is significantly better than {reference} / cannot be "
        f"told apart / is worse; {_describe_shots(analysis)}.",
        notes=[f"Draw 0 of the shots. {_describe_test(analysis)}"],
        heads=[Head(column.title, falling=True) for column in columns],
        against=reference,
    )


def difference_table(analysis: Analysis, metric: str) -> Table:
    """Difference of every score to the reference on every data set, with its interval."""
    results, column = analysis.results, METRIC_COLUMNS[metric]
    comparisons = {(c.dataset, c.score): c for c in analysis.comparisons if c.metric == metric}
    return _score_table(
        analysis,
        lambda score: [
            _difference(comparisons.get((dataset, score)), column.scale)
            for dataset in results.datasets
        ],
        metrics=[metric],
        name=f"difference-{slug(metric)}",
        title=f"{column.title}: difference to {results.reference}",
        caption=f"{column.title} of a score less that of {results.reference} ({column.sign}): "
        f"{'positive' if column.higher_is_better else 'negative'} says that the score is better; "
        f"{_describe_shots(analysis)}. In brackets the {100 * LEVEL:g} % interval; *: significant "
        "after Holm's correction.",
        notes=[
            f"{describe_unit(column)}. Draw 0 of the shots; each interval is of its difference "
            f"alone. {_describe_test(analysis)}"
        ],
        heads=[Head(dataset, falling=column.higher_is_better) for dataset in results.datasets],
        against=results.reference,
    )


def rank_table(analysis: Analysis) -> Table:
    """Average rank of every score by every metric."""
    columns = columns_of(analysis.metrics)
    tests: dict[str, list[str]] = {}
    for column in columns:
        tests.setdefault(describe_ranks(analysis.ranks[column.name]), []).append(column.title)
    sentences = (f"{', '.join(titles)}: {test}" for test, titles in tests.items())
    return _score_table(
        analysis,
        lambda score: [rank_cell(analysis.ranks[c.name].rank_of(score)) for c in columns],
        metrics=analysis.metrics,
        name="ranks",
        title="Average ranks",
        caption=f"Average rank over data sets, 1 is best; {_describe_shots(analysis)}.",
        notes=[
            f"{_describe_study(analysis)}; ranks of means over draws and over the test sets of a "
            "data set. Data sets are taken to be independent of one another.",
            *sentences,
        ],
        heads=[Head(column.title) for column in columns],
    )


def _verdict(comparison: Comparison, higher_is_better: bool) -> str:
    if math.isnan(comparison.p_holm):
        return "undefined"
    if not comparison.significant:
        return "even"
    return "better" if (comparison.difference > 0) == higher_is_better else "worse"


def _describe_test(analysis: Analysis) -> str:
    return (
        f"Paired bootstrap over images ({analysis.n_resamples:,} resamples, convention exact), "
        f"Holm's correction over the scores of a data set, {1 - LEVEL:.3g}."
    )


def _difference(comparison: Comparison | None, scale: float) -> Cell:
    if comparison is None or math.isnan(comparison.difference):
        return Cell(UNDEFINED)
    difference, low, high = (
        scale * value for value in (comparison.difference, comparison.low, comparison.high)
    )
    return Cell(
        signed(difference, star=comparison.significant),
        "" if math.isnan(low) else f"[{signed(low)}, {signed(high)}]",
        value=difference,
    )


# Tables of single classes and of single cells: who gains and loses, and what failed.

# Share of the images that is accepted where classes are compared under scores of equal labels.
_COVERAGE = 0.8


def gain_table(
    gains: Sequence[ClassGain], dataset: str, first: str, second: str, coverage: float | None = None
) -> Table:
    """Gains and losses of every class when one score takes the place of another."""
    heads = ("Images", f"Well by {first}", f"Well by {second}", "Gained", "Lost", "Net")
    lines = [
        Line(
            row.name,
            (
                *(
                    Cell(str(value), value=float(value))
                    for value in (row.n, row.before, row.after, row.gained, row.lost)
                ),
                Cell(signed(row.net, 0, star=row.p_holm <= 0.05), value=float(row.net)),
            ),
        )
        for row in gains
    ]
    well = (
        "An image turns out well if its label is right."
        if coverage is None
        else f"Each score accepts the {100 * coverage:g} % of all images that it trusts most; an "
        "image turns out well if it is right and accepted, or wrong and not accepted."
    )
    return Table(
        name=f"gains-{slug(dataset)}-{slug(second)}-{slug(first)}",
        title=f"{dataset}: classes that gain and lose from {first} to {second}",
        caption=f"Images of each class on {dataset} that turn out well by {first} and by {second}. "
        "*: gains and losses differ significantly (McNemar, Holm's correction over classes).",
        heads=(Head("Class"), *(Head(title, falling=True) for title in heads)),
        lines=tuple(lines),
        notes=f"{well} The test is McNemar's exact one, at 0.05, corrected over the classes.",
    )


def gain_tables(analysis: Analysis) -> Iterator[Table]:
    """Yield the gains from text to reference, and from reference to its star, by data set."""
    results = analysis.results
    reference = results.reference
    pairs: tuple[tuple[str, str, float | None], ...] = (
        ("msp", reference, _COVERAGE),
        (reference, f"{reference}_star", None),
    )
    for dataset in results.datasets:
        samples = results.samples_of(dataset)
        if dataset not in results.classes:
            continue
        labels, names = results.classes[dataset]
        for first, second, coverage in pairs:
            if first in samples and second in samples:
                gains = class_gains(
                    samples[first], samples[second], labels, names, coverage=coverage
                )
                yield gain_table(gains, dataset, first, second, coverage)


def failure_table(failures: Sequence[Row]) -> Table:
    """Cells of the study that failed, with their errors; a line for those that failed alike."""
    counts: Counter[tuple[str, str, str, str]] = Counter(
        (
            str(row["dataset"]),
            str(row["score"] or "all"),
            setting_of(row).label or UNDEFINED,
            str(row["error"]),
        )
        for row in failures
    )
    return Table(
        name="failures",
        title="Cells that failed",
        caption="They count as undefined in tables and figures. A cell is one number of shots and "
        "one draw.",
        heads=(
            Head("Data set"),
            Head("Score", text=True),
            Head("Models", text=True),
            Head("Cells", falling=True),
            Head("Error", text=True),
        ),
        lines=tuple(
            Line(
                dataset,
                (
                    Cell(score, value=score),
                    Cell(models, value=models),
                    Cell(f"{count:,}", value=float(count)),
                    Cell(shortened(error, 400), value=error[:400]),
                ),
            )
            for (dataset, score, models, error), count in counts.items()
        ),
    )
