"""The studies: their rows against scores and metrics by hand, their figures, their pages."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from markupsafe import escape

from benchmark_files import write_arrays
from command import Command
from figure_texts import cut, overlapping, words
from pictures import write_class_folders
from trustvlm import metrics, scores
from trustvlm.benchmark import ArraySet, load_arrays, run_study
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.dataset import EncodedDataset
from trustvlm.benchmark.grid import run_grid
from trustvlm.benchmark.page import write_study_page
from trustvlm.benchmark.results import Setting
from trustvlm.benchmark.studies import STUDIES, StudySettings
from trustvlm.benchmark.studies.comparisons import BANNER
from trustvlm.benchmark.studies.shots import classes_without_shots, halves
from trustvlm.benchmark.studies.study import StudyRunner
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.scores.few_shot import draw_shots

SETTINGS = StudySettings(shots=(1, 4), draws=2)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    return [
        load_arrays(write_arrays(folder / f"pets__{name}.npz", seed, n=n))
        for name, seed, n in (("train", 0, 60), ("test", 1, 40), ("test_far", 2, 37))
    ]


@pytest.fixture(scope="module")
def encoded(sets):
    return EncodedDataset.from_arrays(sets[0], sets[1:], SETTINGS.shots, SETTINGS.draws)


@pytest.fixture(scope="module")
def runner(encoded):
    runner = StudyRunner(list(STUDIES.values()), SETTINGS)
    runner.add(encoded)
    return runner


def evaluated(name, test, known, **parameters):
    """Compute a score and its metrics from the shots `known`, a set of arrays."""
    result = scores.compute(
        name,
        logits=test.logits,
        features=test.features,
        support_features=known.features,
        support_labels=known.labels,
        support_logits=known.logits,
        **parameters,
    )
    return result, result.prediction == test.labels


def assert_values(row, confidence, correct):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = metrics.evaluate(confidence, correct)
    for name in metrics.METRICS:
        value = math.nan if row[name] is None else row[name]
        assert value == pytest.approx(getattr(expected, name), abs=1e-12, nan_ok=True)
    assert row["n"] == len(correct)


def shots_of(support, shots, draw):
    return support.rows(draw_shots(support.labels, support.n_classes, shots, draw=draw).indices)


def test_modalities_and_shots_are_rows_of_the_benchmark(runner, sets):
    everything = {
        (row["dataset"], row["score"], row["shots"], row["draw"]): row
        for row in run_study(sets[0], sets[1:], shots=SETTINGS.shots, draws=SETTINGS.draws).rows
    }
    for study, counts in (("modalities", {4}), ("shots", {1, 4})):
        rows = runner.rows[study]
        assert {row["shots"] for row in rows} == counts
        for row in rows:
            same = everything[row["dataset"], row["score"], row["shots"], row["draw"]]
            assert {key: row[key] for key in same} == same
    assert {row["score"] for row in runner.rows["modalities"]} == {
        "msp", "image_similarity", "trustvlm", "trustvlm_star"
    }  # fmt: skip


def test_sensitivity_is_the_score_under_each_setting(runner, sets):
    rows = runner.rows["sensitivity"]
    star = [row for row in rows if row["score"] == "trustvlm_star"]
    assert len({(row["weight"], row["temperature"]) for row in star}) * 2 * 2 == len(star)
    assert (1.0, 0.01) in {(row["weight"], row["temperature"]) for row in star}
    for row in rows[:: len(rows) // 40]:
        test = next(t for t in sets[1:] if t.name == row["dataset"])
        settings = {k: row[k] for k in ("weight", "temperature") if row[k] is not None}
        known = shots_of(sets[0], 4, row["draw"])
        result, right = evaluated(row["score"], test, known, **settings)
        assert_values(row, result.confidence, right)


def test_weight_zero_is_the_text_alone(runner):
    zero = [r for r in runner.rows["sensitivity"] if not r["weight"]]
    text = {r["dataset"]: r["aurc"] for r in runner.rows["modalities"] if r["score"] == "msp"}
    assert zero
    assert all(row["aurc"] == text[row["dataset"]] for row in zero)


def test_encoders_of_arrays_are_the_features_and_the_models_own_space(runner, sets):
    rows = runner.rows["encoders"]
    assert {row["vision"] for row in rows} == {"features", "image_embeddings"}
    for row in rows:
        test = next(t for t in sets[1:] if t.name == row["dataset"])
        known = shots_of(sets[0], 4, row["draw"])
        if row["vision"] == "image_embeddings":
            test, known = (replace(a, features=a.image_embeddings) for a in (test, known))
        result, right = evaluated(row["score"], test, known)
        assert_values(row, result.confidence, right)


def test_halves_part_each_class_and_share_no_image():
    labels = np.repeat([0, 1, 2], [7, 1, 4])
    lending, tested = halves(labels)
    assert sorted([*lending, *tested]) == list(range(12))
    assert np.bincount(labels[lending], minlength=3).tolist() == [3, 0, 2]
    assert np.bincount(labels[tested], minlength=3).tolist() == [4, 1, 2]


def test_shift_tests_the_same_images_whatever_the_shots_are_from(runner, sets):
    rows = runner.rows["shift"]
    assert {row["support"] for row in rows} == {
        "no shots: msp", "pets__train", "pets__test", "pets__test_far"
    }  # fmt: skip
    for row in rows:
        test = next(t for t in sets[1:] if t.name == row["dataset"])
        tested = test.rows(halves(test.labels)[1])
        assert row["n"] == len(tested)
        pool = next((s for s in sets if s.name == row["support"]), sets[0])
        if pool is not sets[0]:
            pool = pool.rows(halves(pool.labels)[0])
        assert not set(pool.contents()) & set(tested.contents())
        result, right = evaluated(row["score"], tested, shots_of(pool, 4, row["draw"]))
        assert_values(row, result.confidence, right)


def test_no_shot_is_a_copy_of_a_test_image(sets, monkeypatch):
    test = sets[1]
    # Two copies of every image: a careless half would hold one of each.
    twice = test.rows(np.repeat(np.arange(len(test)), 2))
    encoded = EncodedDataset.from_arrays(sets[0], [twice, sets[2]], SETTINGS.shots, SETTINGS.draws)
    seen = set(twice.rows(halves(twice.labels)[1]).contents())
    lent, shots = [], ArraySet.shots

    def remember(self, chosen):
        lent.extend(self.rows(chosen).contents())
        return shots(self, chosen)

    monkeypatch.setattr(ArraySet, "shots", remember)
    assert STUDIES["shift"].measure(encoded, SETTINGS)
    assert lent
    assert not seen & set(lent)


def test_missing_classes_are_nested_and_leave_one():
    for draw in range(3):
        chosen = [set(classes_without_shots(5, s, draw).tolist()) for s in (0.0, 0.5, 0.75, 1.0)]
        assert [len(c) for c in chosen] == [0, 2, 4, 4]
        assert chosen[0] <= chosen[1] <= chosen[2]
    assert len({tuple(classes_without_shots(20, 0.5, draw)) for draw in range(4)}) == 4


def test_missing_rows_are_those_of_the_remaining_shots(runner, sets):
    rows = runner.rows["missing"]
    whole = {(r["dataset"], r["draw"], r["score"]): r for r in rows if r["group"] == "all"}
    assert len(whole) == 2 * 2 * 6
    for row in rows:
        test = next(t for t in sets[1:] if t.name == row["dataset"])
        without = classes_without_shots(3, row["missing"], row["draw"])
        known = shots_of(sets[0], 4, row["draw"])
        known = known.rows(np.flatnonzero(~np.isin(known.labels, without)))
        result, right = evaluated(row["score"], test, known)
        lacking = np.isin(test.labels, without)
        members = {"all": lacking | True, "covered": ~lacking, "uncovered": lacking}[row["group"]]
        if not members.any():
            assert row["accepted"] is row["aurc"] is None
            continue
        assert_values(row, result.confidence[members], right[members])
        least = np.sort(result.confidence)[::-1][round(0.8 * len(test)) - 1]
        assert (result.confidence[members] > least).mean() <= row["accepted"] + 1e-12
        assert row["accepted"] <= (result.confidence[members] >= least).mean() + 1e-12


def test_gains_are_differences_of_accuracy_and_only_draw_0_has_intervals(runner):
    rows = runner.rows["gain"]
    accuracy = {
        (r["dataset"], r["draw"], r["score"]): r["accuracy"] for r in runner.rows["modalities"]
    }
    for row in rows:
        assert row["gain"] == pytest.approx(row["accuracy"] - row["other_accuracy"])
        if row["coverage"] == 1:
            at = row["dataset"], row["draw"]
            assert row["accuracy"] == pytest.approx(accuracy[*at, "trustvlm_star"])
            assert row["other_accuracy"] == pytest.approx(accuracy[*at, row["other"]])
        assert (row["low"] is None) == (row["draw"] > 0)


def every_section(runner):
    return [*runner.sections(Setting()), *runner.general()]


def test_every_study_has_figures_and_tables_whose_captions_say_what_they_rest_on(runner):
    sections = every_section(runner)
    assert {section.name for section in sections} == set(STUDIES)
    for section in sections:
        assert section.figures
        assert re.search(r"is better|in percent|points more right", section.finding), section.name
        assert section.finding.endswith(".")
        assert section.tables or section.folded
        for figure in section.figures:
            assert re.search(r"shots per class; (2 draws|draw 0) of the shots; ", figure.notes)
            assert re.search(r"\d test images", figure.notes)
            assert "Convention exact" in figure.notes
            assert len(figure.caption.split()) <= 40, figure.caption
            assert cut(figure) == overlapping(figure) == []
            assert re.search(r"lower is better|in percent|percentage points", figure.caption)
            assert figure.svg().startswith("<svg")
        for table in (*section.tables, *section.folded):
            assert "Convention exact" in table.notes
            assert len(table.caption_with("Bold", "underlined").split()) <= 40, table.caption
            assert all(len(line.cells) + 1 == len(table.heads) for line in table.lines)


def test_the_sensitivity_study_says_aloud_that_it_shows_test_images(runner):
    (section,) = (s for s in every_section(runner) if s.name == "sensitivity")
    assert "TEST images" in section.title
    assert "chosen on test data" in section.text
    for figure in section.figures:
        assert BANNER in " ".join(words(figure.svg()))
        assert figure.caption.startswith(BANNER)
    for table in section.folded:
        assert "TEST images" in table.title
        assert table.caption.startswith("These are test images")


@pytest.mark.slow
def test_the_page_has_every_study_and_its_files(runner, tmp_path):
    page = write_study_page(runner, tmp_path, title="A <study>", cautions=["One <set> failed."])
    text = page.read_text("utf-8")
    assert "A &lt;study&gt;" in text
    assert "One &lt;set&gt; failed." in text
    # What was found comes before everything else.
    findings = [section.finding for section in every_section(runner)]
    assert all(text.index(str(escape(f))) < text.index('<ul class="tiles">') for f in findings)
    links = [link for link in re.findall(r'href="([^"#]+)"', text) if ":" not in link]
    assert len(links) > 40
    assert all((tmp_path / link).is_file() for link in links)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for name in STUDIES:
        lines = (tmp_path / "rows" / name / "rows.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == runner.rows[name]


def test_what_cannot_be_answered_is_said(sets, tmp_path):
    one = StudyRunner([STUDIES["shift"], STUDIES["encoders"]], SETTINGS)
    support, test = (replace(a, image_embeddings=None, text_embeddings=None) for a in sets[:2])
    one.add(EncodedDataset.from_arrays(support, [test], SETTINGS.shots, SETTINGS.draws))
    assert one.remarks() == [
        "The study shift says nothing about pets__train: it has one test split, and hence one "
        "domain.",
        "The study encoders says nothing about pets__train: the arrays have no "
        "`image_embeddings`, and hence one encoder alone.",
    ]
    with pytest.raises(InputError, match=r"nothing to show.*one test split"):
        write_study_page(one, tmp_path, title="t")
    few = StudyRunner([STUDIES["shots"]], StudySettings(shots=(4,), scores=("msp",)))
    few.add(EncodedDataset.from_arrays(*_pair(sets), (4,), 1))
    assert "no score trustvlm" in few.remarks()[0]


def _pair(sets):
    return sets[0], sets[1:]


def test_the_convention_is_the_plans(sets):
    settings = replace(SETTINGS, convention="trustvlm", shots=(4,), draws=1)
    runner = StudyRunner([STUDIES["modalities"]], settings)
    runner.add(EncodedDataset.from_arrays(sets[0], sets[1:], settings.shots, settings.draws))
    (section,) = runner.sections(Setting())
    assert "Convention trustvlm" in section.figures[0].notes


STUDY = """
name = "colours"
out = "results"
shots = [1, 2]
draws = 2
scores = ["msp", "image_similarity", "trustvlm", "trustvlm_star"]
{extra}
[[models]]
vlm = "offline"
vision = "offline"
[[datasets]]
train = "colours/train"
test = ["colours/test", "colours/other"]
"""


@pytest.fixture
def study(tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    for place, count, seed in (("train", 3, 0), ("test", 4, 5), ("other", 4, 6)):
        write_class_folders(tmp_path / "colours" / place, per_class=count, seed=seed)
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(extra=""))
    return path


def test_a_grid_shows_the_studies_that_it_allows_and_keeps_what_is_finished(study, monkeypatch):
    config, store = read_config(study), EmbeddingStore.memory()
    first = run_grid(config, store=store)
    assert set(first.studies.rows) == {"sensitivity", "shift", "missing", "gain"}
    names = [
        section.name for section in first.studies.sections(Setting("offline", "offline", "clean"))
    ]
    assert names == ["sensitivity", "shift", "missing", "gain"]
    for name in names:
        monkeypatch.setattr(STUDIES[name], "measure", None)
    again = run_grid(config, store=store)
    assert again.studies.rows == first.studies.rows
    study.write_text(STUDY.format(extra="studies = []"))
    assert not run_grid(read_config(study), store=store).studies.rows
    study.write_text(STUDY.format(extra='studies = ["shfit"]'))
    with pytest.raises(InputError, match=r"`studies` among modalities.*did you mean shift"):
        run_grid(read_config(study), store=store)


def test_the_command_studies_image_folders(study, capsys, monkeypatch):
    run = Command(capsys, monkeypatch)
    done = run("bench", "study", "gain", study)
    assert done.code == 0, done.err
    assert "not CLIP" in done.err
    page = study.parent / "results" / "studies" / "gain" / "index.html"
    assert "not CLIP" in page.read_text()
    assert "What correcting labels gains at equal coverage: colours" in page.read_text()
    assert run("bench", "study", "gain", study, "--shots", "4").code == 2
    missing = study.parent / "colours" / "train"
    broken = (
        study.read_text()
        + f'[[datasets]]\nname = "same"\ntrain = "{missing}"\ntest = "{missing}"\n'
    )
    study.write_text(broken)
    done = run("bench", "study", "gain", study)
    assert done.code == 3
    assert "failed: same: " in done.err


def test_the_command_studies_arrays(tmp_path, capsys, monkeypatch):
    run = Command(capsys, monkeypatch)
    train, test = (write_arrays(tmp_path / f"{n}.npz", i) for i, n in enumerate(("train", "test")))
    options = ["--support", train, test, "--shots", "1,2", "--draws", 1, "--out", tmp_path / "out"]
    done = run("bench", "study", "all", *options)
    assert done.code == 0, done.err
    assert "shift says nothing about train: it has one test split" in done.err
    assert (tmp_path / "out" / "all" / "figures" / "shots-aurc.pdf").is_file()
    done = run("bench", "study", "modalities", *options, "--metric", "auroc")
    assert (tmp_path / "out" / "modalities" / "figures" / "modalities-auroc.svg").is_file()
    assert run("bench", "study", "shfit", *options).code == 2
    assert run("bench", "study", "shift", *options).code == 1
    assert run("bench", "study", "all", *options, "--metric", "best").code == 1
    done = run("bench", "study", "all", test)
    assert done.code == 2
    assert "--support" in done.err


def test_the_commands_help_names_every_study(capsys, monkeypatch):
    done = Command(capsys, monkeypatch)("bench", "study", "--help")
    assert done.code == 0
    for name in STUDIES:
        assert re.search(rf"\b{name}\b: ", done.out), name
