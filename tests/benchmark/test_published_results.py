"""The script behind docs/results.md, on small arrays; and the page as it is published."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from benchmark_files import write_arrays
from trustvlm import metrics, scores
from trustvlm.benchmark import load_arrays
from trustvlm.decisions import certify
from trustvlm.scores.few_shot import draw_shots

ROOT = Path(__file__).resolve().parents[2]
SETS = {"dtd_clip_vitb32": 0, "caltech61_clip_vitb32": 10}


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import publish_results

        patch.setattr(publish_results.study, "RESAMPLES", 60)
        patch.setattr(publish_results.study, "SPLITS", 3)
        patch.setattr(publish_results, "CERTIFIED_WITH", 100)
        yield publish_results


@pytest.fixture(scope="module")
def root(script, tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for folder in ("clip", "standins"):
        (root / folder).mkdir()
    for name, seed in SETS.items():
        text = {"text_embeddings": np.random.default_rng(seed).normal(size=(3, 5))}
        write_arrays(root / f"clip/{name}__train.npz", seed, n=24, **text)
        write_arrays(root / f"clip/{name}__test.npz", seed + 1, n=240, **text)
    for file, seed in (("a__train", 3), ("a__test", 4), ("b__train", 5), ("b__test_night", 6)):
        write_arrays(root / f"standins/{file}.npz", seed, n=45)
    (root / "README.md").write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    run(script, root)
    return root


def run(script, root):
    folders = [str(root / name) for name in ("clip", "standins")]
    plan = ["--draws", "2", "--shots", "1,4", "--jobs", "1", "--root", str(root)]
    script.main([*folders, *plan])


def judged(root, name, score, draw, shots=4):
    """Recompute one score from the arrays, without the script."""
    support = load_arrays(root / f"clip/{name}__train.npz")
    test = load_arrays(root / f"clip/{name}__test.npz")
    chosen = draw_shots(support.labels, support.n_classes, shots, draw=draw).indices
    result = scores.apply(score, test.about(support.shots(chosen)))
    return result.confidence, result.prediction == test.labels


def contents(root):
    return {f: f.read_bytes() for f in [root / "README.md", *(root / "docs").rglob("*.*")]}


def test_the_same_arrays_give_the_same_files_and_nothing_is_measured_twice(
    script, root, monkeypatch
):
    first = contents(root)
    assert {f.name for f in first} == {
        "README.md", "results.md", "measured.csv", "risk-coverage.svg"
    }  # fmt: skip
    monkeypatch.setattr(script.study, "measure", None)
    run(script, root)
    assert contents(root) == first


def test_only_what_stands_between_the_markers_changes(script, root):
    text = (root / "README.md").read_text()
    assert text.startswith(f"before\n{script.BEGIN}\nWith **real CLIP**")
    assert text.endswith(f"{script.END}\nafter\n")
    assert "\nold\n" not in text
    assert "DINOv2" in text
    assert "![Risk-coverage curves with real CLIP on DTD](docs/images/risk-coverage.svg)" in text
    with pytest.raises(SystemExit, match="to hold"):
        script.between_markers("no markers", "new")


def test_metrics_are_means_over_draws_beside_intervals(root):
    rows = list(csv.DictReader((root / "docs/results/measured.csv").read_text().splitlines()))
    assert {(r["models"], r["test"]) for r in rows} == {
        ("CLIP", "dtd_clip_vitb32__test"), ("CLIP", "caltech61_clip_vitb32__test"),
        ("stand-ins", "a__test"), ("stand-ins", "b__test_night"),
    }  # fmt: skip
    for score in ("trustvlm", "auto", "auto_star"):
        row = next(
            r for r in rows
            if (r["test"], r["score"], r["shots"]) == ("dtd_clip_vitb32__test", score, "4")
        )  # fmt: skip
        values = [metrics.aurc(*judged(root, "dtd_clip_vitb32", score, draw)) for draw in (0, 1)]
        assert float(row["aurc_mean"]) == pytest.approx(np.mean(values), abs=1e-4)
        assert float(row["aurc_sd"]) == pytest.approx(np.std(values, ddof=1), abs=1e-4)
        assert float(row["aurc_low"]) < min(values) <= max(values) < float(row["aurc_high"])
        assert row["draws"] == "2"
        exact = [
            metrics.bootstrap(*judged(root, "dtd_clip_vitb32", score, draw), "accuracy")["accuracy"]
            for draw in (0, 1)
        ]
        for end in ("low", "high"):
            wanted = np.mean([getattr(one, end) for one in exact])
            assert float(row[f"accuracy_{end}"]) == pytest.approx(wanted, abs=1e-4)


def test_where_every_draw_has_the_same_images_there_is_one(script, root):
    folder = root / "clip"
    cells = script.study.cells(folder, [8], 3, practical=False)
    rows = script.study.measured(cells, root / "kept", 1)
    assert {row["draws"] for row in rows} == {1}  # 8 of 8 images a class


def test_certified_coverage_is_that_of_images_not_calibrated_on(script, root):
    rows = script.study.measured(
        script.study.cells(root / "clip", [4], 2, practical=True),
        root / "examples" / "published-results",
        1,
    )
    row = next(r for r in rows if r["test"] == "dtd_clip_vitb32__test")
    covered = []
    for draw in (0, 1):
        confidence, correct = judged(root, "dtd_clip_vitb32", "auto", draw)
        for split in range(3):
            order = np.random.default_rng(split).permutation(240)
            threshold = certify(confidence[order[:100]], correct[order[:100]], 0.1).threshold
            covered.append(np.mean(confidence[order[100:]] >= threshold))
    assert row["certified"]["auto"]["0.1 100"]["coverage"] == pytest.approx(np.mean(covered))
    assert max(covered) > 0
    assert set(row["certified"]["auto"]) == {f"{risk} 100" for risk in (0.02, 0.05, 0.1)}


def test_images_of_none_of_the_classes_are_judged_by_the_text_of_the_others(script, root):
    rows = script.study.measured(
        script.study.cells(root / "clip", [4], 2, practical=True),
        root / "examples" / "published-results",
        1,
    )
    row = next(r for r in rows if r["test"] == "dtd_clip_vitb32__test")
    outside = row["outside"]
    assert outside["of"] == "caltech61_clip_vitb32__test"
    test = load_arrays(root / "clip/dtd_clip_vitb32__test.npz")
    other = load_arrays(root / "clip/caltech61_clip_vitb32__test.npz")
    rng = np.random.default_rng(0)
    rng.permutation(240)
    strangers = np.sort(rng.permutation(240)[:160])
    cosines = [
        [v @ t / np.linalg.norm(v) / np.linalg.norm(t) for t in test.text_embeddings]
        for v in other.image_embeddings[strangers].astype(np.float64)
    ]
    confidence, correct = judged(root, "dtd_clip_vitb32", "msp", 0)
    threshold = np.sort(confidence[correct])[int(0.2 * (correct.sum() - 1))]
    share = np.mean(scores.compute("msp", logits=100 * np.array(cosines)).confidence >= threshold)
    assert outside["accepted"]["msp"][0] == pytest.approx(share)


def test_the_figure_has_an_oracle_bands_and_areas(root):
    svg = (root / "docs/images/risk-coverage.svg").read_text()
    assert len(svg) < 200_000
    for label in ("msp", "trustvlm", "auto", "auto_star", "oracle, VLM's labels"):
        assert re.search(rf">{label}: AURC \d+</text>", svg), label
    assert svg.count("PolyCollection") == 4


# As it is published.


def test_the_published_page_says_what_it_is():
    page, front = (ROOT / name for name in ("docs/results.md", "README.md"))
    for text in (page.read_text(), front.read_text()):
        flat = " ".join(text.split())
        assert "not CLIP" in flat
        assert "Nothing was measured with DINOv2" in flat
    assert page.read_text().index("real CLIP") < page.read_text().index("## The offline stand-ins")


def test_captions_have_at_most_forty_words():
    page = (ROOT / "docs/results.md").read_text()
    captions = re.findall(r"^### .*\n\n(.*)\n\n\|", page, re.MULTILINE)
    assert len(captions) > 20
    assert [caption for caption in captions if len(caption.split()) > 40] == []


def test_the_published_tables_are_those_of_the_published_rows():
    rows = list(csv.DictReader((ROOT / "docs/results/measured.csv").read_text().splitlines()))
    front = (ROOT / "README.md").read_text()
    page = (ROOT / "docs/results.md").read_text()
    clip = [r for r in rows if (r["models"], r["shots"], r["score"]) == ("CLIP", "16", "auto")]
    assert len(clip) == 4
    for row in clip:
        value, low, high = (100 * float(row[f"auroc_{part}"]) for part in ("mean", "low", "high"))
        shown = np.array(re.findall(r"(\d+\.\d)<br>\[(\d+), (\d+)\]", front), dtype=np.float64)
        wanted = np.array([value, low, high])
        assert (abs(shown - wanted) <= (0.06, 0.51, 0.51)).all(axis=1).any(), row
        assert f"{int(row['n']):,} images" in page
