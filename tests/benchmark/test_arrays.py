import json
import random
import re
import warnings

import numpy as np
import pytest

from benchmark_files import write_arrays
from trustvlm import metrics, scores
from trustvlm.benchmark import ROW_KEYS, load_arrays, run_study
from trustvlm.exceptions import EvidenceMissingError, InputError, LeakError, TrustVLMWarning
from trustvlm.pipeline.select import select_by_holding_out, select_on
from trustvlm.scores.few_shot import draw_shots


@pytest.fixture
def files(tmp_path):
    return (
        write_arrays(tmp_path / "pets__train.npz", 0),
        [write_arrays(tmp_path / f"pets__test{i}.npz", i, n=40) for i in (1, 2)],
    )


def test_rows_equal_scores_and_metrics_by_hand(files):
    support, tests = load_arrays(files[0]), [load_arrays(file) for file in files[1]]
    study = run_study(support, tests, shots=(2, 4), draws=3)
    assert len(study.rows) == 2 * 2 * 3 * len(scores.names())
    for row in study.rows:
        assert tuple(row) == ROW_KEYS
        test = next(t for t in tests if t.name == row["dataset"])
        chosen = draw_shots(support.labels, 3, row["shots"], draw=row["draw"]).indices
        by_hand = scores.compute(
            row["score"],
            logits=test.logits,
            features=test.features,
            image_embeddings=test.image_embeddings,
            text_embeddings=test.text_embeddings,
            support_features=support.features[chosen],
            support_labels=support.labels[chosen],
            support_logits=support.logits[chosen],
            support_image_embeddings=support.image_embeddings[chosen],
        )
        expected = metrics.evaluate(by_hand.confidence, by_hand.prediction == test.labels)
        for name in metrics.METRICS:
            value = np.nan if row[name] is None else row[name]
            assert value == pytest.approx(getattr(expected, name), abs=1e-12, nan_ok=True)


def test_draw_zero_is_the_papers_and_verdicts_are_of_it(files):
    support, tests = load_arrays(files[0]), [load_arrays(file) for file in files[1]]
    study = run_study(support, tests, scores=["trustvlm"], shots=(2, 4), draws=2)
    one = run_study(support, tests, scores=["trustvlm"], shots=(4,), draws=1)
    for key, result in one.verdicts.items():
        np.testing.assert_array_equal(study.verdicts[key].confidence, result.confidence)
    assert set(study.verdict_arrays()) == {
        f"pets__test{i}/trustvlm/{part}" for i in (1, 2) for part in ("prediction", "confidence")
    }


def test_a_second_run_is_identical(files):
    def run():
        return run_study(load_arrays(files[0]), [load_arrays(f) for f in files[1]], draws=2).rows

    assert run() == run()


def test_settings_are_selected_anew_for_every_draw(files, tmp_path):
    support, tests = load_arrays(files[0]), [load_arrays(file) for file in files[1]]
    names = ["msp", "trustvlm", "trustvlm_star", "trustvlm_star_f"]
    given = {"trustvlm_star_f": {"epochs": 2}}
    study = run_study(
        support, tests, scores=names, shots=(1, 8, 20), draws=2, preset="loo", parameters=given
    )
    assert len(study.rows) == 2 * 4 * 3 * 2
    seen = set()
    for row in study.rows:
        assert tuple(row)[: len(ROW_KEYS)] == ROW_KEYS
        if row["score"] == "msp":
            assert row["parameters"] == {"link": "softmax"}
            assert "selection" not in row
            continue
        chosen = draw_shots(support.labels, 3, row["shots"], draw=row["draw"]).indices
        known = support.shots(chosen)
        expected = select_by_holding_out(row["score"], known)
        defaults = scores.get(row["score"]).parameters
        own = given.get(row["score"], {})
        assert row["parameters"] == {**defaults, **expected.parameters, **own}
        assert row["selection"] == expected.to_dict()
        test = next(t for t in tests if t.name == row["dataset"])
        evidence = known.with_images(logits=test.logits, features=test.features)
        by_hand = scores.apply(row["score"], evidence, **row["parameters"])
        aurc = metrics.aurc(by_hand.confidence, by_hand.prediction == test.labels)
        assert row["aurc"] == pytest.approx(aurc, abs=1e-12)
        seen.add(json.dumps(row["selection"]))
    assert len(seen) > 4


