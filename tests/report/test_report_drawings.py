"""The figures of a report as files, and the band in them."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from evaluations import empty_evaluation, make_evaluation
from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.plots import risk_coverage
from trustvlm.report import render_html, write_figures
from trustvlm.report.page import drawings
from trustvlm.report.summary import Acceptance

K = np.arange(1, 11) / 10


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


def test_a_band_is_drawn_where_it_was_asked_for():
    curves = {"own": (K, K / 2), "msp": (K, K / 3)}
    plain = risk_coverage.risk_coverage_svg(curves)
    banded = risk_coverage.risk_coverage_svg(curves, bands={"msp": (K / 4, K / 2)})
    assert "opacity" not in plain
    (style,) = [part for part in banded.split('style="') if "opacity" in part.split('"')[0]]
    assert "--series-2" in style.split('"')[0]


def test_a_band_must_fit_its_curve():
    with pytest.raises(InputError, match="own"):
        risk_coverage.risk_coverage_svg({"own": (K, K)}, bands={"own": (K[1:], K[1:])})


def test_the_decisions_are_a_ring_where_they_accept_something(monkeypatch):
    drawn = {}

    def draw(curves, **settings):
        drawn.update(settings)
        return "<svg/>"

    monkeypatch.setattr("trustvlm.report.page.risk_coverage_svg", draw)
    evaluation = make_evaluation(n=90)
    drawings(evaluation)
    accepted = [v.decision == "accept" for v in evaluation.verdicts]
    wrong = sum(a and not r for a, r in zip(accepted, evaluation.correct(), strict=True))
    assert drawn["decided"] == pytest.approx((sum(accepted) / 90, wrong / sum(accepted)))
    rows = [replace(v, decision="review") for v in evaluation.verdicts]
    drawings(make_evaluation(n=90, verdicts=Verdicts(rows)))
    assert drawn["decided"] is None


def test_a_ring_is_in_the_legend():
    assert ">decisions<" in risk_coverage.risk_coverage_svg({"own": (K, K)}, decided=(0.5, 0.25))
    assert ">decisions<" not in risk_coverage.risk_coverage_svg({"own": (K, K)})


def test_a_ring_above_every_curve_stays_within_the_frame():
    low = (K, np.full(10, 0.01))
    drawing = risk_coverage.risk_coverage_svg({"own": low}, decided=(0.05, 0.8))
    ticks = [float(t) for t in re.findall(r">(\d+(?:\.\d+)?)</text>", drawing)]
    assert max(ticks) >= 80
