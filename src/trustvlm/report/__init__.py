"""What an evaluation found, for people: a terminal table, a web page, figures.

`table(evaluation)` is for a terminal, `write_html(evaluation, path)` writes one self-contained
page, `write_figures(evaluation, folder)` its drawings as SVG files, and `figures` draws them from
arrays.
"""

from __future__ import annotations

from trustvlm.report import figures
from trustvlm.report.drawings import write_figures
from trustvlm.report.page import render_html, write_html
from trustvlm.report.terminal import table

__all__ = ["figures", "render_html", "table", "write_figures", "write_html"]