def test_settings_are_selected_on_validation_images(files, tmp_path):
    support, tests = load_arrays(files[0]), [load_arrays(file) for file in files[1]]
    val = load_arrays(write_arrays(tmp_path / "val.npz", 7))
    study = run_study(
        support, tests, scores=["trustvlm_star"], shots=(4,), preset="validation", validation=val
    )
    known = support.shots(draw_shots(support.labels, 3, 4).indices)
    seen = known.with_images(logits=val.logits, features=val.features)
    expected = select_on("trustvlm_star", seen, val.labels)
    assert [row["selection"] for row in study.rows] == [expected.to_dict()] * 2
    assert study.rows[0]["parameters"] == dict(expected.parameters)


def test_nothing_is_selected_on_what_is_tested_or_known(files, tmp_path):
    support, tests = load_arrays(files[0]), [load_arrays(file) for file in files[1]]
    chosen = {"scores": ["trustvlm"], "shots": (4,)}
    with pytest.raises(LeakError, match="40 of the images of pets__test1"):
        run_study(support, tests, preset="validation", validation=tests[0], **chosen)
    with pytest.raises(LeakError, match="12 of the images of pets__train"):
        run_study(support, tests, preset="validation", validation=support, **chosen)
    with pytest.raises(LeakError, match="also in pets__train"):
        run_study(support, [support], preset="loo", **chosen)
    mixed = support.rows(np.arange(50)).rows(draw_shots(support.labels, 3, 4).indices[:1])
    with pytest.raises(LeakError, match="1 of the images"):
        run_study(support, [mixed], preset="loo", **chosen)
    with pytest.warns(TrustVLMWarning, match="12 of the images of pets__train are also among"):
        run_study(support, [tests[0], support], **chosen)
    with pytest.raises(InputError, match="validation images to select on"):
        run_study(support, tests, preset="validation", **chosen)
    with pytest.raises(InputError, match="`preset` among untuned"):
        run_study(support, tests, preset="best", **chosen)
    other = load_arrays(write_arrays(tmp_path / "w.npz", 0, d=9))
    with pytest.raises(InputError, match="one vision encoder"):
        run_study(support, tests, preset="validation", validation=other, **chosen)


def test_classes_with_few_images_give_what_they_have(files):
    support, tests = load_arrays(files[0]), [load_arrays(files[1][0])]
    with pytest.warns(TrustVLMWarning, match="3 of 3 classes have fewer than 50"):
        run_study(support, tests, scores=["trustvlm"], shots=(50,))


