"""Templates as self-contained HTML pages: one style, one script, no other file or host."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm._version import __version__
from trustvlm.exceptions import InputError
from trustvlm.files import check_file, shown_target, url_of, write_text
from trustvlm.plots import risk_coverage as plots
from trustvlm.plots.figure import Figure
from trustvlm.report import sections, summary
from trustvlm.report.summary import BIBTEX, CITATION, PAPER_URL, Acceptance
from trustvlm.tables.markup import environment_of
from trustvlm.tables.metrics import all_columns, by_aurc, number
from trustvlm.tables.scores import SIGNS, signs_of
from trustvlm.text import counted, main_clauses, percent, printable, shortened

if TYPE_CHECKING:
    from jinja2 import Environment

    from trustvlm.pipeline.evaluate import EvaluationResult


def render(
    template: str, *, package: str = "trustvlm.report", style: str = "", **content: Any
) -> str:
    """Fill a template of a package; what comes from data is escaped.

    Every template has `style`, `script` and `script_hash`, for a content security policy that
    allows nothing but the page's own script, besides `version` and what to cite. The style is that
    of this room, and the file `style` of the package after it.
    """
    css, script = _asset("trustvlm.report", "report.css"), _asset("trustvlm.report", "report.js")
    page = (
        _environment(package)
        .get_template(template)
        .render(
            content,
            version=__version__,
            style=css + (_asset(package, style) if style else ""),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            citation=CITATION,
            bibtex=BIBTEX,
            paper_url=PAPER_URL,
        )
    )
    # File names need not be UTF-8: Python marks such bytes with lone surrogates.
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment(package: str) -> Environment:
    from markupsafe import Markup

    from trustvlm.images.decoding import thumbnail

    environment = environment_of(package)
    environment.globals.update(counted=counted)
    # `markup` is for what this package made: its style, its script and its figures.
    environment.filters.update(
        markup=Markup,
        main_clauses=main_clauses,
        number=number,
        percent=percent,
        shortened=shortened,
        thumbnail=thumbnail,
    )
    return environment


def _asset(package: str, name: str) -> str:
    """Return a file beside the templates; its line ends are those that a browser hashes."""
    return resources.files(package).joinpath("templates", name).read_text("utf-8")


# All figures of an evaluation, inline in its page and as files of their own.

_MAX_CURVES = 6
# Many enough for steady ends of a 95 % interval, few enough for a hundred thousand images.
_RESAMPLES = 500


def write_figures(evaluation: EvaluationResult, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the figures of the report as SVG files, and return these.

    They are `risk-coverage.svg`, `confidence-histogram.svg` and, for a calibrated model,
    `reliability.svg`; none for fewer than two images. Each stands alone, dark on white.

    Parameters
    ----------
    evaluation
        The results of `trustvlm evaluate`.
    folder
        Where to write; missing folders are made, files of the same names replaced.
    """
    written = []
    for figure in figures_of(evaluation):
        written.append(Path(folder) / f"{figure.name}.svg")
        figure.save(written[-1])
    return written


def acceptances(evaluation: EvaluationResult) -> dict[str, Acceptance]:
    """Return what is drawn: the model's own score, msp, and the best others by AURC."""
    if not len(evaluation.labels):
        return {}
    ranked = by_aurc(evaluation.metrics)
    wanted = [name for name in (evaluation.score, "msp") if name in evaluation.results]
    names = list(dict.fromkeys(wanted + ranked))[:_MAX_CURVES]
    return {
        name: Acceptance.of(evaluation.results[name].confidence, evaluation.correct(name))
        for name in names
    }


def figures_of(evaluation: EvaluationResult) -> list[Figure]:
    """Return the figures of an evaluation; those that there is too little data for are left out."""
    n, correct = len(evaluation.labels), evaluation.correct()
    figures = []
    if n >= 2:
        confidence = evaluation.results[evaluation.score].confidence
        figures.append(_risk_coverage(evaluation))
        figures.append(
            plots.confidence_histogram(
                confidence,
                correct,
                score=evaluation.score,
                threshold=sections.threshold_of(evaluation),
            )
        )
    if n and evaluation.model.get("calibration"):
        figures.append(plots.reliability_diagram(*evaluation.probabilities()))
    return figures


def _risk_coverage(evaluation: EvaluationResult) -> Figure:
    curves = {name: accepted.curve() for name, accepted in acceptances(evaluation).items()}
    coverage = curves[evaluation.score][0]
    bands = {}
    for name in {evaluation.score, "msp"} & curves.keys():
        confidence = evaluation.results[name].confidence
        correct = evaluation.correct(name)
        band = metrics.risk_band(confidence, correct, coverage, n_resamples=_RESAMPLES)
        bands[name] = (band.low, band.high)
    return plots.risk_coverage_figure(
        curves,
        highlight=evaluation.score,
        bands=bands,
        ideal=perfect_curve(float(evaluation.correct().mean()), coverage),
        decided=_decided(evaluation),
        aurc={name: evaluation.metrics[name].aurc for name in curves},
    )


