"""The files beside the page: tables as Markdown and LaTeX, figures, and the statistics as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trustvlm.benchmark import latex, markdown
from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.readable import readable
from trustvlm.benchmark.table import Table
from trustvlm.benchmark.workers import Workers
from trustvlm.files import write_bytes, write_text

__all__ = ["write_drawing", "write_sections", "write_statistics", "write_table"]


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write `tables/<name>.md` and `.tex`; return the files."""
    stem = folder / "tables" / table.name
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("md", "tex")]
    write_text(files[0], readable(markdown.render(table)))
    write_text(files[1], readable(latex.render(table)))
    return files


def write_drawing(drawing: Drawing, folder: Path) -> list[Path]:
    """Write `figures/<name>.svg` and `.pdf`; return the files."""
    stem = folder / "figures" / drawing.name
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "pdf")]
    write_text(files[0], drawing.svg_file())
    write_bytes(files[1], drawing.pdf())
    return files


def write_sections(
    sections: Iterable[Section], folder: Path, workers: Workers | None = None
) -> None:
    """Write every table and every figure of some sections; workers draw figures side by side."""
    sections = list(sections)
    for section in sections:
        for table in (*section.tables, *section.folded):
            write_table(table, folder)
    drawings = [drawing for section in sections for drawing in section.drawings]
    drawn = (workers or Workers()).map(_drawn, [(drawing, folder) for drawing in drawings])
    for drawing, element in zip(drawings, drawn, strict=True):
        drawing.keep(element)


def _drawn(drawing: Drawing, folder: Path) -> str:
    write_drawing(drawing, folder)
    return drawing.svg()


def write_statistics(analyses: Sequence[Analysis], path: Path) -> None:
    """Write spreads, paired tests and ranks as JSON, in fractions; None where undefined."""
    write_text(
        path,
        json.dumps([_statistics(analysis) for analysis in analyses], indent=1, allow_nan=False)
        + "\n",
    )


def _statistics(analysis: Analysis) -> dict[str, Any]:
    spreads = [
        {
            "dataset": dataset,
            "score": score,
            "shots": shots,
            "metric": metric,
            "mean": _number(found.mean),
            "sd": _number(found.sd),
            "draws": found.n,
            "undefined_draws": found.n_undefined,
        }
        for metric, cells in analysis.spreads.items()
        for (dataset, score, shots), found in cells.items()
    ]
    ranks = [
        {
            "metric": metric,
            "average_ranks": dict(zip(found.scores, found.average_ranks.tolist(), strict=True)),
            "datasets": list(found.datasets),
            "left_out": [*found.left_out_scores, *found.left_out_datasets],
            "friedman": _number(found.statistic),
            "friedman_p": _number(found.p_value),
            "iman_davenport": _number(found.f_statistic),
            "iman_davenport_p": _number(found.f_p_value),
            "critical_difference": _number(found.critical_difference),
            "alpha": found.alpha,
        }
        for metric, found in analysis.ranks.items()
    ]
    comparisons = [
        {
            key: _number(value) if isinstance(value, float) else value
            for key, value in found.to_dict().items()
        }
        for found in analysis.comparisons
    ]
    setting = analysis.results.settings[0]._asdict() if analysis.results.rows else {}
    return {
        "setting": setting,
        "convention": analysis.results.convention,
        "reference": analysis.results.reference,
        "bootstrap": {
            "n_resamples": analysis.n_resamples,
            "seed": analysis.seed,
            "level": analysis.level,
            "convention": "exact",
        },
        "spreads": spreads,
        "ranks": ranks,
        "comparisons": comparisons,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
