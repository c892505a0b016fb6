"""What an evaluation found, for people: a terminal table, a web page, figures.

`table(evaluation)` is for a terminal, `write_html(evaluation, path)` writes one self-contained
page, `write_figures(evaluation, folder)` its drawings as SVG files, and `figures` draws them from
arrays. `compare_runs` tells two evaluations apart; `write_comparison` and `comparison_table` show
what it finds.
"""

from __future__ import annotations

from trustvlm.report import figures
from trustvlm.report.comparing import compare_runs
from trustvlm.report.comparison_page import (
    comparison_table,
    render_comparison,
    write_comparison,
)
from trustvlm.report.drawings import write_figures
from trustvlm.report.page import render_html, write_html
from trustvlm.report.runs import read_run
from trustvlm.report.terminal import table

__all__ = [
    "compare_runs",
    "comparison_table",
    "figures",
    "read_run",
    "render_comparison",
    "render_html",
    "table",
    "write_comparison",
    "write_figures",
    "write_html",
]
