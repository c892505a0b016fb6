"""The comparison of two runs as one self-contained HTML page, and as a terminal table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trustvlm import metrics
from trustvlm.files import write_text
from trustvlm.report.accepting import Acceptance
from trustvlm.report.columns import COLUMNS
from trustvlm.report.comparing import Compared
from trustvlm.report.comparison_words import (
    better,
    comparison_cautions,
    comparison_findings,
    p_value_text,
    run_facts,
    shown,
)
from trustvlm.report.facts import BIBTEX, CITATION, PAPER_URL
from trustvlm.report.figures import risk_coverage_svg
from trustvlm.report.rendering import render
from trustvlm.report.wording import counted, percent, shortened

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_figure", "comparison_table", "render_comparison", "write_comparison"]

_RESAMPLES, _LISTED = 500, 50


def write_comparison(found: Compared, path: str | os.PathLike[str]) -> None:
    """Write the comparison as one HTML file, whole or not at all."""
    write_text(path, render_comparison(found))


def render_comparison(found: Compared) -> str:
    """Return the comparison as one HTML page: no other file, no other host, same bytes each time.

    At most 50 images of a kind are listed.
    """
    from markupsafe import Markup

    figure = comparison_figure(found)
    only_a = found.correct_a & ~found.correct_b
    only_b = found.correct_b & ~found.correct_a
    return render(
        "comparison.html.j2",
        found=found,
        a=found.a.name,
        b=found.b.name,
        # Made by this package, which escapes what comes from data.
        figure=Markup(figure) if figure else "",  # noqa: S704
        tiles=_tiles(found),
        findings=comparison_findings(found),
        cautions=comparison_cautions(found),
        rows=_rows(found),
        columns=COLUMNS,
        groups=[
            (f"Right by {shortened(found.b.name, 80)} alone", *_listed(found, only_b)),
            (f"Right by {shortened(found.a.name, 80)} alone", *_listed(found, only_a)),
        ],
        facts=run_facts(found),
        citation=CITATION,
        bibtex=BIBTEX,
        paper_url=PAPER_URL,
    )


def comparison_figure(found: Compared) -> str:
    """Draw both risk-coverage curves with their bands, as SVG; "" for fewer than two images."""
    if found.n < 2:
        return ""
    curves, bands = {}, {}
    for run, confidence, correct in (
        (found.a, found.confidence_a, found.correct_a),
        (found.b, found.confidence_b, found.correct_b),
    ):
        name = shortened(run.name, 20)
        # Long names may be shortened to the same.
        name = f"{name} (B)" if name in curves else name
        curves[name] = Acceptance.of(confidence, correct).curve()
        band = metrics.risk_band(confidence, correct, curves[name][0], n_resamples=_RESAMPLES)
        bands[name] = (band.low, band.high)
    return risk_coverage_svg(curves, highlight=list(curves)[-1], bands=bands)


def comparison_table(found: Compared) -> Table:
    """Build the terminal table of all metrics; it fits 80 columns unless names are long."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(
            f"{found.b.name} against {found.a.name}: {counted(found.n, 'image')}, paired by "
            f"{found.pairing.by}",
            style="bold",
        ),
        caption=Text(
            f"Difference with its {100 * found.differences[0].level:g} % interval (paired "
            "bootstrap); p corrected (Holm)\nexcept AURC's. The AURC family is x1000, the rest in "
            "percent."
        ),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("Metric", no_wrap=True, min_width=12)
    for name in (found.a.name, found.b.name):
        heading = Text(shortened(name, 10))
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    table.add_column("Difference", justify="right", no_wrap=True, min_width=26)
    table.add_column("p", justify="right", no_wrap=True, min_width=6)
    table.add_column("Better", overflow="ellipsis", no_wrap=True, min_width=6)
    for row in _rows(found):
        interval = f"{row['difference']} [{row['low']}, {row['high']}]"
        table.add_row(
            row["title"],
            row["a"].replace("undefined", "-"),
            row["b"].replace("undefined", "-"),
            Text("-" if row["difference"] == "undefined" else interval),
            row["p"].replace("under ", "<").replace("undefined", "-"),
            Text(shortened(row["better"], 14)),
        )
    return table


def _tiles(found: Compared) -> list[tuple[str, str]]:
    right = [float(np.mean(correct)) for correct in (found.correct_a, found.correct_b)]
    return [
        (f"{found.n:,}", "images in both runs"),
        (f"{percent(right[0])}", f"right by {shortened(found.a.name, 40)}"),
        (f"{percent(right[1])}", f"right by {shortened(found.b.name, 40)}"),
        (p_value_text(found.of("aurc").p_value), "p-value of the difference in AURC"),
    ]


def _rows(found: Compared) -> list[dict[str, Any]]:
    rows = []
    for column in COLUMNS:
        one = found.of(column.key)
        rows.append(
            {
                "title": column.title,
                "unit": "%" if column.scale == 100 else f"×{column.scale}",
                "meaning": column.meaning,
                **{k: shown(column, getattr(one, k)) for k in ("a", "b", "low", "high")},
                "difference": shown(column, one.difference),
                "p": p_value_text(one.p_adjusted),
                "better": better(found, one),
            }
        )
    return rows


def _listed(found: Compared, chosen: Any) -> tuple[list[dict[str, str]], int]:
    """Return the first images of a kind, most trusted by the wrong run first, and their number."""
    places = np.flatnonzero(chosen)
    wrong_in_a = bool(len(places)) and not found.correct_a[places[0]]
    trust = found.confidence_a if wrong_in_a else found.confidence_b
    rows = []
    for k in places[np.argsort(-trust[places], kind="stable")[:_LISTED]]:
        i, j = found.pairing.a[k], found.pairing.b[k]
        rows.append(
            {
                "path": found.a.paths[i],
                "truth": found.a.truths[i],
                "a": found.a.labels[i],
                "b": found.b.labels[j],
                "confidence_a": f"{found.confidence_a[k]:.3f}",
                "confidence_b": f"{found.confidence_b[k]:.3f}",
            }
        )
    return rows, len(places)
