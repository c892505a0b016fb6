import json
import warnings

import numpy as np
import pytest

from benchmark_files import write_arrays
from trustvlm import metrics, scores
from trustvlm.benchmark import ROW_KEYS, load_arrays, run_study
from trustvlm.exceptions import EvidenceMissingError, InputError, TrustVLMWarning
from trustvlm.scores.shots import draw_shots


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
    study = run_study(support, [test], shots=(4,))
    assert {row["score"] for row in study.rows} >= {"msp", "trustvlm", "mcm"}
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
        assert "needs_embeddings" not in {r["score"] for r in run_study(support, [test]).rows}
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
    with pytest.raises(InputError, match=r"bad\.npz"):
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
        *["bench", "arrays", "--support", files[0], *files[1], "--scores", "msp,trustvlm_star"],
        *["--shots", "4,1", "--draws", 2, "--json", rows, "--verdicts", verdicts],
    )
    assert done.code == 0, done.err
    found = json.loads(rows.read_text())["rows"]
    assert len(found) == 2 * 2 * 2 * 2
    assert {tuple(row) for row in found} == {ROW_KEYS}
    with np.load(verdicts) as stored:
        assert stored["pets__test1/trustvlm_star/confidence"].shape == (40,)
    assert "trustvlm_star" in done.out
    assert run("bench", "arrays", "--support", files[0], files[1][0], "--shots", "x").code == 1
    assert run("bench", "arrays", "--support", files[0], files[1][0], files[1][0]).code == 1
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
