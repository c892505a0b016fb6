"""Figures: what is drawn where, in which colours, and the same bytes every time."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps

from bench_results import make_results
from figure_texts import cut, overlapping, words
from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.figures import (
    equal_coverage_figure,
    leading_scores,
    modality_figure,
    modality_labels,
    rank_figure,
    risk_coverage_figure,
    shots_figure,
)
from trustvlm.benchmark.heat_maps import heat_map
from trustvlm.exceptions import InputError
from trustvlm.metrics import risk_coverage
from trustvlm.plots.figure import ink_on
from trustvlm.plots.panels import Curve, Panel, small_multiples

SCORES = ("msp", "image_similarity", "trustvlm", "trustvlm_star")


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def analysis(results):
    return analyse(results, ["aurc", "auroc"], n_resamples=50)


def study_row(value, **keys):
    about = {"dataset": "a", "score": "trustvlm", "shots": 16, "draw": 0, "aurc": value}
    return about | keys


def sensitivity_rows():
    return [
        study_row(0.1 + w / 10 + t, weight=w, temperature=t, dataset=dataset)
        for dataset in "ab"
        for w in (0.5, 1.0)
        for t in (0.01, 0.1, 1.0)
    ]


def sensitivity_figure(rows, banner=""):
    keys = ("weight", "temperature")
    about = {"keys": keys, "words": keys, "name": "sensitivity-aurc", "title": "Sensitivity"}
    return heat_map(rows, "aurc", framed=(1.0, 0.01), banner=banner, **about)


def encoder_figure(rows):
    keys = ("vlm", "vision")
    return heat_map(rows, "aurc", keys=keys, words=keys, name="encoders-aurc", title="Encoders")


def shift_figure(rows):
    about = {"keys": ("support", "dataset"), "words": ("shots from", "tested on")}
    return heat_map(rows, "aurc", name="shift-aurc", title="Shift", shade_columns=True, **about)


def every_figure(analysis):
    encoders = [study_row(0.2, vlm="<clip>", vision=v) for v in ("same", "dinov2-base")]
    shift = [study_row(0.2, dataset=d, support=s) for d in "xy" for s in "xy"]
    return [
        shots_figure(analysis, "aurc", SCORES),
        shots_figure(analysis, "aurc", SCORES, by_dataset=True),
        risk_coverage_figure(analysis, SCORES),
        modality_figure(analysis, "aurc", modality_labels(SCORES)),
        equal_coverage_figure(analysis, SCORES),
        rank_figure(analysis, "aurc"),
        sensitivity_figure(sensitivity_rows()),
        encoder_figure(encoders),
        shift_figure(shift),
    ]


@pytest.fixture(scope="module")
def drawings(analysis):
    return every_figure(analysis)


def axes_of(drawing):
    figure = drawing.matplotlib()
    return [axes for part in figure.subfigs or [figure] for axes in part.axes]


def test_figures_are_well_formed_described_and_named_apart(drawings):
    for drawing in drawings:
        text = replace(drawing, name=f"chapter-{drawing.name}").svg()
        root = ElementTree.fromstring(text)
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        assert all(name.startswith(f"chapter-{drawing.name}") for name in ids)
        assert set(re.findall(r"[\"(]#([\w.-]+)\b(?=[\")])", text)) <= set(ids)
        assert [e.text for e in root[:2]] == [drawing.title, drawing.caption]
        assert set(root.get("aria-labelledby").split()) <= set(ids)
        assert "<metadata" not in text
        assert "<style" not in text


def test_files_are_what_pages_show(drawings, tmp_path):
    for drawing in drawings:
        drawing.save(tmp_path / "figure.svg")
        assert (tmp_path / "figure.svg").read_text("utf-8") == drawing.svg() + "\n"
    with pytest.raises(InputError, match=r"\.png"):
        drawings[0].save(tmp_path / "figure.png")


def test_pdfs_are_pdfs_without_dates(drawings, tmp_path):
    for drawing in drawings:
        drawing.save(tmp_path / "figure.pdf")
        content = (tmp_path / "figure.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert content.rstrip().endswith(b"%%EOF")
        assert not re.search(rb"/(CreationDate|ModDate|Producer|Creator)\b", content)
        assert b"/FontFile2" in content or b"TrueType" in content


def test_no_text_is_cut_or_lies_on_another(drawings):
    for drawing in drawings:
        assert cut(drawing) == [], drawing.name
        assert overlapping(drawing) == [], drawing.name


def test_captions_name_unit_and_direction(drawings):
    for drawing in drawings:
        if "aurc" in drawing.name and not drawing.name.startswith("ranks"):
            assert "AURC ×1000, lower is better" in drawing.caption
        assert drawing.caption.endswith(".")
        assert len(drawing.caption.split()) <= 40
        assert re.search(r"\d shots? per class; (\d+ draws|draw 0) of the shots; ", drawing.notes)
        assert "Convention exact" in drawing.notes


def test_captions_count_the_images(analysis):
    for drawing in (
        shots_figure(analysis, "aurc", SCORES),
        risk_coverage_figure(analysis, SCORES),
        modality_figure(analysis, "aurc", modality_labels(SCORES)),
        equal_coverage_figure(analysis, SCORES),
        rank_figure(analysis, "aurc"),
    ):
        assert "3 data sets with 120 test images each" in drawing.notes


def test_banners_are_part_of_the_figure():
    drawing = sensitivity_figure(sensitivity_rows(), banner="Not for choosing")
    assert "Not for choosing" in words(drawing.svg())
    assert drawing.caption.startswith("Not for choosing. ")


def test_columns_that_cannot_be_compared_are_shaded_by_themselves():
    rows = [
        study_row(value, dataset=d, support=s)
        for (d, s), value in {
            ("easy", "x"): 0.1, ("easy", "y"): 0.2, ("hard", "x"): 0.9, ("hard", "y"): 0.8
        }.items()
    ]  # fmt: skip
    (axes,) = axes_of(shift_figure(rows))
    shade = {(p.get_x(), p.get_y()): p.get_facecolor() for p in axes.patches}
    assert shade[0, 0] == shade[1, 1]
    assert shade[0, 1] == shade[1, 0]
    assert shade[0, 0] != shade[0, 1]


PROGRAM = """
import hashlib, pathlib, sys
from bench_results import make_results
from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.figures import rank_figure, risk_coverage_figure, shots_figure
analysis = analyse(make_results(), ["aurc"], n_resamples=50)
scores = ["msp", "trustvlm"]
for drawing in (
    shots_figure(analysis, "aurc", scores),
    risk_coverage_figure(analysis, scores),
    rank_figure(analysis, "aurc"),
):
    for file in (pathlib.Path(sys.argv[1], f"{drawing.name}.{kind}") for kind in ("svg", "pdf")):
        drawing.save(file)
        print(hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_other_processes_draw_the_same_bytes(tmp_path):
    hashes = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0].split())) == 6


