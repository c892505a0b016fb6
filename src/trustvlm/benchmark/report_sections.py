"""Sections of a study's page: what there is to show of one setting, and the files beside it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.figures import (
    equal_coverage_figure,
    leading_scores,
    modality_figure,
    modality_labels,
    rank_figure,
    risk_coverage_figure,
    shots_figure,
)
from trustvlm.benchmark.results import readable
from trustvlm.benchmark.run import Workers
from trustvlm.benchmark.score_tables import (
    dataset_table,
    difference_table,
    gain_tables,
    metric_table,
    overview_table,
    rank_table,
    shots_table,
    tally_table,
)
from trustvlm.files import write_text
from trustvlm.plots.figure import Figure
from trustvlm.serialization import nan_to_null
from trustvlm.tables import markup
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import Table


@dataclass(frozen=True)
class ReportSection:
    """Figures and tables under one heading; `folded` tables are shown on demand."""

    name: str
    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def main_metric(analysis: Analysis) -> str:
    """Return the metric that the figures show: AURC, or the first if that was not measured."""
    return "aurc" if "aurc" in analysis.metrics else analysis.metrics[0]


def sections(analysis: Analysis) -> list[ReportSection]:
    """Return what there is to show of one setting; sections without content are left out.

    No name of a figure or table is given twice.
    """
    results, metrics, main = analysis.results, analysis.metrics, main_metric(analysis)
    several_sets = len(results.datasets) > 1
    ranked = not math.isnan(analysis.ranks[main].critical_difference)
    labels = modality_labels(results.scores, results.reference)
    every = [
        ReportSection(
            "ranks",
            "Which scores lead",
            "Every score on the same images, with the same shots. A score is called better only "
            "where a test says so.",
            figures=(rank_figure(analysis, main),) if ranked else (),
            tables=(tally_table(analysis),) if analysis.comparisons else (),
            folded=(rank_table(analysis),) if ranked else (),
        ),
        ReportSection(
            "metrics",
            "Every metric",
            f"{METRIC_COLUMNS[main].title}: {METRIC_COLUMNS[main].meaning}",
            tables=(
                *((overview_table(analysis, main),) if several_sets and len(metrics) > 1 else ()),
                metric_table(analysis, main),
            ),
            folded=tuple(metric_table(analysis, metric) for metric in metrics if metric != main),
        ),
        ReportSection(
            "coverage",
            "What accepting less buys",
            "Accept only the images that a score trusts most, and fewer of the accepted labels are "
            "wrong.",
            figures=_coverage_figures(analysis),
        ),
        ReportSection(
            "modalities",
            "Text only, image only, both",
            "What the second look in image space adds to the text, and what it is worth alone.",
            figures=(modality_figure(analysis, main, labels),) if len(labels) > 1 else (),
        ),
        _shots_section(analysis),
        ReportSection(
            "differences",
            f"Differences to {results.reference}",
            "How large the differences are, and how far other images of the same kind would move "
            "them.",
            folded=tuple(difference_table(analysis, metric) for metric in metrics)
            if analysis.comparisons
            else (),
        ),
        ReportSection(
            "datasets",
            "Each data set",
            "The same numbers, one table for each data set.",
            folded=tuple(dataset_table(analysis, name) for name in results.datasets),
        ),
        ReportSection(
            "classes",
            "Classes that gain and lose",
            "An average can hide classes that a score makes worse.",
            folded=tuple(gain_tables(analysis)),
        ),
    ]
    return named([s for s in every if s.figures or s.tables or s.folded])


def _coverage_figures(analysis: Analysis) -> tuple[Figure, ...]:
    scores = leading_scores(analysis, main_metric(analysis))
    sampled = [s for s in scores if any(key[1] == s for key in analysis.results.samples)]
    if not analysis.resampled or not sampled:
        return ()
    return risk_coverage_figure(analysis, sampled), equal_coverage_figure(analysis, sampled[:4])


def _shots_section(analysis: Analysis) -> ReportSection:
    metrics, main = analysis.metrics, main_metric(analysis)
    figures: list[Figure] = []
    if several := len(analysis.results.shots) > 1:
        shown = dict.fromkeys([main, *(metric for metric in metrics if metric == "auroc")])
        figures = [shots_figure(analysis, m, leading_scores(analysis, m)) for m in shown]
        if len(analysis.results.datasets) > 1:
            leading = leading_scores(analysis, main)
            figures.append(shots_figure(analysis, main, leading, by_dataset=True))
    return ReportSection(
        "shots",
        "How many shots it takes",
        "Scores of the logits alone do not depend on the shots.",
        figures=tuple(figures),
        folded=tuple(shots_table(analysis, metric) for metric in metrics) if several else (),
    )


def named(sections: Sequence[ReportSection], prefix: str = "") -> list[ReportSection]:
    """Let all names of figures and tables begin with a prefix, and give none twice."""
    used: Counter[str] = Counter()

    def name(table: Table) -> Table:
        # Names of data sets can differ in signs alone, which file names do not have.
        used[table.name] += 1
        if used[table.name] > 1:
            return name(replace(table, name=f"{table.name}-{used[table.name]}"))
        return replace(table, name=f"{prefix}{table.name}")

    return [
        replace(
            section,
            figures=tuple(replace(f, name=f"{prefix}{f.name}") for f in section.figures),
            tables=tuple(map(name, section.tables)),
            folded=tuple(map(name, section.folded)),
        )
        for section in sections
    ]


# The files beside the page: tables as Markdown and LaTeX, figures, and the statistics as JSON.


def write_table(table: Table, folder: Path) -> None:
    """Write `tables/<name>.md` and `.tex`."""
    for suffix, render in (("md", markup.render_markdown), ("tex", markup.render_latex)):
        write_text(folder / "tables" / f"{table.name}.{suffix}", readable(render(table)))


def write_sections(
    sections: Iterable[ReportSection], folder: Path, workers: Workers | None = None
) -> None:
    """Write every table and every figure of some sections; workers draw figures side by side."""
    sections = list(sections)
    for section in sections:
        for table in (*section.tables, *section.folded):
            write_table(table, folder)
    figures = [figure for section in sections for figure in section.figures]
    written = (workers or Workers()).map(_write_figure, [(figure, folder) for figure in figures])
    for figure, svg in zip(figures, written, strict=True):
        figure.keep(svg)


def _write_figure(figure: Figure, folder: Path) -> str:
    for suffix in ("svg", "pdf"):
        figure.save(folder / "figures" / f"{figure.name}.{suffix}")
    return figure.svg()


def write_statistics(analyses: Sequence[Analysis], path: Path) -> None:
    """Write spreads, paired tests and ranks as JSON, in fractions; None where undefined."""
    content = nan_to_null([_statistics(analysis) for analysis in analyses])
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _statistics(analysis: Analysis) -> dict[str, Any]:
    return {
        "setting": analysis.results.settings[0]._asdict() if analysis.results.rows else {},
        "convention": analysis.results.convention,
        "reference": analysis.results.reference,
        "bootstrap": {
            "n_resamples": analysis.n_resamples,
            "seed": analysis.seed,
            "level": analysis.level,
            "convention": "exact",
        },
        "spreads": [
            {
                "dataset": dataset,
                "score": score,
                "shots": shots,
                "metric": metric,
                "mean": spread.mean,
                "sd": spread.sd,
                "draws": spread.n,
                "undefined_draws": spread.n_undefined,
            }
            for metric, cells in analysis.spreads.items()
            for (dataset, score, shots), spread in cells.items()
        ],
        "ranks": [
            {
                "metric": metric,
                "average_ranks": dict(zip(ranks.scores, ranks.average_ranks.tolist(), strict=True)),
                "datasets": list(ranks.datasets),
                "units": list(ranks.units),
                "left_out": [*ranks.left_out_scores, *ranks.left_out_datasets],
                "friedman": ranks.statistic,
                "friedman_p": ranks.p_value,
                "iman_davenport": ranks.f_statistic,
                "iman_davenport_p": ranks.f_p_value,
                "critical_difference": ranks.critical_difference,
                "alpha": ranks.alpha,
            }
            for metric, ranks in analysis.ranks.items()
        ],
        "comparisons": [asdict(comparison) for comparison in analysis.comparisons],
    }
