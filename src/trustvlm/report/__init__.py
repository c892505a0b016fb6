"""An evaluation for people: a terminal table, a web page, figures.

`table(evaluation)` is for a terminal, `write_html(evaluation, path)` writes one self-contained
page, `write_figures(evaluation, folder)` its figures as SVG files, and `figures` draws them from
arrays. `compare_runs` tests two evaluations against each other; `write_comparison` and
`comparison_table` show the result.
"""

from trustvlm.plots import risk_coverage as figures
from trustvlm.report.comparison_page import (
    compare_runs,
    comparison_table,
    read_run,
    render_comparison,
    write_comparison,
)
from trustvlm.report.page import check_report, render_html, write_figures, write_html
from trustvlm.report.terminal import table

__all__ = [
    "check_report",
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