def test_shots_curves_are_means_with_bands_of_the_spread(analysis):
    (axes,) = axes_of(shots_figure(analysis, "aurc", SCORES))
    for line, score in zip(axes.get_lines(), SCORES, strict=True):
        expected = [1000 * analysis.mean("aurc", score, shots).mean for shots in (1, 16)]
        assert line.get_ydata() == pytest.approx(expected)
        assert line.get_xdata() == pytest.approx([0, 4])
    for band, score in zip(axes.collections, SCORES, strict=True):
        sd = 1000 * analysis.mean("aurc", score, 16).sd
        mean = 1000 * analysis.mean("aurc", score, 16).mean
        at = band.get_paths()[0].vertices
        right = at[at[:, 0] == 4][:, 1]
        assert (right.min(), right.max()) == pytest.approx((mean - sd, mean + sd))


def test_small_multiples_have_a_panel_for_each_data_set(analysis, results):
    axes = axes_of(shots_figure(analysis, "aurc", SCORES, by_dataset=True))
    assert [a.get_title(loc="left") for a in axes] == list(results.datasets)
    styles = {tuple((ln.get_color(), ln.get_marker()) for ln in a.get_lines()) for a in axes}
    assert len(styles) == 1


def test_lines_differ_by_more_than_colour():
    curves = {str(i): Curve(np.arange(3.0), np.arange(3.0) + i) for i in range(8)}
    figure = small_multiples(
        [Panel("", curves)], name="n", title="t", caption="c.", x_label="x", y_label="y"
    )
    (axes,) = axes_of(figure)
    dashes = {str(line._unscaled_dash_pattern) for line in axes.get_lines()}
    assert len(dashes) == 8