def test_scores_without_their_evidence_are_left_out_or_refused(tmp_path):
    support = load_arrays(
        write_arrays(tmp_path / "a.npz", 0, image_embeddings=None, text_embeddings=None)
    )
    test = load_arrays(
        write_arrays(tmp_path / "b.npz", 1, image_embeddings=None, text_embeddings=None)
    )
    with pytest.warns(TrustVLMWarning) as warned:
        study = run_study(support, [test], shots=(4,))
    assert {row["score"] for row in study.rows} >= {"msp", "trustvlm", "mcm"}
    assert not {row["score"] for row in study.rows} & {"trine", "icpe", "lata"}
    assert {str(warning.message) for warning in warned} == {
        "a has no `image_embeddings` or `support_image_embeddings`: icpe is left out",
        "a has no `image_embeddings`, `text_embeddings` or `support_image_embeddings`: trine is "
        "left out",
        "a has no `text_embeddings`: trine_vision is left out",
        "a has no `image_embeddings`: lata is left out",
        "a has no `image_embeddings` or `text_embeddings`: stata is left out",
    }
    with pytest.raises(EvidenceMissingError, match="`trine_vision` needs `text_embeddings`: pass"):
        run_study(support, [test], scores=["trine_vision"])
    with pytest.raises(InputError, match="did you mean trustvlm"):
        run_study(support, [test], scores=["trustvml"])
    with pytest.raises(InputError, match="at least one draw"):
        run_study(support, [test], draws=0)

    @scores.register("needs_embeddings", needs=("image_embeddings",), formula="", source="a test")
    def needs_embeddings(evidence):
        """Need what is not there."""

    try:
        with pytest.raises(EvidenceMissingError, match="image_embeddings"):
            run_study(support, [test], scores=["needs_embeddings"])
        with pytest.warns(TrustVLMWarning) as warned:
            study = run_study(support, [test])
        assert any("lata and needs_embeddings are left" in str(w.message) for w in warned)
        assert "needs_embeddings" not in {row["score"] for row in study.rows}
    finally:
        scores.unregister("needs_embeddings")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "labels is missing; it holds logits, features"),
        ({"labels": np.arange(60)}, r"`labels` to lie in 0\.\.2"),
        ({"labels": np.arange(59) % 3}, "59"),
        ({"logits": np.zeros((60, 4))}, "3 columns like `class_names`"),
        ({"features": np.full((60, 8), np.nan)}, "`features` to be finite"),
        ({"features": np.zeros((60, 8))}, "all zeros"),
        ({"text_embeddings": np.ones((4, 5))}, "`text_embeddings` to have 3 rows"),
        ({"labels": np.empty(0, dtype=int)}, "holds no images"),
        ({"class_names": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, changes, message):
    path = write_arrays(tmp_path / "bad.npz", 0, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_arrays(path)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.npz is no \.npz file"):
        load_arrays(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="no file"):
        load_arrays(tmp_path / "missing.npz")


def test_sets_that_do_not_belong_together_are_refused(tmp_path, files):
    support = load_arrays(files[0])
    other = write_arrays(tmp_path / "o.npz", 0, class_names=np.array(["cat", "bird", "dog"]))
    with pytest.raises(InputError, match="differ in 'dog' and 'bird'"):
        run_study(support, [load_arrays(other)])
    wide = load_arrays(write_arrays(tmp_path / "w.npz", 0, d=9))
    with pytest.raises(InputError, match="one vision encoder"):
        run_study(support, [wide])


def test_the_command_writes_rows_and_verdicts(files, tmp_path, capsys, monkeypatch):
    from command import Command

    run = Command(capsys, monkeypatch)
    rows, verdicts = tmp_path / "rows.json", tmp_path / "verdicts.npz"
    done = run(
        *["bench", "arrays", "--support", files[0], *files[1], "--scores", "MSP,TrustVLM*"],
        *["--shots", "4,1", "--draws", 2, "--json", rows, "--verdicts", verdicts],
    )
    assert done.code == 0, done.err
    rows_read = json.loads(rows.read_text())["rows"]
    assert len(rows_read) == 2 * 2 * 2 * 2
    assert {tuple(row) for row in rows_read} == {ROW_KEYS}
    with np.load(verdicts) as stored:
        assert stored["pets__test1/trustvlm_star/confidence"].shape == (40,)
    assert re.search(r"^ *trustvlm_star +L +[\d.]+", done.out, re.MULTILINE)
    assert re.search(r"^ *msp +[\d.]+", done.out, re.MULTILINE)
    assert "L: may change the label" in done.out
    started = ["bench", "arrays", "--support", files[0], files[1][0], "--scores", "trustvlm"]
    assert run(*started, "--preset", "loo", "--json", rows).code == 0
    assert json.loads(rows.read_text())["rows"][0]["selection"]["by"] == "loo"
    assert run(*started, "--val", files[1][1], "--json", rows).code == 0
    assert json.loads(rows.read_text())["rows"][0]["selection"]["by"] == "validation"
    assert "number for number" in run(*started, "--val", files[1][0]).err
    for wrong in (["--preset", "paper"], ["--preset", "loo", "--val", files[1][1]]):
        done = run(*started, *wrong)
        assert done.code == 2
        assert "--preset" in done.err
    assert run("bench", "arrays", "--support", files[0], files[1][0], "--shots", "x").code == 2
    biased = [write_arrays(tmp_path / f"b{i}.npz", i, logit_bias=-3.0) for i in (0, 1)]
    sigmoid = [*["--scores", "msp,entropy", "--link", "sigmoid"], *["--json", rows]]
    assert run("bench", "arrays", "--support", *biased, *sigmoid).code == 0
    first, second = json.loads(rows.read_text())["rows"]
    assert (first["parameters"], second["parameters"]) == ({"link": "sigmoid"}, {})
    by_hand = load_arrays(biased[1])
    p = 1 / (1 + np.exp(3.0 - by_hand.logits.max(axis=1)))
    right = by_hand.logits.argmax(axis=1) == by_hand.labels
    assert first["aurc"] == pytest.approx(metrics.aurc(p, right))
    for message, wrong in {
        "logit_bias": [files[1][0], *sigmoid],
        "--link is for the scores msp, margin and trustvlm": [
            *sigmoid,
            "--scores",
            "knn",
            biased[1],
        ],
        "for the link `softmax` alone": [
            *sigmoid,
            "--scores",
            "trustvlm",
            "--preset",
            "loo",
            biased[1],
        ],
        "to be softmax or sigmoid": [*sigmoid, "--link", "sigmod", biased[1]],
        "to come from one VLM": [*sigmoid, write_arrays(tmp_path / "c.npz", 1, logit_bias=-2.0)],
    }.items():
        support = files[0] if message == "logit_bias" else biased[0]
        assert message in " ".join(run("bench", "arrays", "--support", support, *wrong).err.split())
    assert run("bench", "arrays", "--support", files[0], files[1][0], files[1][0]).code == 2
    assert run("bench", "arrays", files[1][0]).code == 2


@pytest.mark.slow
def test_real_embeddings_give_finite_numbers_for_every_score(data_root):
    root = data_root.parent / "embeddings"
    if not root.is_dir():
        pytest.skip(f"no ready-made embeddings at {root}")
    for support in sorted(root.glob("*__train.npz")):
        name = support.stem.split("__")[0]
        tests = [load_arrays(path) for path in sorted(root.glob(f"{name}__test*.npz"))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrustVLMWarning)
            study = run_study(load_arrays(support), tests, shots=(1, 16))
        for result in study.verdicts.values():
            assert np.isfinite(result.confidence).all()
        for row in study.rows:
            assert row["aurc"] is not None
            assert row["auroc"] is not None


def plainly(support, test, weight=1.0, temperature=0.01):
    """TrustVLM and TrustVLM* from two .npz files, written out: no line of the package."""
    labels, features = support["labels"].tolist(), support["features"].astype(np.float64)
    prototypes = []
    for c in range(len(support["class_names"])):
        members = [i for i, label in enumerate(labels) if label == c]
        mean = features[random.Random(0).sample(members, min(16, len(members)))].mean(axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    images = test["features"].astype(np.float64)
    similarity = images @ np.array(prototypes).T / np.linalg.norm(images, axis=1, keepdims=True)
    z = test["logits"].astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    votes = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    q = p + weight * votes / votes.sum(axis=1, keepdims=True)
    rows = np.arange(len(z))
    plain, star = z.argmax(axis=1), q.argmax(axis=1)
    return {
        "trustvlm": (plain, p[rows, plain] + weight * similarity[rows, plain]),
        "trustvlm_star": (star, q[rows, star] + weight * similarity[rows, star]),
    }


@pytest.mark.slow
def test_real_embeddings_give_what_a_plain_computation_gives(
    data_root, tmp_path, capsys, monkeypatch
):
    from command import Command

    root = data_root.parent / "embeddings"
    if not root.is_dir():
        pytest.skip(f"no ready-made embeddings at {root}")
    run, verdicts = Command(capsys, monkeypatch), tmp_path / "verdicts.npz"
    for support in sorted(root.glob("*__train.npz")):
        tests = sorted(root.glob(f"{support.stem.split('__')[0]}__test*.npz"))
        done = run(
            *["bench", "arrays", "--support", support, *tests, "--shots", 16, "--quiet"],
            *["--scores", "trustvlm,trustvlm_star", "--verdicts", verdicts],
        )
        assert done.code == 0, done.err
        with np.load(verdicts) as stored:
            for test in tests:
                expected = plainly(np.load(support), np.load(test))
                for score, (prediction, confidence) in expected.items():
                    at = f"{test.stem}/{score}"
                    np.testing.assert_array_equal(stored[f"{at}/prediction"], prediction)
                    np.testing.assert_allclose(stored[f"{at}/confidence"], confidence, atol=1e-5)
