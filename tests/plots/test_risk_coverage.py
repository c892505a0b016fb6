"""What the figures of an evaluation draw is what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.plots.figure import SERIES
from trustvlm.plots.risk_coverage import (
    confidence_histogram,
    reliability_diagram,
    risk_coverage_figure,
)

K = np.arange(1, 101) / 100


def axes_of(figure):
    (axes,) = figure.matplotlib().subfigs[0].axes
    return axes


def test_curves_are_drawn_in_percent_as_they_are():
    curves = {"own": (K, K / 2), "msp": (K, K / 3)}
    own, msp = axes_of(risk_coverage_figure(curves, highlight="own")).get_lines()
    for line, (x, y) in zip((own, msp), curves.values(), strict=True):
        assert line.get_xdata() == pytest.approx(100 * x)
        assert line.get_ydata() == pytest.approx(100 * y)
    assert own.get_linewidth() > msp.get_linewidth()
    assert (own.get_linestyle(), msp.get_linestyle()) == ("-", "--")


def test_a_band_is_drawn_where_it_was_asked_for():
    curves = {"own": (K, K / 2), "msp": (K, K / 3)}
    assert not axes_of(risk_coverage_figure(curves)).collections
    (band,) = axes_of(risk_coverage_figure(curves, bands={"msp": (K / 4, K / 2)})).collections
    assert (
        "#{:02x}{:02x}{:02x}".format(*np.rint(255 * band.get_facecolor()[0, :3]).astype(int))
        == (SERIES[1])
    )
    assert band.get_facecolor()[0, 3] < 0.2
    corners = band.get_paths()[0].vertices
    at_half = corners[np.isclose(corners[:, 0], 50)][:, 1]
    assert (at_half.min(), at_half.max()) == pytest.approx((12.5, 25))


def test_a_band_must_fit_its_curve():
    with pytest.raises(InputError, match="own"):
        risk_coverage_figure({"own": (K, K)}, bands={"own": (K[1:], K[1:])})


def test_oracle_and_decisions_are_in_figure_and_legend():
    figure = risk_coverage_figure({"own": (K, K)}, ideal=(K, K / 2), decided=(0.5, 0.25))
    assert figure.labels == ("own", "oracle", "decisions")
    _, perfect, ring = axes_of(figure).get_lines()
    assert perfect.get_ydata() == pytest.approx(50 * K)
    assert (*ring.get_xdata(), *ring.get_ydata()) == (50, 25)
    assert risk_coverage_figure({"own": (K, K)}).labels == ("own",)


def test_a_ring_above_every_curve_stays_within_the_frame():
    low = (K, np.full(100, 0.01))
    figure = risk_coverage_figure({"own": low}, decided=(0.05, 0.8))
    assert axes_of(figure).get_ylim() == pytest.approx((0, 92))


def test_an_early_spike_does_not_flatten_the_curve():
    risk = np.full(100, 0.1)
    risk[0] = 1.0
    assert axes_of(risk_coverage_figure({"a": (K, risk)})).get_ylim() == pytest.approx((0, 11.5))


def test_a_curve_without_errors_is_drawn():
    figure = risk_coverage_figure({"a": (K, np.zeros(100))}, ideal=(K, np.zeros(100)))
    assert axes_of(figure).get_ylim() == (0, 1)
    assert "<svg" in figure.svg()


def test_the_histogram_counts_right_and_wrong():
    figure = confidence_histogram([0.1, 0.2, 0.9], [False, True, True], bins=4)
    assert figure.labels == ("right (2), upwards", "wrong (1), downwards")
    above, below = (stairs.get_data() for stairs in axes_of(figure).patches)
    assert above.values.tolist() == [1, 0, 0, 1]
    assert below.values.tolist() == [-1, 0, 0, 0]
    assert above.edges == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize("confidence", [[0.5], [0.5, 0.5]])
def test_a_single_value_makes_a_histogram(confidence):
    figure = confidence_histogram(confidence, [True] * len(confidence))
    above, _ = (stairs.get_data() for stairs in axes_of(figure).patches)
    assert above.values.sum() == len(confidence)


def test_reliability_draws_groups_against_the_diagonal():
    probability = np.linspace(0, 1, 60)
    correct = np.arange(60) % 3 > 0
    groups = metrics.reliability(probability, correct, 15)
    axes = axes_of(reliability_diagram(probability, correct))
    diagonal, points = axes.get_lines()
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    assert points.get_xdata() == pytest.approx(100 * groups.probability)
    assert points.get_ydata() == pytest.approx(100 * groups.right)
    bars, discs = axes.collections
    ends = np.array(bars.get_segments())[:, :, 1]
    half = 196 * groups.spread
    assert ends[:, 0] == pytest.approx(np.maximum(100 * groups.probability - half, 0))
    assert ends[:, 1] == pytest.approx(np.minimum(100 * groups.probability + half, 100))
    assert np.asarray(discs.get_offsets()) == pytest.approx(points.get_xydata())


@pytest.mark.parametrize(
    "curves", [{}, {str(i): (K, K) for i in range(9)}, {"a": ([], [])}, {"a": (K, K[:5])}]
)
def test_unusable_curves_are_refused(curves):
    with pytest.raises(InputError, match="Expected"):
        risk_coverage_figure(curves)


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.1], [True, False])])
def test_unusable_confidence_is_refused(confidence, correct):
    with pytest.raises(InputError, match="Expected"):
        confidence_histogram(confidence, correct)


def test_no_image_makes_no_reliability_diagram():
    with pytest.raises(InputError, match="at least one image"):
        reliability_diagram([], [])