def test_risk_coverage_panels_show_the_curves(analysis, results):
    samples = results.of(results.settings[0]).samples_of("pets")
    (panel, *_) = axes_of(risk_coverage_figure(analysis, SCORES))
    curve = risk_coverage(*samples["msp"])
    line = panel.get_lines()[0]
    at = np.searchsorted(curve.coverage, line.get_xdata() / 100 - 1e-9)
    assert line.get_ydata() == pytest.approx(100 * curve.risk[at])


def test_bars_are_means_with_their_numbers(analysis, results):
    (axes,) = axes_of(modality_figure(analysis, "aurc", modality_labels(SCORES)))
    widths = [bar.get_width() for bars in axes.containers[1::2] for bar in bars]
    expected = [
        1000 * analysis.spread("aurc", dataset, score).mean
        for score in SCORES
        for dataset in results.datasets
    ]
    assert widths == pytest.approx(expected)
    assert [text.get_text() for text in axes.texts] == [f"{value:.1f}" for value in expected]


def test_equal_coverage_is_the_share_right_among_as_many_images(analysis, results):
    samples = results.of(results.settings[0]).samples_of("pets")
    panels = axes_of(equal_coverage_figure(analysis, SCORES))
    for panel, k in zip(panels, (120, 96, 60), strict=True):
        for line, score in zip(panel.get_lines(), SCORES, strict=True):
            confidence, correct = samples[score]
            top = np.argsort(-confidence)[:k]
            assert line.get_xdata()[0] == pytest.approx(100 * correct[top].mean())


def test_the_rank_figure_names_every_score_with_its_rank(analysis, results):
    shown = words(rank_figure(analysis, "aurc").svg())
    for score in results.scores:
        rank = f"{analysis.ranks['aurc'].rank_of(score):.2f}"
        assert any(score in word and rank in word for word in shown)
    assert any(word.startswith("CD ") for word in shown)


def test_bars_of_groups_do_not_touch():
    scores = [f"s{i:02}" for i in range(12)]
    results = make_results([f"d{i}" for i in range(9)], ["trustvlm", *scores], draws=1, shots=(4,))
    analysis = analyse(results, ["aurc"], n_resamples=2)
    assert len(analysis.ranks["aurc"].groups()) > 1
    (axes,) = axes_of(rank_figure(analysis, "aurc"))
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 3]
    assert len(bars) == len(analysis.ranks["aurc"].groups())
    for i, one in enumerate(bars):
        for other in bars[:i]:
            if one.get_ydata()[0] == other.get_ydata()[0]:
                ends = sorted([one.get_xdata(), other.get_xdata()], key=min)
                assert max(ends[0]) < min(ends[1])


def test_heat_maps_write_means_and_frame_the_chosen_cell():
    drawing = sensitivity_figure(sensitivity_rows())
    (axes,) = axes_of(drawing)
    shown = {tuple(np.floor(t.get_position())): t.get_text() for t in axes.texts}
    assert shown[0, 1] == "210.0"  # weight 1, temperature 0.01
    assert shown[2, 0] == "1150.0"
    (frame,) = [patch for patch in axes.patches if not patch.get_fill()]
    assert (frame.get_x(), frame.get_y()) == (0, 1)
    assert "2 data sets" in drawing.notes
    lightest = max(
        (p for p in axes.patches if p.get_fill()), key=lambda p: sum(p.get_facecolor()[:3])
    )
    assert (lightest.get_x(), lightest.get_y()) == (0, 0)  # the lowest AURC


