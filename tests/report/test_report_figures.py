from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from trustvlm.exceptions import InputError
from trustvlm.plots import risk_coverage, svg

K = np.arange(1, 101) / 100


def words(drawing: str) -> list[str]:
    return [
        "".join(e.itertext()) for e in ElementTree.fromstring(drawing).iter() if "text" in e.tag
    ]


def both(**settings) -> list[str]:
    return [
        risk_coverage.risk_coverage_svg({"own": (K, K / 2), "msp": (K, K / 3)}, **settings),
        risk_coverage.confidence_histogram_svg(K, K > 0.4, **settings),
    ]


def test_figures_are_well_formed_and_described():
    for drawing in both():
        root = ElementTree.fromstring(drawing)
        ids = {element.get("id") for element in root.iter()}
        assert root.get("role") == "img"
        assert set(root.get("aria-labelledby").split()) <= ids
        assert root.get("viewBox").split()[2:] == [root.get("width"), root.get("height")]


def test_figures_have_no_colours_of_their_own():
    for drawing in both():
        bare = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", drawing)
        assert not re.search(r"(fill|stroke|color):\s*#", bare)
        assert "currentColor" in drawing
        assert "DejaVu" not in drawing
    assert not any(stand_in in "".join(both()) for stand_in in (svg.INK, svg.GRID, *svg.SERIES))


def test_figures_name_no_host_but_the_namespace():
    for drawing in both():
        assert set(re.findall(r"https?://[^\"' ]+", drawing)) == {"http://www.w3.org/2000/svg"}
        assert "<metadata" not in drawing


def test_same_input_same_bytes_whatever_the_user_configured():
    before = both()
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert both() == before
        assert mpl.rcParams["font.size"] == 40


def test_identifiers_are_unique_within_a_page():
    drawings = [*both(), *both(name="second")]
    first, second = ("".join(drawings[:2]), "".join(drawings[2:]))
    ids = [re.findall(r' id="([^"]+)"', text) for text in (first, second)]
    assert not set(ids[0]) & set(ids[1])
    for drawing in drawings:
        own = re.findall(r' id="([^"]+)"', drawing)
        assert len(own) == len(set(own))
        assert set(re.findall(r"[\"(]#([\w.-]+)", drawing)) <= set(own)


def test_long_curves_are_thinned():
    n = 200_000
    k = np.arange(1, n + 1)
    drawing = risk_coverage.risk_coverage_svg({"a": (k / n, np.abs(np.sin(k)))})
    assert len(drawing) < 60_000


def test_names_are_text_and_nothing_else():
    names = ["_private", "a<b>&c", "$x^2$", "#010101"]
    drawing = risk_coverage.risk_coverage_svg(dict.fromkeys(names, (K, K)))
    assert [word for word in words(drawing) if word in names] == names


def test_an_early_spike_does_not_flatten_the_curve():
    risk = np.full(100, 0.1)
    risk[0] = 1.0
    drawing = risk_coverage.risk_coverage_svg({"a": (K, risk)})
    assert "100" in words(drawing)  # of the coverage axis, and only there
    assert words(drawing).count("100") == 1


def test_a_curve_without_errors_is_drawn():
    assert "<svg" in risk_coverage.risk_coverage_svg(
        {"a": (K, np.zeros(100))}, ideal=(K, np.zeros(100))
    )


def test_the_histogram_counts_right_and_wrong():
    shown = words(risk_coverage.confidence_histogram_svg([0.1, 0.2, 0.9], [False, True, True]))
    assert "right (2), upwards" in shown
    assert "wrong (1), downwards" in shown


@pytest.mark.parametrize("confidence", [[0.5], [0.5, 0.5]])
def test_a_single_value_makes_a_histogram(confidence):
    assert "<svg" in risk_coverage.confidence_histogram_svg(confidence, [True] * len(confidence))


@pytest.mark.parametrize(
    "curves", [{}, {str(i): (K, K) for i in range(9)}, {"a": ([], [])}, {"a": (K, K[:5])}]
)
def test_unusable_curves_are_refused(curves):
    with pytest.raises(InputError, match="Expected"):
        risk_coverage.risk_coverage_svg(curves)


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.1], [True, False])])
def test_unusable_confidence_is_refused(confidence, correct):
    with pytest.raises(InputError, match="Expected"):
        risk_coverage.confidence_histogram_svg(confidence, correct)
