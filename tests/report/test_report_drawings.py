"""The figures of a report: on its page, as files, and the band in them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from evaluations import empty_evaluation, make_evaluation
from trustvlm import metrics
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report import render_html, write_figures
from trustvlm.report.page import figures_of
from trustvlm.report.summary import Acceptance


def test_files_hold_the_figures_of_the_page(tmp_path):
    evaluation = make_evaluation()
    files = write_figures(evaluation, tmp_path / "figures")
    assert [file.name for file in files] == ["risk-coverage.svg", "confidence-histogram.svg"]
    page = render_html(evaluation)
    for file in files:
        assert ElementTree.fromstring(file.read_text("utf-8")).tag.endswith("svg")
        assert file.read_text("utf-8").strip() in page
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        file.name for file in files
    )


@pytest.mark.parametrize("evaluation", [empty_evaluation(), make_evaluation(n=1)])
def test_too_few_images_make_no_figure(evaluation, tmp_path):
    assert write_figures(evaluation, tmp_path) == []


def test_the_curve_runs_within_its_own_band():
    evaluation = make_evaluation(n=200)
    confidence, correct = evaluation.results["trustvlm"].confidence, evaluation.correct()
    coverage, risk = Acceptance.of(confidence, correct).curve()
    band = metrics.risk_band(confidence, correct, coverage)
    np.testing.assert_allclose(band.risk, risk, atol=1e-12)
    inside = (band.low <= risk) & (risk <= band.high)
    assert inside.mean() > 0.99


def lines_of(evaluation):
    (axes,) = figures_of(evaluation)[0].matplotlib().subfigs[0].axes
    return axes.get_lines()


def test_the_own_score_is_drawn_first_with_its_curve():
    evaluation = make_evaluation(n=90)
    confidence = evaluation.results["trustvlm"].confidence
    coverage, risk = Acceptance.of(confidence, evaluation.correct()).curve()
    areas = [f"{1000 * evaluation.metrics[name].aurc:.0f}" for name in ("trustvlm", "msp")]
    labels = (f"trustvlm: AURC {areas[0]}", f"msp: AURC {areas[1]}")
    assert figures_of(evaluation)[0].labels[:2] == labels
    assert lines_of(evaluation)[0].get_xdata() == pytest.approx(100 * coverage)
    assert lines_of(evaluation)[0].get_ydata() == pytest.approx(100 * risk)


def test_long_curves_are_thinned_to_what_a_picture_shows():
    n = 20_000
    k = np.arange(n)
    evaluation = Acceptance.of(-k, np.sin(k) > -0.5)
    coverage, risk = evaluation.curve()
    assert len(coverage) <= 200
    assert (coverage[0], coverage[-1]) == (1 / n, 1)
    assert risk[-1] == pytest.approx((np.sin(k) <= -0.5).mean())


def test_the_decisions_are_a_ring_where_they_accept_something():
    evaluation = make_evaluation(n=90)
    accepted = [v.decision == "accept" for v in evaluation.verdicts]
    wrong = sum(a and not r for a, r in zip(accepted, evaluation.correct(), strict=True))
    expected = (100 * sum(accepted) / 90, 100 * wrong / sum(accepted))
    assert figures_of(evaluation)[0].labels[-1] == "decisions"
    assert lines_of(evaluation)[-1].get_xydata()[0] == pytest.approx(expected)
    rows = [replace(v, decision="review") for v in evaluation.verdicts]
    without = figures_of(make_evaluation(n=90, verdicts=Verdicts(rows)))[0]
    assert "decisions" not in without.labels