def perfect_curve(
    accuracy: float, coverage: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Risk-coverage curve of an order that puts every right label before every wrong one.

    Examples
    --------
    >>> perfect_curve(0.5, np.array([0.25, 0.5, 1.0]))[1]
    array([0. , 0. , 0.5])
    """
    return coverage, np.maximum(0.0, coverage - accuracy) / coverage


def _decided(evaluation: EvaluationResult) -> tuple[float, float] | None:
    """Share accepted by the model's decisions and share wrong among these; None for none."""
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    if not accepted.any():
        return None
    return float(accepted.mean()), float(1 - evaluation.correct()[accepted].mean())


# The evaluation as one self-contained HTML page.

_MAX_CLASSES, _MAX_FILES = 1000, 200


def check_report(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder, before any work is done, whose page is somebody else's.

    Raises
    ------
    OutputError
        If it cannot be written to.
    InputError
        If it holds an `index.html` that this package did not write, or is a model, which would be
        none with a page in it.
    """
    from trustvlm.images.references import is_own_page

    page = Path(folder) / "index.html"
    if url_of(folder) is None and (Path(folder) / "manifest.json").is_file():
        raise InputError(
            f"Expected {shown_target(folder)!r} to be a new folder or one with a report, but it is "
            "a model. Name another folder."
        )
    check_file(page)
    if url_of(folder) is None and os.path.lexists(page) and not is_own_page(page):
        raise InputError(
            f"Expected {shown_target(folder)!r} to be a new folder or one with a report, but it "
            "holds a page 'index.html' of another kind. Name another folder."
        )


def write_html(evaluation: EvaluationResult, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file, whole or not at all.

    Parameters
    ----------
    evaluation
        The results of `trustvlm evaluate`.
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
    classes, 200 listed files of a kind, 30 thumbnails of the images and 24 of the examples are
    shown, and the page says so.
    """
    n, health = len(evaluation.labels), evaluation.health
    drawn = acceptances(evaluation)
    compared = {
        name: drawn[name] for name in dict.fromkeys((evaluation.score, "msp")) if name in drawn
    }
    # By accuracy, lowest first, those without images last.
    classes = sorted(
        sections.class_rows(evaluation),
        key=lambda row: (row.images == 0, row.accuracy if row.images else 0.0, -row.wrong),
    )
    return render(
        "report.html.j2",
        evaluation=evaluation,
        n=n,
        findings=summary.findings(evaluation, compared),
        cautions=summary.cautions(evaluation),
        tiles=_tiles(evaluation, compared),
        points=summary.working_points(compared) if compared else [],
        compared=list(compared),
        figures={f.name: f.svg() for f in figures_of(evaluation)},
        columns=all_columns(),
        metric_rows=_metric_rows(evaluation),
        signs=SIGNS,
        classes=classes[:_MAX_CLASSES],
        classes_left_out=max(0, len(classes) - _MAX_CLASSES),
        groups=sections.galleries(evaluation) if n else [],
        confusions=sections.confusions(evaluation) if n else (),
        acceptance=sections.acceptance_section(evaluation),
        threshold=sections.threshold_of(evaluation),
        probability=sections.probability_terms(evaluation),
        shot_summary=sections.shot_summary(health) if health else "",
        # Six findings of a kind with pictures, or twelve without.
        shot_groups=[
            group.first(6 if group.cases[0].shots else 12)
            for group in (sections.shot_groups(health) if health else ())
        ],
        # The message begins with the path, which stands in a column of its own.
        failures=[
            (row.path, row.error.removeprefix(f"{printable(row.path)}: "))
            for row in evaluation.failures[:_MAX_FILES]
        ],
        excluded=evaluation.excluded[:_MAX_FILES],
        facts=summary.facts(evaluation),
        cited=summary.cited(evaluation),
    )


def _tiles(evaluation: EvaluationResult, compared: dict[str, Acceptance]) -> list[tuple[str, str]]:
    if not compared:
        return []
    own = compared[evaluation.score]
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    share = percent(float(accepted.mean()))
    wrong = percent(float(1 - evaluation.correct()[accepted].mean())) if accepted.any() else ""
    tiles = [
        (share, f"of {counted(own.n, 'label')} accepted"),
        (wrong, "wrong among the accepted"),
        (percent(own.accuracy_at(1.0)), "of all labels right"),
        (percent(evaluation.metrics[evaluation.score].auroc), "AUROC of the confidence"),
    ]
    return tiles if accepted.any() else [tiles[0], *tiles[2:]]


def _metric_rows(evaluation: EvaluationResult) -> list[dict[str, Any]]:
    from trustvlm import scores

    leaders = {column: column.best(evaluation.metrics) for column in all_columns()}
    rows = []
    for name in by_aurc(evaluation.metrics):
        values = {column: column.value(evaluation.metrics[name]) for column in all_columns()}
        score = scores.get(name) if name in scores.names() else None
        rows.append(
            {
                "name": name,
                "own": name == evaluation.score,
                "summary": score.summary.replace("`", "") if score else "",
                "signs": signs_of(name),
                "cells": [
                    {"text": number(value), "value": value, "best": value == leaders[column]}
                    for column, value in values.items()
                ],
            }
        )
    return rows
