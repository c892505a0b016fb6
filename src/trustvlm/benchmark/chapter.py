"""The part of the page about one setting: sections of figures and tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.bar_figures import equal_coverage_figure, modality_figure, modality_labels
from trustvlm.benchmark.comparison_tables import difference_table, rank_table, tally_table
from trustvlm.benchmark.curve_figures import leading_scores, risk_coverage_figure, shots_figure
from trustvlm.benchmark.detail_tables import gain_tables
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.rank_figure import rank_figure
from trustvlm.benchmark.score_tables import dataset_table, metric_table, overview_table, shots_table
from trustvlm.benchmark.table import Table

__all__ = ["Section", "main_metric", "named", "sections"]


@dataclass(frozen=True)
class Section:
    """Figures and tables under one heading; `folded` tables are shown on demand."""

    name: str
    title: str
    words: str
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def main_metric(analysis: Analysis) -> str:
    """Return the metric that the figures show: AURC, or the first if that was not measured."""
    return "aurc" if "aurc" in analysis.metrics else analysis.metrics[0]


def sections(analysis: Analysis, prefix: str = "") -> list[Section]:
    """Return what there is to show of one setting; sections without content are left out.

    The names of figures and tables begin with the prefix, and none is given twice.
    """
    found = [
        _ranks(analysis),
        _metrics(analysis),
        _coverage(analysis),
        _modalities(analysis),
        _shots(analysis),
        _differences(analysis),
        _datasets(analysis),
        _classes(analysis),
    ]
    found = [section for section in found if section.drawings or section.tables or section.folded]
    return named(found, prefix)


def named(found: Sequence[Section], prefix: str) -> list[Section]:
    """Let all names of figures and tables begin with a prefix, and give none twice."""
    used: Counter[str] = Counter()
    return [
        replace(
            section,
            drawings=tuple(replace(d, name=f"{prefix}{d.name}") for d in section.drawings),
            tables=tuple(_named(table, prefix, used) for table in section.tables),
            folded=tuple(_named(table, prefix, used) for table in section.folded),
        )
        for section in found
    ]


def _named(table: Table, prefix: str, used: Counter[str]) -> Table:
    # Names of data sets can differ in signs alone, which file names do not have.
    used[table.name] += 1
    times = used[table.name]
    if times > 1:
        return _named(replace(table, name=f"{table.name}-{times}"), prefix, used)
    return replace(table, name=f"{prefix}{table.name}")


def _ranks(analysis: Analysis) -> Section:
    metric = main_metric(analysis)
    several = not math.isnan(analysis.ranks[metric].critical_difference)
    return Section(
        "ranks",
        "Which scores lead",
        "Every score on the same images, with the same shots. A score is called better only where "
        "a test says so.",
        drawings=(rank_figure(analysis, metric),) if several else (),
        tables=(tally_table(analysis),) if analysis.comparisons else (),
        folded=(rank_table(analysis),) if several else (),
    )


def _metrics(analysis: Analysis) -> Section:
    main = main_metric(analysis)
    others = (metric for metric in analysis.metrics if metric != main)
    several = len(analysis.results.datasets) > 1 and len(analysis.metrics) > 1
    overview = (overview_table(analysis, main),) if several else ()
    return Section(
        "metrics",
        "Every metric",
        f"{METRIC_COLUMNS[main].title}: {METRIC_COLUMNS[main].meaning}",
        tables=(*overview, metric_table(analysis, main)),
        folded=tuple(metric_table(analysis, metric) for metric in others),
    )


def _coverage(analysis: Analysis) -> Section:
    drawings = []
    if analysis.resampled:
        scores = leading_scores(analysis, main_metric(analysis))
        sampled = [s for s in scores if any(key[1] == s for key in analysis.results.samples)]
        if sampled:
            drawings = [
                risk_coverage_figure(analysis, sampled),
                equal_coverage_figure(analysis, sampled[:4]),
            ]
    return Section(
        "coverage",
        "What accepting less buys",
        "Accept only the images that a score trusts most, and fewer of the accepted labels are "
        "wrong.",
        drawings=tuple(drawings),
    )


def _modalities(analysis: Analysis) -> Section:
    labels = modality_labels(analysis.results.scores, analysis.results.reference)
    return Section(
        "modalities",
        "Text only, image only, both",
        "What the second look in image space adds to the text, and what it is worth alone.",
        drawings=(modality_figure(analysis, main_metric(analysis), labels),)
        if len(labels) > 1
        else (),
    )


def _shots(analysis: Analysis) -> Section:
    main = main_metric(analysis)
    drawings: list[Drawing] = []
    tables: list[Table] = []
    if len(analysis.results.shots) > 1:
        shown = dict.fromkeys([main, *(m for m in analysis.metrics if m == "auroc")])
        drawings += [shots_figure(analysis, m, leading_scores(analysis, m)) for m in shown]
        if len(analysis.results.datasets) > 1:
            scores = leading_scores(analysis, main)
            drawings.append(shots_figure(analysis, main, scores, by_dataset=True))
        tables = [shots_table(analysis, metric) for metric in analysis.metrics]
    return Section(
        "shots",
        "How many shots it takes",
        "Scores of the logits alone do not depend on the shots.",
        drawings=tuple(drawings),
        folded=tuple(tables),
    )


def _differences(analysis: Analysis) -> Section:
    return Section(
        "differences",
        f"Differences to {analysis.results.reference}",
        "How large the differences are, and how far other images of the same kind would move them.",
        folded=tuple(difference_table(analysis, metric) for metric in analysis.metrics)
        if analysis.comparisons
        else (),
    )


def _datasets(analysis: Analysis) -> Section:
    return Section(
        "datasets",
        "Each data set",
        "The same numbers, one table for each data set.",
        folded=tuple(dataset_table(analysis, name) for name in analysis.results.datasets),
    )


def _classes(analysis: Analysis) -> Section:
    return Section(
        "classes",
        "Classes that gain and lose",
        "An average can hide classes that a score makes worse.",
        folded=tuple(gain_tables(analysis)),
    )