def test_heat_map_means_are_over_what_all_cells_share():
    rows = [
        study_row(0.1, vlm="a", vision="x", dataset="d"),
        study_row(0.9, vlm="a", vision="x", dataset="only here"),
        study_row(0.3, vlm="a", vision="y", dataset="d"),
        study_row(None, vlm="b", vision="x", dataset="d"),
        study_row(0.5, vlm="b", vision="y", dataset="d"),
    ]
    drawing = encoder_figure(rows)
    assert [text.get_text() for text in axes_of(drawing)[0].texts] == [
        "100.0",
        "300.0",
        "–",
        "500.0",
    ]
    assert "all cells have: d." in drawing.notes


def test_text_on_every_shade_has_enough_contrast():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for place in np.linspace(0, 1, 256):
        shade = colormaps["cividis"](place)[:3]
        ink = 0.0 if ink_on(*shade) == "#000000" else 1.0
        bright, dark = sorted((luminance(shade), ink), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_leading_scores_have_one_colour_everywhere(analysis):
    assert leading_scores(analysis, "aurc")[:4] == list(SCORES)
    assert list(modality_labels(analysis.results.scores)) == list(SCORES)
    assert len(leading_scores(analysis, "aurc", 99)) == 5


def test_undefined_metrics_are_drawn_as_such():
    analysis = analyse(make_results(accuracy=1.1), ["auroc"], n_resamples=20)
    for drawing in (
        shots_figure(analysis, "auroc", SCORES),
        shots_figure(analysis, "auroc", SCORES, by_dataset=True),
    ):
        assert "undefined" in words(drawing.svg())
    assert "–" in words(modality_figure(analysis, "auroc", modality_labels(SCORES)).svg())
    assert "<svg" in equal_coverage_figure(analysis, SCORES).svg()
    empty = [study_row(math.nan, vlm="a", vision=v) for v in "xy"]
    assert words(encoder_figure(empty).svg()).count("–") == 2


def test_one_data_set_one_score_one_draw_are_drawn():
    results = make_results(["pets"], ["trustvlm"], draws=1)
    analysis = analyse(results, ["aurc"], n_resamples=20)
    for drawing in (
        shots_figure(analysis, "aurc", ["trustvlm"]),
        risk_coverage_figure(analysis, ["trustvlm"]),
        modality_figure(analysis, "aurc", modality_labels(["trustvlm"])),
        equal_coverage_figure(analysis, ["trustvlm"]),
    ):
        assert drawing.svg().startswith("<svg")
    with pytest.raises(InputError, match="at least 2"):
        rank_figure(analysis, "aurc")


def test_names_are_text_and_nothing_else(tmp_path):
    names = ["_private", "a<b>&c", "$x^2$"]
    results = make_results(["<d>", "_e"], names, shots=(1, 2), draws=1)
    analysis = analyse(results, ["aurc"], n_resamples=20)
    for drawing in (
        shots_figure(analysis, "aurc", names, by_dataset=True),
        equal_coverage_figure(analysis, names),
        rank_figure(analysis, "aurc"),
    ):
        shown = " ".join(words(drawing.svg()))
        assert all(name in shown for name in names)
        drawing.save(tmp_path / "figure.pdf")


def test_misuse_is_refused(analysis):
    many = {str(i): "x" for i in range(9)}
    for call in (
        lambda: modality_figure(analysis, "aurc", {}),
        lambda: modality_figure(analysis, "aurc", many),
        lambda: equal_coverage_figure(analysis, ["absent"]),
        lambda: shots_figure(analysis, "aurc", list(many)),
        lambda: encoder_figure([]),
        lambda: encoder_figure([study_row(0.1)]),
        lambda: shift_figure(
            [study_row(0.1, support="a"), study_row(0.1, support="a", score="msp")]
        ),
    ):
        with pytest.raises(InputError, match="Expected"):
            call()
