"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trustvlm.files import write_text
from trustvlm.report.accepting import Acceptance
from trustvlm.report.calibration_section import calibration_section
from trustvlm.report.classes import ClassRow, class_rows
from trustvlm.report.columns import COLUMNS, by_aurc, number
from trustvlm.report.confusions import confusions
from trustvlm.report.drawings import acceptances, drawings
from trustvlm.report.facts import BIBTEX, CITATION, PAPER_URL, cited, facts
from trustvlm.report.gallery import galleries
from trustvlm.report.rendering import render
from trustvlm.report.shot_section import shot_section
from trustvlm.report.summary import cautions, findings, working_points
from trustvlm.report.wording import percent

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["render_html", "write_html"]

_MAX_CLASSES, _MAX_FILES = 1000, 200


def write_html(evaluation: EvaluationResult, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file, whole or not at all.

    Parameters
    ----------
    evaluation
        What `trustvlm evaluate` found.
    path
        The file to write; missing folders are made.

    See Also
    --------
    render_html : the same page as text.
    """
    write_text(path, render_html(evaluation))


def render_html(evaluation: EvaluationResult) -> str:
    """Return the report as one HTML page: no other file, no other host, the same bytes every time.

    Everything that comes from data (class names, paths, reasons) is escaped, and a content
    security policy allows nothing but the page's own script. The size is bounded: at most 1000
    classes, 200 listed files of a kind, 51 thumbnails of the images and 24 of the examples are
    shown, and the page says so.
    """
    from markupsafe import Markup

    n = len(evaluation.labels)
    drawn = acceptances(evaluation)
    compared = {
        name: drawn[name] for name in dict.fromkeys((evaluation.score, "msp")) if name in drawn
    }
    rows = class_rows(evaluation)
    shown = _shown_classes(rows)
    return render(
        "report.html.j2",
        evaluation=evaluation,
        n=n,
        findings=findings(evaluation, compared),
        cautions=cautions(evaluation),
        tiles=_tiles(evaluation, compared),
        points=working_points(compared) if compared else [],
        compared=list(compared),
        # Made by this package, which escapes what comes from data.
        figures={k: Markup(v) for k, v in drawings(evaluation).items()},  # noqa: S704
        columns=COLUMNS,
        metric_rows=_metric_rows(evaluation),
        classes=shown,
        classes_left_out=len(rows) - len(shown),
        groups=galleries(evaluation) if n else [],
        confusions=confusions(evaluation) if n else (),
        calibration=calibration_section(evaluation),
        shots=shot_section(evaluation.health),
        failures=_failures(evaluation),
        excluded=evaluation.excluded[:_MAX_FILES],
        facts=facts(evaluation),
        citation=CITATION,
        bibtex=BIBTEX,
        cited=cited(evaluation),
        paper_url=PAPER_URL,
    )


def _tiles(evaluation: EvaluationResult, compared: dict[str, Acceptance]) -> list[tuple[str, str]]:
    if not compared:
        return []
    own, found = compared[evaluation.score], evaluation.metrics[evaluation.score]
    tiles = [
        (f"{own.n:,}", "images evaluated"),
        (percent(own.accuracy_at(1.0)), "of all labels right"),
    ]
    if own.n >= 10:
        tiles.append((percent(own.accuracy_at(0.8)), "right among the most trusted 80\u00a0%"))
    tiles.append((percent(found.auroc), "AUROC of the trust score"))
    return tiles


def _metric_rows(evaluation: EvaluationResult) -> list[dict[str, Any]]:
    from trustvlm import scores

    leaders = {column.key: column.best(evaluation.metrics) for column in COLUMNS}
    rows = []
    for name in by_aurc(evaluation.metrics):
        cells = []
        for column in COLUMNS:
            value = column.value(evaluation.metrics[name])
            cells.append(
                {"text": number(value), "value": value, "best": value == leaders[column.key]}
            )
        known = scores.get(name) if name in scores.names() else None
        rows.append(
            {
                "name": name,
                "own": name == evaluation.score,
                "summary": known.summary.replace("`", "") if known else "",
                "corrects": bool(known and known.corrects),
                "cells": cells,
            }
        )
    return rows


def _failures(evaluation: EvaluationResult) -> list[tuple[str, str]]:
    # The message begins with the path, which stands in a column of its own.
    return [
        (row.path, row.error.removeprefix(f"{row.path}: "))
        for row in evaluation.failures[:_MAX_FILES]
    ]


def _shown_classes(rows: list[ClassRow]) -> list[ClassRow]:
    """Return at most 1000 classes by accuracy, lowest first, those without images last."""

    def key(row: ClassRow) -> tuple[bool, float, int]:
        return (row.images == 0, row.accuracy if row.images else 0.0, -row.wrong)

    return sorted(rows, key=key)[:_MAX_CLASSES]
